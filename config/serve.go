package config

import (
	"fmt"
	"maps"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/credref"
)

// Serve is the section serve of a configuration: how a sidecar listens, whom it answers, and what it keeps.
type Serve struct {
	// Socket is where the Unix socket is and who may reach it.
	Socket SocketSettings `yaml:"socket"`
	// TCP is a second listener, on loopback alone. Not set: none.
	TCP TCPSettings `yaml:"tcp"`
	// Tokens are files with a bearer token each, by the name that a consumer's token setting gives. Such a file has mode
	// 0600, and is made with a random token if it does not exist.
	Tokens map[string]string `yaml:"tokens"`
	// Consumers are who may ask beside the owner of the process. The first that matches a caller is what the caller is.
	Consumers []Consumer `yaml:"consumers"`
	// Audit is where each reveal and each denial is written.
	Audit AuditSettings `yaml:"audit"`
	// Limits bound what callers can use up.
	Limits ServeLimits `yaml:"limits"`
	// Prefetch are refs that are resolved before the sidecar is ready, and kept fresh.
	Prefetch []Prefetch `yaml:"prefetch"`
	// Sealed keeps values on disk, encrypted, for an outage of a store that begins before a restart. Not set: nothing is kept.
	Sealed SealedSettings `yaml:"sealed"`
	// Memory says what of the process is kept out of swap. Core dumps are always off.
	Memory MemorySettings `yaml:"memory"`
	// Tracing exports OpenTelemetry traces. Not set: none.
	Tracing TracingSettings `yaml:"tracing"`
	// Grace is how long requests under way may take once the sidecar is told to end. Zero: 10s.
	Grace time.Duration `yaml:"grace"`
	// RevokeOnExit revokes leased credentials at their stores when the sidecar ends.
	RevokeOnExit bool `yaml:"revoke_on_exit"`
	// AWSAgent answers as the AWS Workload Credentials Provider (Secrets Manager Agent) does. Not set: off.
	AWSAgent AWSAgentSettings `yaml:"aws_agent"`
	// Vault answers reads of KV version 2 as Vault does. Not set: off.
	Vault VaultSettings `yaml:"vault"`
	// ContainerCredentials answers as the credentials endpoint of AWS containers does. Not set: off.
	ContainerCredentials ContainerSettings `yaml:"container_credentials"`
	// Plugins says where plugins keep secrets of their own. Not set: they keep none.
	Plugins PluginSettings `yaml:"plugins"`
	// Health says how often providers and credentials are looked at. Not set: only when somebody asks.
	Health HealthSettings `yaml:"health"`
}

// HealthSettings say how providers and credentials are looked at.
type HealthSettings struct {
	// Interval is how long after one look the next comes, give or take a tenth. Zero: none comes by itself.
	Interval time.Duration `yaml:"interval"`
	// Refs are credentials that are looked at beside those of logins, which are resolved for it.
	Refs []credref.Ref `yaml:"refs"`
	// Executables also looks by itself at providers that may start a program for it.
	Executables bool `yaml:"executables"`
}

// SocketSettings says where the Unix socket is.
type SocketSettings struct {
	// Path of the socket. Empty: $XDG_RUNTIME_DIR/credresolve/sock, else sock in the state directory.
	Path string `yaml:"path"`
	// Group may connect too: the socket then has mode 0660 and that group, its directory 0710. Empty: 0600 and 0700.
	Group string `yaml:"group"`
}

// TCPSettings is a loopback listener.
type TCPSettings struct {
	// Listen is a loopback address with its port, as 127.0.0.1:8270. Empty: no listener.
	Listen string `yaml:"listen"`
	// TokenFile holds the owner's token, which each request must bring; made if it does not exist. Required with listen.
	TokenFile string `yaml:"token_file"`
}

