// Package secretref resolves SecretRefs, the static references {source, provider, id} of OpenClaw, as OpenClaw does: eagerly,
// in one pass, as they were when the pass ran. It knows nothing of CredentialRefs and of the Resolver behind them.
package secretref
