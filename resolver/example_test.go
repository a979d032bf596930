package resolver_test

import (
	"context"
	"fmt"
	"log"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

func Example() {
	store, err := memory.New(memory.Config{Values: map[string]string{"app/db": `{"user":"app","password":"s3cret"}`}})
	if err != nil {
		log.Fatal(err)
	}
	r, err := resolver.New(resolver.Config{Providers: map[string]resolver.Provider{"demo": {Backend: store}}})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()

	v, err := r.Resolve(context.Background(), credref.Ref{Provider: "demo", ID: "app/db", Field: "password"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.Secret(), v.Type())
	_ = v.Secret().Use(func(password []byte) error {
		fmt.Println(len(password), "bytes")
		return nil
	})
	// Output:
	// [redacted] user_value
	// 6 bytes
}