// Consumer is who may ask. All that is set of uid, gid, executable and token must hold; with none of them it is for sessions
// alone.
type Consumer struct {
	// Name stands in the audit log.
	Name string `yaml:"name"`
	// UID is the caller's user id.
	UID *int `yaml:"uid"`
	// GID is the caller's group id.
	GID *int `yaml:"gid"`
	// Executable is the absolute path of the caller's program, links resolved.
	Executable string `yaml:"executable"`
	// Token is the name of a token in tokens.
	Token string `yaml:"token"`
	// Subject is for whom scoped providers resolve.
	Subject ConsumerSubject `yaml:"subject"`
	// Allow is what the consumer may resolve. Empty: nothing.
	Allow []AllowRule `yaml:"allow"`
	// May is what else it may do: invalidate, revoke, metrics, status.
	May []string `yaml:"may" jsonschema:"enum=invalidate,enum=revoke,enum=metrics,enum=status"`
	// Secrets is what it may do with the secrets of its own that the plugin of its subject keeps: read, write. Empty: nothing.
	Secrets []string `yaml:"secrets" jsonschema:"enum=read,enum=write"`
	// Rate bounds the consumer's refs in a time. Not set: that of limits.
	Rate RateSettings `yaml:"rate"`
}

// ConsumerSubject is the subject of a consumer's connections.
type ConsumerSubject struct {
	// Tenant is the subject's tenant.
	Tenant string `yaml:"tenant"`
	// EndUser is the subject's end user.
	EndUser string `yaml:"end_user"`
	// Plugin is the subject's plugin.
	Plugin string `yaml:"plugin"`
}

// AllowRule allows refs of one provider.
type AllowRule struct {
	// Provider is the name of a provider, or a pattern of names.
	Provider string `yaml:"provider"`
	// ID is a pattern of ids: * stands for any characters but /, ** for any, ? for one that is not /. Empty: none.
	ID string `yaml:"id"`
	// Fields are the fields that may be read. Empty: all, and the whole secret.
	Fields []string `yaml:"fields"`
	// Whole allows the whole secret where fields are named.
	Whole bool `yaml:"whole"`
	// Login also allows to log in and out for these ids, and to refresh what a login gave.
	Login bool `yaml:"login"`
}

// PluginSettings says where plugins keep secrets of their own.
type PluginSettings struct {
	// Store is the provider that keeps them, one that can compare what it replaces. Nothing of it is resolved for anybody but
	// the owner. Empty: plugins keep none.
	Store string `yaml:"store"`
	// Prefix stands before their ids in it. Empty: plugins.
	Prefix string `yaml:"prefix"`
}

// RateSettings is a number in a time.
type RateSettings struct {
	// Calls is how many. Zero: no limit.
	Calls int `yaml:"calls" jsonschema:"minimum=0"`
	// Per is in what time. Zero: 1s.
	Per time.Duration `yaml:"per"`
}

// AuditSettings says where the audit log goes.
type AuditSettings struct {
	// To is file, stdout, syslog or off. Empty: file.
	To string `yaml:"to" jsonschema:"enum=file,enum=stdout,enum=syslog,enum=off"`
	// Path of the file. Empty: audit.jsonl in the state directory.
	Path string `yaml:"path"`
	// OnFailure is what happens to a request whose line cannot be written: deny or allow. Empty: deny.
	OnFailure string `yaml:"on_failure" jsonschema:"enum=deny,enum=allow"`
	// MaxBytes is the size at which the file is rotated. Zero: 100 MiB.
	MaxBytes int64 `yaml:"max_bytes" jsonschema:"minimum=0"`
	// Keep is how many rotated files are kept. Not set: 5.
	Keep *int `yaml:"keep" jsonschema:"minimum=0"`
}

