package server

import (
	"context"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
)

type nothing struct{}

// Reach tells that the store touches nothing.
func (nothing) Reach() []backend.Reach { return nil }

// late is a store that never answers.
type late struct{}

func (late) Get(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A request with a timeout has by then what is there.
func TestRequestWithATimeout(t *testing.T) {
	t.Parallel()
	sc := start(t, "", backend.NewKind("late", "of a test", func(nothing, backend.Host) (backend.Backend, error) { return late{}, nil }))
	sc.configure(providers+"  slow: {kind: late}\n", "")
	if _, err := sc.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	const refs = `{"refs":[{"provider":"slow","id":"x"},{"provider":"m","id":"plain"}],`
	for _, body := range []string{refs + `"timeout":"50ms"}`, refs + `"no_cache":false,"timeout":"50ms"}`} {
		began := time.Now()
		got := sc.do("POST", "/v1/resolve", body)
		var answer client.ResolveAnswer
		got.json(t, &answer)
		if len(answer.Results) != 2 || answer.Results[0].Error == nil || answer.Results[0].Error.Code != backend.CodeTimeout || text(t, answer.Results[1]) != "plain-c4nary" {
			t.Errorf("status %d, %d results", got.status, len(answer.Results))
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	}
	if got := sc.do("POST", "/v1/resolve", refs+`"timeout":"soon"}`); got.status != 400 {
		t.Errorf("status %d", got.status)
	}

	if got := sc.do("GET", "/v1/resolve?ref=cred%3A%2F%2Fslow%2Fx&timeout=50ms", ""); got.status != backend.CodeTimeout.HTTPStatus() {
		t.Errorf("status %d: %s", got.status, got.body)
	}

	// The deadline of a client's context is that timeout, and its end is told as a resolver tells it.
	c, err := client.New(client.Config{Socket: sc.socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	out := c.ResolveAll(ctx, []credref.Ref{refOf("cred://slow/x"), refOf("cred://m/plain")})
	if out[0].Err == nil || out[0].Err.Error() != "cred://slow/x: context deadline exceeded" || ctx.Err() == nil {
		t.Errorf("what is late: %v", out[0].Err)
	}
	if out[1].Err != nil {
		t.Errorf("what is there: %v", out[1].Err)
	}
}
