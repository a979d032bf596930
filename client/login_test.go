package client

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// An event with the state and the login that it tells of is the same on the other side.
func TestEventAcrossTheWire(t *testing.T) {
	t.Parallel()
	ends := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ref := credref.Ref{Provider: "hub", ID: "me"}
	want := resolver.Event{
		Ref: ref, Kind: resolver.EventAuthRequired, State: resolver.StateAuthRequired, Time: ends,
		Err: &resolver.RefError{Ref: ref, Err: &backend.Error{
			Code: backend.CodeAuthRequired, Reason: "nobody has logged in",
			Login: &backend.LoginState{
				State: "s", Status: backend.LoginPending, URL: "https://login.example/device", UserCode: "AB-CD", Expires: ends,
				Grant: &backend.Grant{Refresh: backend.NewSecretString("r-c4nary")},
			},
		}},
	}
	text, err := json.Marshal(NewWatchEvent(want))
	if err != nil {
		t.Fatal(err)
	}
	var ev WatchEvent
	if err := json.Unmarshal(text, &ev); err != nil {
		t.Fatal(err)
	}
	got := ev.event()
	var e *backend.Error
	if got.Kind != want.Kind || got.State != want.State || !errors.As(got.Err, &e) || e.Login == nil {
		t.Fatalf("it is %+v", got)
	}
	if l := *e.Login; l.State != "s" || l.URL != "https://login.example/device" || l.UserCode != "AB-CD" || !l.Expires.Equal(ends) || l.Grant != nil || l.Status != backend.LoginPending {
		t.Errorf("the login is %+v", l)
	}
}