// ServeLimits bound what callers can use up.
type ServeLimits struct {
	// Connections at once, beside a few that are kept for health. Zero: 1,024.
	Connections int `yaml:"connections" jsonschema:"minimum=0"`
	// Watchers at once. Zero: 10,000 or connections, whichever is less.
	Watchers int `yaml:"watchers" jsonschema:"minimum=0"`
	// Requests under way at once. Zero: 256.
	Requests int `yaml:"requests" jsonschema:"minimum=0"`
	// Queue is how many further requests wait for their turn. Zero: 1,024.
	Queue int `yaml:"queue" jsonschema:"minimum=0"`
	// Batch is how many refs one request may have. Zero: 1,000.
	Batch int `yaml:"batch" jsonschema:"minimum=0"`
	// Body is the greatest size of a request's body in bytes. Zero: 1 MiB.
	Body int64 `yaml:"body" jsonschema:"minimum=0"`
	// Header is the greatest size of a request's head in bytes. Zero: 16 KiB.
	Header int `yaml:"header" jsonschema:"minimum=0"`
	// Timeout ends a request. Zero: 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Rate bounds the refs of each consumer that has no rate of its own. Not set: no limit.
	Rate RateSettings `yaml:"rate"`
	// Sessions at once. Zero: 1,000.
	Sessions int `yaml:"sessions" jsonschema:"minimum=0"`
}

// Prefetch is a ref that is wanted before the sidecar is ready.
type Prefetch struct {
	// Ref is what to resolve: {provider, id} or cred://app/kv/app/db.
	Ref credref.Ref `yaml:"ref"`
	// Optional: its failure does not hold readiness back.
	Optional bool `yaml:"optional"`
}

// SealedSettings say how values outlive a restart.
type SealedSettings struct {
	// Path of the file. Empty: nothing is kept.
	Path string `yaml:"path"`
	// Key is the secret that the file is encrypted with, at least 32 characters: a ref. Required with path, unless key_file is.
	Key credref.Ref `yaml:"key"`
	// KeyFile is a file of mode 0600 with that secret, made with a random one if it does not exist.
	KeyFile string `yaml:"key_file"`
	// MaxAge is how old a value may be to be given. Zero: 24h.
	MaxAge time.Duration `yaml:"max_age"`
}

// MemorySettings say what of the process is kept out of swap.
type MemorySettings struct {
	// Lock is auto (where the system's limits allow), require (else the start fails) or off. Empty: auto.
	Lock string `yaml:"lock" jsonschema:"enum=auto,enum=require,enum=off"`
}

// TracingSettings say where traces go.
type TracingSettings struct {
	// Endpoint takes OTLP over HTTP with JSON, as http://127.0.0.1:4318. Empty: no traces.
	Endpoint string `yaml:"endpoint"`
	// Sample is the part of requests without a trace of their own that is traced, from 0 to 1. Not set: 1.
	Sample *float64 `yaml:"sample"`
}

// AWSAgentSettings is the listener for clients of the AWS agent.
type AWSAgentSettings struct {
	// Listen is a loopback address with its port; the agent's own is 127.0.0.1:2773. Empty: off.
	Listen string `yaml:"listen"`
	// TokenFile holds the token that requests bring in X-Aws-Parameters-Secrets-Token; made if it does not exist. Required.
	TokenFile string `yaml:"token_file"`
	// Provider of secretIds that are no refs. Required.
	Provider string `yaml:"provider"`
	// Consumer is the name of the consumer whose rules hold. Empty: the owner.
	Consumer string `yaml:"consumer"`
}

// VaultSettings is the listener for clients of Vault.
type VaultSettings struct {
	// Listen is a loopback address with its port, as 127.0.0.1:8200. Empty: off.
	Listen string `yaml:"listen"`
	// TokenFile holds the token that requests bring in X-Vault-Token; made if it does not exist. Required.
	TokenFile string `yaml:"token_file"`
	// Mounts are the providers by mount: kv: app lets GET /v1/kv/data/db answer cred://app/kv/db where the provider's kind is
	// vault, else cred://app/db.
	Mounts map[string]string `yaml:"mounts"`
	// Consumer is the name of the consumer whose rules hold. Empty: the owner.
	Consumer string `yaml:"consumer"`
}

