// Package library shows how a Go program resolves references.
package library

import (
	"context"
	"fmt"
	"log"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

func Example() {
	r, err := config.Open("credresolve.yaml", vault.Kind(), memory.Kind())
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	password, err := r.Resolve(context.Background(), credref.Ref{Provider: "app", ID: "kv/app/db", Field: "password"})
	fmt.Println(password, err) // password.Secret().Use lends the bytes, Reveal copies them
	// Output: [redacted] <nil>
}
