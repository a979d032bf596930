package secretref

import (
	"fmt"
	"strings"
)

// EventCode names a kind of [Event].
type EventCode string

// The kinds of event.
const (
	// GatewayAuthSurface says of a ref of the gateway's own credentials whether it takes part.
	GatewayAuthSurface EventCode = "SECRETS_GATEWAY_AUTH_SURFACE"
	// RefIgnoredInactive says that a ref was not resolved, since nothing uses its place.
	RefIgnoredInactive EventCode = "SECRETS_REF_IGNORED_INACTIVE_SURFACE"
	// RefOverridesPlaintext says that a literal beside a ref is ignored.
	RefOverridesPlaintext EventCode = "SECRETS_REF_OVERRIDES_PLAINTEXT"
	// OwnerUnavailable is the warning for an owner that is stale or cold.
	OwnerUnavailable EventCode = "SECRETS_OWNER_UNAVAILABLE"
	// Degraded says of one owner that a ref of it failed.
	Degraded EventCode = "SECRETS_DEGRADED"
	// ProviderDegraded says of one provider that it failed whole, with every owner that is hit.
	ProviderDegraded EventCode = "SECRETS_PROVIDER_DEGRADED"
	// ReloaderDegraded is sent once, when a reload is the first that did not get everything.
	ReloaderDegraded EventCode = "SECRETS_RELOADER_DEGRADED"
	// ReloaderRecovered is sent once, by the first activation after ReloaderDegraded that got everything.
	ReloaderRecovered EventCode = "SECRETS_RELOADER_RECOVERED"
)

// RetryHint is what an event tells a person to do after the store is back, unless RuntimeConfig.RetryHint says else.
const RetryHint = "openclaw secrets reload"

// Event is something to log or to tell an operator. It holds no value, and no id of a ref.
type Event struct {
	Code      EventCode
	Owner     Owner         // of Degraded and OwnerUnavailable
	Source    Source        // of ProviderDegraded
	Provider  string        // of ProviderDegraded
	Affected  []OwnerStatus // of ProviderDegraded, sorted by owner
	Path      string        // of the warnings about a place
	Paths     []string      // of OwnerUnavailable
	Reason    string        // redacted; of a surface, why it is active or not
	State     string        // stale or cold; of GatewayAuthSurface, active or inactive
	RetryHint string        // of Degraded and ProviderDegraded
}

// OwnerStatus is an owner and its state.
type OwnerStatus struct {
	Owner Owner
	State OwnerState
}

func (o OwnerStatus) String() string { return string(o.State) + " " + o.Owner.String() }

// Name is the name under which OpenClaw logs the event with fields; empty when it logs a line alone.
func (e Event) Name() string {
	switch e.Code {
	case Degraded:
		return "secrets.degraded"
	case ProviderDegraded:
		return "secrets.provider_degraded"
	}
	return ""
}

// Warning reports whether the event counts as a warning of an activation.
func (e Event) Warning() bool {
	return e.Code == RefIgnoredInactive || e.Code == RefOverridesPlaintext || e.Code == OwnerUnavailable
}

// String is one line: the code in brackets, and what happened.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s] ", e.Code)
	switch e.Code {
	case GatewayAuthSurface:
		fmt.Fprintf(&b, "%s is %s", e.Path, e.State)
		if e.Reason != "" {
			fmt.Fprintf(&b, ": %s", e.Reason)
		}
	case RefIgnoredInactive:
		fmt.Fprintf(&b, "%s: nothing uses this ref as things stand, so it is not resolved", e.Path)
		if e.Reason != "" {
			fmt.Fprintf(&b, " (%s)", e.Reason)
		}
	case RefOverridesPlaintext:
		fmt.Fprintf(&b, "%s: the ref counts, the plaintext beside it is ignored; remove it", e.Path)
	case OwnerUnavailable:
		fmt.Fprintf(&b, "%s %s at %s: %s", e.State, e.Owner, strings.Join(e.Paths, ", "), e.Reason)
	case Degraded:
		fmt.Fprintf(&b, "%s %s: %s; retry with: %s", e.State, e.Owner, e.Reason, e.RetryHint)
	case ProviderDegraded:
		fmt.Fprintf(&b, "%s:%s: %s; affected: ", e.Source, e.Provider, e.Reason)
		for i, a := range e.Affected {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(a.String())
		}
		fmt.Fprintf(&b, "; retry with: %s", e.RetryHint)
	default:
		b.WriteString(e.Reason)
	}
	return b.String()
}
