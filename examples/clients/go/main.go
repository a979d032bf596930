// Command go asks a sidecar for credentials by package client, which does in Go what the other examples do in their languages.
//
//	go run ./examples/clients/go cred://conf//db/password
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(backend.CodeOf(err).ExitStatus())
	}
}

// run prints the value of the first ref, how many of all are there, and the next change of the first.
func run(ctx context.Context, args []string) error {
	c, err := client.New(client.Config{})
	if err != nil {
		return err
	}
	defer c.Close()
	refs := make([]credref.Ref, len(args))
	for i, arg := range args {
		if refs[i], err = credref.Parse(arg); err != nil {
			return err
		}
	}
	first, err := c.Resolve(ctx, refs[0])
	if err != nil {
		return err
	}
	err = first.Secret().Use(func(value []byte) error {
		_, err := fmt.Printf("%s\n", value)
		return err
	})
	if err != nil {
		return err
	}
	// What is not changed is not sent again.
	switch again, err := c.ResolveUnless(ctx, refs[0], first.Revision()); {
	case err != nil:
		return err
	case again == nil:
		fmt.Println("unchanged")
	default:
		fmt.Println("changed")
	}
	there := 0
	for _, o := range c.ResolveAll(ctx, refs) {
		switch {
		case o.Err == nil:
			there++
		case errors.Is(o.Err, backend.ErrNotFound): // every other error is worth a closer look
		default:
			return o.Err
		}
	}
	fmt.Printf("%d of %d are there\n", there, len(refs))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for ev := range c.Watch(ctx, refs[0]) {
		if ev.Revision != "" && ev.Revision != first.Revision() {
			fmt.Println("it changed")
			return nil
		}
	}
	return nil
}