// ContainerSettings is the listener for AWS SDKs.
type ContainerSettings struct {
	// Listen is a loopback address with its port. Empty: off.
	Listen string `yaml:"listen"`
	// TokenFile holds the token that requests bring in Authorization, for AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; made if it
	// does not exist. Required.
	TokenFile string `yaml:"token_file"`
	// Roles are refs by the last part of the address: deploy: cred://aws/deploy lets
	// AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:PORT/v1/credentials/deploy give it.
	Roles map[string]credref.Ref `yaml:"roles"`
	// Consumer is the name of the consumer whose rules hold. Empty: the owner.
	Consumer string `yaml:"consumer"`
}

// Serve is the section serve: how a sidecar listens, whom it answers and what it keeps. Its paths are absolute.
func (f *File) Serve() Serve {
	s := f.settings.Serve
	for _, path := range []*string{
		&s.Socket.Path, &s.TCP.TokenFile, &s.Audit.Path, &s.Sealed.Path, &s.Sealed.KeyFile,
		&s.AWSAgent.TokenFile, &s.Vault.TokenFile, &s.ContainerCredentials.TokenFile,
	} {
		*path = f.absolute(*path)
	}
	s.Tokens = maps.Clone(s.Tokens)
	for name, path := range s.Tokens {
		s.Tokens[name] = f.absolute(path)
	}
	return s
}

func (f *File) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(f.Dir(), path)
}

// The permissions that a consumer can have beside resolving.
var permissions = []string{"invalidate", "revoke", "metrics", "status"}

// minHealthInterval keeps looks from being a load.
const minHealthInterval = time.Second

// What a consumer may do with the secrets of its plugin.
var secretPermissions = []string{"read", "write"}

// reserved names the providers that keep what is not for resolving: plugins' own secrets, and what logins gave.
func (f *File) reserved() (names []string) {
	for _, store := range []string{f.settings.Serve.Plugins.Store, f.settings.Logins.Store} {
		if store != "" {
			names = append(names, store)
		}
	}
	return names
}

// Resolvable names the providers of which a rule may allow something: all but those that keep plugins' secrets, or what logins
// gave.
func (f *File) Resolvable() []string {
	var names []string
	for _, p := range f.providers {
		if !slices.Contains(f.reserved(), p.Name) {
			names = append(names, p.Name)
		}
	}
	return names
}

