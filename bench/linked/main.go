// Command linked links what credresolve links of others, the SDKs of its stores and those of its sidecar (traces and
// sealing), and does nothing: the floor of its start-up time and memory.
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
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// main refers to the clients of the SDKs, so that the linker keeps them, and uses them with an argument alone.
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
	fmt.Println(secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, nil))
	fmt.Println(sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil))
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
