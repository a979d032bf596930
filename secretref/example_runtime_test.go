package secretref_test

import (
	"context"
	"fmt"

	"github.com/credresolve/credresolve/secretref"
)

// A program resolves all its secrets when it starts. A reload that does not get one of them costs its owner the fresh
// value, and nobody anything else.
func ExampleRuntime() {
	variables := map[string]string{"OPENAI_KEY": "first", "GROQ_KEY": "first"}
	runtime := secretref.NewRuntime(secretref.RuntimeConfig{
		Host: secretref.Host{LookupEnv: func(name string) (string, bool) { v, ok := variables[name]; return v, ok }},
		Emit: func(e secretref.Event) { fmt.Println(e) },
	})
	target := func(name, variable string) secretref.Target {
		return secretref.Target{
			Path:   "models.providers." + name + ".apiKey",
			Ref:    secretref.Ref{Source: secretref.Env, Provider: "default", ID: variable},
			Owner:  secretref.Owner{Kind: secretref.OwnerProvider, ID: name},
			Digest: "what else decides how the key is used",
		}
	}
	targets := []secretref.Target{target("openai", "OPENAI_KEY"), target("groq", "GROQ_KEY")}

	ctx := context.Background()
	if _, err := runtime.Activate(ctx, secretref.Config{}, targets); err != nil {
		fmt.Println(err)
	}
	delete(variables, "OPENAI_KEY")
	variables["GROQ_KEY"] = "second"
	report, err := runtime.Activate(ctx, secretref.Config{}, targets)
	fmt.Println(report.WarningCount(), err)
	for _, t := range targets {
		value, err := runtime.Snapshot().Value(t.Path)
		_ = value.Use(func(b []byte) error { fmt.Printf("%s %s %v\n", t.Owner, b, err); return nil })
	}
	// Output:
	// [SECRETS_OWNER_UNAVAILABLE] stale provider:openai at models.providers.openai.apiKey: secret reference was not found
	// [SECRETS_DEGRADED] stale provider:openai: secret reference was not found; retry with: openclaw secrets reload
	// [SECRETS_RELOADER_DEGRADED] some owners lack what they need; the others have fresh secrets
	// 1 <nil>
	// provider:openai first <nil>
	// provider:groq second <nil>
}
