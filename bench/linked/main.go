// Command linked links what credresolve links, and does nothing: the floor of its start-up time and memory.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/99designs/keyring"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/hashicorp/vault/api"
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
}
