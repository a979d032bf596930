package config_test

import (
	"strings"
	"testing"

	"github.com/credresolve/credresolve/config"
)

func TestServeIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ serve, want string }{
		"requests":    {"limits: {requests: -5}", ":5:22: serve.limits.requests: a number cannot be negative"},
		"queue":       {"limits: {queue: -1}", "serve.limits.queue: a number cannot be negative"},
		"connections": {"limits: {connections: -1}", "serve.limits.connections: a number cannot be negative"},
		"rate":        {"limits: {rate: {calls: -1}}", "serve.limits.rate.calls: a number cannot be negative"},
		"keep":        {"audit: {keep: -1}", "serve.audit.keep: a number cannot be negative"},
		"a consumer's rate": {
			`consumers: [{name: web, uid: 1, rate: {calls: -1}, allow: [{provider: box, id: x}]}]`, "rate: a number cannot be negative",
		},
		"one file for two tokens": {
			"tokens: {a: token, b: ./token}", "serve.tokens: the file is also that of the token a",
		},
		"a consumer's token is the owner's": {
			`tcp: {listen: "127.0.0.1:1", token_file: token}
  vault: {listen: "127.0.0.1:2", token_file: token, consumer: web, mounts: {kv: box}}
  consumers: [{name: web, allow: [{provider: box, id: x}]}]`, "serve.vault.token_file: the file is also that of owner",
		},
		"a named token is the owner's": {
			`tcp: {listen: "127.0.0.1:1", token_file: token}
  tokens: {web: token}`, "serve.tcp.token_file: the file is also that of the token web",
		},
		"one file for one consumer": {
			`aws_agent: {listen: "127.0.0.1:1", token_file: token, consumer: web, provider: box}
  vault: {listen: "127.0.0.1:2", token_file: token, consumer: web, mounts: {kv: box}}
  consumers: [{name: web, allow: [{provider: box, id: x}]}]`, "",
		},
		"none of it": {"limits: {requests: 0}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(write(t, "version: 1\nproviders:\n  box: {kind: box}\nserve:\n  "+c.serve+"\n"), registry(nil))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
