// Command linked links what credresolve links of others to speak with stores, with the sidecar's collectors of traces and
// with OpenClaw, and does nothing: the floor of its start-up time and memory.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"filippo.io/age"
	"github.com/99designs/keyring"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/coder/websocket"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/godbus/dbus/v5"
	"github.com/hashicorp/vault/api"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// main refers to the operations that are in use, so that the linker keeps them, and calls them with an argument alone.
func main() {
	if len(os.Args) < 2 {
		return
	}
	ctx := context.Background()
	ring, err := keyring.Open(keyring.Config{})
	fmt.Println(ring, err)
	client, err := api.NewClient(api.DefaultConfig())
	fmt.Println(client, err)
	cfg, err := config.LoadDefaultConfig(ctx)
	fmt.Println(err)
	secrets, tokens := secretsmanager.NewFromConfig(cfg), sts.NewFromConfig(cfg)
	fmt.Println(secrets.GetSecretValue(ctx, nil))
	fmt.Println(secrets.BatchGetSecretValue(ctx, nil))
	fmt.Println(secrets.DescribeSecret(ctx, nil))
	fmt.Println(secrets.ListSecrets(ctx, nil))
	fmt.Println(secrets.CreateSecret(ctx, nil))
	fmt.Println(secrets.PutSecretValue(ctx, nil))
	fmt.Println(secrets.UpdateSecretVersionStage(ctx, nil))
	fmt.Println(secrets.DeleteSecret(ctx, nil))
	fmt.Println(tokens.GetCallerIdentity(ctx, nil))
	fmt.Println(tokens.AssumeRole(ctx, nil))
	fmt.Println(tokens.AssumeRoleWithWebIdentity(ctx, nil))
	fmt.Println(tokens.GetSessionToken(ctx, nil))
	bus, err := dbus.SessionBus()
	fmt.Println(bus, err)
	socket, _, err := websocket.Dial(ctx, os.Args[1], nil)
	fmt.Println(socket, err)
	_, err = oidc.NewVerifier("", &oidc.StaticKeySet{}, &oidc.Config{}).Verify(ctx, os.Args[1])
	fmt.Println(err)
	fmt.Println(jose.NewSigner(jose.SigningKey{}, nil))
	_, span := trace.NewTracerProvider(trace.WithResource(resource.Empty())).Tracer("").Start(ctx, "")
	span.End()
	key, err := age.GenerateX25519Identity()
	fmt.Println(err)
	_, err = age.Encrypt(new(bytes.Buffer), key.Recipient())
	fmt.Println(err)
}
