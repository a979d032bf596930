package openclawexec

import (
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// The providers of the configuration that VaultEnv gives.
const (
	vaultProvider  = "vault"
	loginEnv       = "env"
	loginFile      = "secret-id"
	approleMethod  = "approle"
	secretIDEnv    = "VAULT_SECRET_ID"
	defaultKVMount = "secret"
)

// VaultEnv gives a configuration with one provider, of kind vault, for the variables that OpenClaw's own resolver for Vault
// reads: VAULT_ADDR, VAULT_NAMESPACE, OPENCLAW_VAULT_AUTH_METHOD (token, token_file, jwt, kubernetes), VAULT_TOKEN,
// VAULT_TOKEN_FILE, OPENCLAW_VAULT_AUTH_MOUNT, OPENCLAW_VAULT_AUTH_ROLE, OPENCLAW_VAULT_JWT_FILE, OPENCLAW_VAULT_KV_MOUNT,
// OPENCLAW_VAULT_KV_VERSION and NODE_EXTRA_CA_CERTS; and beside them the method approle, with VAULT_ROLE_ID, and
// VAULT_SECRET_ID or VAULT_SECRET_ID_FILE. No secret is in it. names are what ids then mean. Its error is an ErrInvalidConfig.
func VaultEnv(lookupEnv func(string) (string, bool)) (configuration []byte, names Names, err error) {
	env := func(name string) string {
		v, _ := lookupEnv(name)
		return strings.TrimSpace(v)
	}
	invalid := func(reason, remedy string) ([]byte, Names, error) {
		return nil, Names{}, &backend.Error{Code: backend.CodeInvalidConfig, Reason: reason, Remedy: remedy}
	}
	provider := map[string]any{"kind": "vault"}
	providers := map[string]any{vaultProvider: provider}
	if provider["address"] = strings.TrimRight(env("VAULT_ADDR"), "/"); provider["address"] == "" {
		return invalid("VAULT_ADDR is not set", "name it in passEnv of OpenClaw's provider, and set it where OpenClaw starts")
	}
	if namespace := env("VAULT_NAMESPACE"); namespace != "" {
		provider["namespace"] = namespace
	}
	provider["mount"] = defaultKVMount
	if mount := strings.Trim(env("OPENCLAW_VAULT_KV_MOUNT"), "/"); mount != "" {
		provider["mount"] = mount
	}
	switch env("OPENCLAW_VAULT_KV_VERSION") {
	case "", "2":
		provider["kv_version"] = 2
	case "1":
		provider["kv_version"] = 1
	default:
		return invalid("OPENCLAW_VAULT_KV_VERSION is neither 1 nor 2", "")
	}
	if file := env("NODE_EXTRA_CA_CERTS"); file != "" && env("VAULT_CACERT") == "" {
		provider["tls"] = map[string]any{"ca_file": file}
	}
	method := env("OPENCLAW_VAULT_AUTH_METHOD")
	if method == "" {
		method = "token"
	}
	auth := map[string]any{"method": method}
	provider["auth"] = auth
	if mount := strings.Trim(env("OPENCLAW_VAULT_AUTH_MOUNT"), "/"); mount != "" && method != "token" && method != "token_file" {
		auth["mount"] = mount
	}
	needs := func(name string) ([]byte, Names, error) {
		return invalid(name+" is not set, which the method "+method+" needs", "name it in passEnv of OpenClaw's provider, and set it where OpenClaw starts")
	}
	switch method {
	case "token":
		if env("VAULT_TOKEN") == "" {
			return needs("VAULT_TOKEN")
		}
	case "token_file":
		if auth["token_file"] = env("VAULT_TOKEN_FILE"); auth["token_file"] == "" {
			return needs("VAULT_TOKEN_FILE")
		}
	case "jwt", "kubernetes":
		if auth["role"] = env("OPENCLAW_VAULT_AUTH_ROLE"); auth["role"] == "" {
			return needs("OPENCLAW_VAULT_AUTH_ROLE")
		}
		if file := env("OPENCLAW_VAULT_JWT_FILE"); file != "" {
			auth["jwt_file"] = file
		} else if method == "jwt" {
			return needs("OPENCLAW_VAULT_JWT_FILE")
		}
	case approleMethod:
		if auth["role_id"] = env("VAULT_ROLE_ID"); auth["role_id"] == "" {
			return needs("VAULT_ROLE_ID")
		}
		if file := env("VAULT_SECRET_ID_FILE"); file != "" {
			if !filepath.IsAbs(file) {
				return invalid("VAULT_SECRET_ID_FILE is not an absolute path", "")
			}
			providers[loginFile] = map[string]any{"kind": "file", "path": file, "mode": "raw", "trim_newline": true}
			auth["secret_id"] = map[string]any{"provider": loginFile, "id": "value"}
		} else if env(secretIDEnv) != "" {
			providers[loginEnv] = map[string]any{"kind": "env", "allow": []string{secretIDEnv}}
			auth["secret_id"] = map[string]any{"provider": loginEnv, "id": secretIDEnv}
		}
	default:
		return invalid("OPENCLAW_VAULT_AUTH_METHOD is none of: token, token_file, jwt, kubernetes, approle", "")
	}
	configuration, err = json.Marshal(map[string]any{"version": 1, "providers": providers})
	return configuration, Names{Vault: vaultProvider, Only: vaultProvider}, err
}
