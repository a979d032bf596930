// Command vaultd runs a real Vault core (v1.12.2, MPL-2.0) with in-memory storage on a loopback port, for tests alone.
// It prints one JSON line {"addr","token","unseal_key"} on stdout and serves until stdin closes or it is signalled, so
// that it cannot outlive the test that started it.
//
// It has the secrets engines kv (version 2 at secret/), transit, pki, ssh, totp and database (with the plugin
// memdb-database-plugin, whose users live in memory), the auth methods token, approle, userpass and cert, and the file
// audit device. Namespaces, kubernetes and jwt are not in this edition.
package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	log "github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	auditFile "github.com/hashicorp/vault/builtin/audit/file"
	credAppRole "github.com/hashicorp/vault/builtin/credential/approle"
	credCert "github.com/hashicorp/vault/builtin/credential/cert"
	credUserpass "github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/ssh"
	"github.com/hashicorp/vault/builtin/logical/totp"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// options are the flags.
type options struct {
	listen, token, logLevel      string
	sealed                       bool
	defaultLeaseTTL, maxLeaseTTL time.Duration
	tlsCert, tlsKey              string
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "loopback address to listen on")
	flag.StringVar(&o.token, "token", "root", "root token id")
	flag.StringVar(&o.logLevel, "log-level", "off", "log level (stderr)")
	flag.BoolVar(&o.sealed, "sealed", false, "leave the core initialised but sealed")
	flag.DurationVar(&o.defaultLeaseTTL, "default-lease-ttl", 0, "default lease ttl")
	flag.DurationVar(&o.maxLeaseTTL, "max-lease-ttl", 0, "max lease ttl")
	flag.StringVar(&o.tlsCert, "tls-cert", "", "PEM certificate file")
	flag.StringVar(&o.tlsKey, "tls-key", "", "PEM key file")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "vaultd:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	logger := log.New(&log.LoggerOptions{Level: log.LevelFromString(o.logLevel), Output: os.Stderr})
	phys, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:        phys,
		StorageType:     "inmem",
		Logger:          logger,
		DisableMlock:    true,
		DefaultLeaseTTL: o.defaultLeaseTTL,
		MaxLeaseTTL:     o.maxLeaseTTL,
		DevToken:        o.token,
		LogicalBackends: map[string]logical.Factory{
			"kv": kv.Factory, "transit": transit.Factory, "pki": pki.Factory,
			"ssh": ssh.Factory, "totp": totp.Factory, "database": database.Factory,
		},
		CredentialBackends: map[string]logical.Factory{
			"approle": credAppRole.Factory, "userpass": credUserpass.Factory, "cert": credCert.Factory,
		},
		AuditBackends:   map[string]audit.Factory{"file": auditFile.Factory},
		BuiltinRegistry: extraRegistry(),
	})
	if err != nil {
		return fmt.Errorf("new core: %w", err)
	}
	ctx := namespace.ContextWithNamespace(context.Background(), namespace.RootNamespace)
	initialised, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
	})
	if err != nil {
		return fmt.Errorf("initialise: %w", err)
	}
	unsealKey := base64.StdEncoding.EncodeToString(initialised.SecretShares[0])
	token := initialised.RootToken
	if !o.sealed {
		k := append([]byte(nil), initialised.SecretShares[0]...)
		if ok, err := core.Unseal(k); err != nil || !ok {
			return fmt.Errorf("unseal: ok=%v: %w", ok, err)
		}
		if o.token != "" {
			// same steps as `vault server -dev -dev-root-token-id`
			req := &logical.Request{
				Operation: logical.UpdateOperation, Path: "auth/token/create", ClientToken: initialised.RootToken,
				Data: map[string]any{"id": o.token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true},
			}
			if _, err := core.HandleRequest(ctx, req); err != nil {
				return fmt.Errorf("dev token: %w", err)
			}
			token = o.token
		}
		// `vault server -dev` also mounts a kv v2 engine at secret/
		req := &logical.Request{
			Operation: logical.UpdateOperation, ClientToken: token, Path: "sys/mounts/secret",
			Data: map[string]any{"type": "kv", "options": map[string]string{"version": "2"}},
		}
		if _, err := core.HandleRequest(ctx, req); err != nil {
			return fmt.Errorf("mount kv: %w", err)
		}
	}

	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	scheme := "http"
	if o.tlsCert != "" {
		c, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
		if err != nil {
			return err
		}
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{c}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}})
		scheme = "https"
	}
	srv := &http.Server{
		Handler: vaulthttp.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{Address: ln.Addr().String()},
		}),
		ErrorLog: logger.StandardLogger(nil),
	}
	go srv.Serve(ln)
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{
		"addr": scheme + "://" + ln.Addr().String(), "token": token, "unseal_key": unsealKey,
	})

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	eof := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(eof) }()
	select {
	case <-stop:
	case <-eof:
	}
	srv.Close()
	return core.Shutdown()
}