// checkServe checks the section serve as a whole.
func (f *File) checkServe(p *problems) {
	n := f.root.get("serve")
	if n == nil {
		return
	}
	s := &f.settings.Serve
	bad := func(key, format string, args ...any) {
		at := n
		for part := range strings.SplitSeq(key, ".") {
			if at.kind == kindMapping {
				if next := at.get(part); next != nil {
					at = next
				}
			}
		}
		p.add(at, "serve."+key, format, args...)
	}
	oneOf := func(key, value string, known ...string) {
		if value != "" && !slices.Contains(known, value) {
			bad(key, "expected one of: %s", strings.Join(known, ", "))
		}
	}
	oneOf("audit.to", s.Audit.To, "file", "stdout", "syslog", "off")
	oneOf("audit.on_failure", s.Audit.OnFailure, "deny", "allow")
	oneOf("memory.lock", s.Memory.Lock, "auto", "require", "off")
	if s.Tracing.Sample != nil && (*s.Tracing.Sample < 0 || *s.Tracing.Sample > 1) {
		bad("tracing.sample", "expected a number from 0 to 1")
	}
	counts := map[string]int64{
		"audit.max_bytes": s.Audit.MaxBytes, "limits.connections": int64(s.Limits.Connections), "limits.watchers": int64(s.Limits.Watchers),
		"limits.requests": int64(s.Limits.Requests), "limits.queue": int64(s.Limits.Queue), "limits.batch": int64(s.Limits.Batch),
		"limits.body": s.Limits.Body, "limits.header": int64(s.Limits.Header), "limits.sessions": int64(s.Limits.Sessions),
		"limits.rate.calls": int64(s.Limits.Rate.Calls),
	}
	if s.Audit.Keep != nil {
		counts["audit.keep"] = int64(*s.Audit.Keep)
	}
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if counts[key] < 0 {
			bad(key, "a number cannot be negative")
		}
	}
	for _, l := range []struct{ key, listen, token string }{
		{"tcp", s.TCP.Listen, s.TCP.TokenFile},
		{"aws_agent", s.AWSAgent.Listen, s.AWSAgent.TokenFile},
		{"vault", s.Vault.Listen, s.Vault.TokenFile},
		{"container_credentials", s.ContainerCredentials.Listen, s.ContainerCredentials.TokenFile},
	} {
		switch {
		case l.listen == "" && l.token != "":
			bad(l.key, "token_file without listen")
		case l.listen == "":
		case !loopback(l.listen):
			bad(l.key+".listen", "expected a loopback address with its port, such as 127.0.0.1:8270")
		case l.token == "":
			bad(l.key, "token_file is missing: a TCP listener answers nobody without a token")
		}
	}
	f.checkConsumers(bad)
	f.checkTokenFiles(bad)
	for i, pre := range s.Prefetch {
		f.checkRef(bad, fmt.Sprintf("prefetch[%d].ref", i), pre.Ref)
	}
	for i, ref := range s.Health.Refs {
		f.checkRef(bad, fmt.Sprintf("health.refs[%d]", i), ref)
	}
	if s.Health.Interval != 0 && s.Health.Interval < minHealthInterval {
		bad("health.interval", "expected at least %s", minHealthInterval)
	}
	if s.AWSAgent.Listen != "" && f.Provider(s.AWSAgent.Provider) == nil {
		bad("aws_agent.provider", "it must name one of the providers")
	}
	switch store := s.Plugins.Store; {
	case store == "" && s.Plugins.Prefix != "":
		bad("plugins", "prefix without store")
	case store != "" && f.Provider(store) == nil:
		bad("plugins.store", "it must name one of the providers")
	}
	for mount, name := range s.Vault.Mounts {
		first, _, _ := strings.Cut(mount, "/")
		switch {
		case f.Provider(name) == nil:
			bad("vault.mounts", "%s: there is no such provider", shownKey(mount))
		case mount == "" || mount != strings.Trim(mount, "/"):
			bad("vault.mounts", "%s: expected a path without / at its ends", shownKey(mount))
		case slices.Contains([]string{"sys", "auth", "identity", "cubbyhole"}, first):
			bad("vault.mounts", "%s: the path is Vault's own", shownKey(mount))
		}
	}
	for role, ref := range s.ContainerCredentials.Roles {
		f.checkRef(bad, "container_credentials.roles."+shownKey(role), ref)
	}
	switch sealed := s.Sealed; {
	case sealed.Path == "" && (sealed.Key != (credref.Ref{}) || sealed.KeyFile != ""):
		bad("sealed", "a key without path")
	case sealed.Path != "" && (sealed.Key == credref.Ref{}) == (sealed.KeyFile == ""):
		bad("sealed", "write one of key and key_file")
	case sealed.Key != (credref.Ref{}):
		f.checkRef(bad, "sealed.key", sealed.Key)
	}
}

type badSetting func(key, format string, args ...any)

func (f *File) checkRef(bad badSetting, key string, ref credref.Ref) {
	if f.Provider(ref.Provider) == nil {
		bad(key, "it must name a secret of one of the providers")
	}
}

