// Command linked links what credresolve links, and does nothing: the floor of its start-up time and memory.
package main

import (
	_ "github.com/99designs/keyring"
	_ "github.com/aws/aws-sdk-go-v2/config"
	_ "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	_ "github.com/aws/aws-sdk-go-v2/service/sts"
	_ "github.com/goccy/go-yaml"
	_ "github.com/hashicorp/vault/api"
	_ "github.com/pelletier/go-toml/v2"
	_ "github.com/spf13/cobra"
	_ "github.com/tailscale/hujson"
)

func main() {}