func (f *File) checkConsumers(bad badSetting) {
	s := &f.settings.Serve
	names := map[string]bool{}
	for i, c := range s.Consumers {
		key := fmt.Sprintf("consumers[%d]", i)
		switch {
		case credref.ValidateProvider(c.Name) != nil:
			bad(key, "name: expected a name that matches ^[a-z][a-z0-9_-]{0,63}$")
		case c.Name == OwnerName:
			bad(key, "name: %q is the owner of the process, who may do everything", OwnerName)
		case names[c.Name]:
			bad(key, "name: %q stands twice", c.Name)
		}
		names[c.Name] = true
		if c.Executable != "" && !filepath.IsAbs(c.Executable) {
			bad(key, "executable: expected an absolute path")
		}
		if _, known := s.Tokens[c.Token]; c.Token != "" && !known {
			bad(key, "token: there is no such name in serve.tokens")
		}
		if c.UID != nil && *c.UID < 0 || c.GID != nil && *c.GID < 0 {
			bad(key, "uid and gid cannot be negative")
		}
		if c.Rate.Calls < 0 {
			bad(key, "rate: a number cannot be negative")
		}
		for _, may := range c.May {
			if !slices.Contains(permissions, may) {
				bad(key, "may: unknown permission; known: %s", strings.Join(permissions, ", "))
			}
		}
		for _, what := range c.Secrets {
			if !slices.Contains(secretPermissions, what) {
				bad(key, "secrets: unknown permission; known: %s", strings.Join(secretPermissions, ", "))
			}
		}
		switch {
		case len(c.Secrets) == 0:
		case s.Plugins.Store == "":
			bad(key, "secrets: plugins keep none, since serve.plugins.store is not set")
		case c.Subject.Plugin == "" && (c.UID != nil || c.GID != nil || c.Executable != "" || c.Token != ""):
			bad(key, "secrets: whose they are is missing; write subject: {plugin: NAME}")
		}
		for j, rule := range c.Allow {
			at := fmt.Sprintf("%s.allow[%d]", key, j)
			if rule.Provider == "" || rule.ID == "" {
				bad(at, "a rule needs provider and id; ** stands for any id")
				continue
			}
			if _, err := path.Match(rule.Provider, ""); err != nil {
				bad(at, "the pattern of the provider is malformed")
			} else if slices.Contains(f.reserved(), rule.Provider) {
				bad(at, "%q keeps what nobody but the owner may resolve; give it a provider of its own", rule.Provider)
			} else if !slices.ContainsFunc(f.providers, func(p *Provider) bool { ok, _ := path.Match(rule.Provider, p.Name); return ok }) {
				bad(at, "no provider matches %q", rule.Provider)
			}
			if rule.Whole && len(rule.Fields) == 0 {
				bad(at, "whole without fields: the rule allows the whole secret already")
			}
		}
	}
	for _, used := range []struct{ key, name string }{
		{"aws_agent.consumer", s.AWSAgent.Consumer},
		{"vault.consumer", s.Vault.Consumer},
		{"container_credentials.consumer", s.ContainerCredentials.Consumer},
	} {
		if used.name != "" && !names[used.name] {
			bad(used.key, "there is no such consumer")
		}
	}
}

// checkTokenFiles sees to it that a token says who its holder is: a file that is named for two would let the one be the other.
func (f *File) checkTokenFiles(bad badSetting) {
	s := f.Serve()
	type use struct{ key, path, holder string }
	var uses []use
	for _, name := range slices.Sorted(maps.Keys(s.Tokens)) {
		uses = append(uses, use{"tokens", s.Tokens[name], "the token " + shownKey(name)})
	}
	uses = append(uses, use{"tcp.token_file", s.TCP.TokenFile, OwnerName})
	for _, dropIn := range []use{
		{"aws_agent.token_file", s.AWSAgent.TokenFile, s.AWSAgent.Consumer},
		{"vault.token_file", s.Vault.TokenFile, s.Vault.Consumer},
		{"container_credentials.token_file", s.ContainerCredentials.TokenFile, s.ContainerCredentials.Consumer},
	} {
		if dropIn.holder == "" {
			dropIn.holder = OwnerName
		}
		uses = append(uses, dropIn)
	}
	holders := map[string]string{}
	for _, u := range uses {
		switch path := filepath.Clean(u.path); {
		case u.path == "":
		case holders[path] != "" && holders[path] != u.holder:
			bad(u.key, "the file is also that of %s: whoever has its token would be both", holders[path])
		default:
			holders[path] = u.holder
		}
	}
}

// OwnerName is the consumer that the owner of the process is.
const OwnerName = "owner"

func loopback(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
