package notify

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// answers is a receiver that gives the answers of a list, the last again and again, and notes when it was asked. Zero: none.
type answers struct {
	began    time.Time
	statuses []int
	wait     string // Retry-After
	asked    []time.Duration
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	status := a.statuses[min(len(a.asked), len(a.statuses)-1)]
	a.asked = append(a.asked, time.Since(a.began))
	if status == 0 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	h := http.Header{}
	if a.wait != "" {
		h.Set("Retry-After", a.wait)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// Attempts are ever further apart, each bounded, no more than six, and no sooner than the receiver wants; none is made once ctx
// has ended.
func TestPausesBetweenAttempts(t *testing.T) {
	t.Parallel()
	doubling := func(n int) (out []time.Duration) {
		for i := range n {
			out = append(out, time.Second<<i)
		}
		return out
	}
	for name, c := range map[string]struct {
		statuses []int
		wait     string
		ends     time.Duration // of the context; zero: it does not
		pauses   []time.Duration
		each     time.Duration // that an attempt takes
		err      error
	}{
		"taken at once":                 {statuses: []int{204}},
		"taken at last":                 {statuses: []int{500, 503, 408, 200}, pauses: doubling(3)},
		"down":                          {statuses: []int{500}, pauses: doubling(5), err: backend.ErrUnavailable},
		"it never answers":              {statuses: []int{0}, pauses: doubling(5), each: 10 * time.Second, err: backend.ErrUnavailable},
		"it asks for 100 seconds":       {statuses: []int{429, 200}, wait: "100", pauses: []time.Duration{100 * time.Second}},
		"it asks for less than we wait": {statuses: []int{429, 429, 429, 200}, wait: "1", pauses: doubling(3)},
		"it asks for five hours":        {statuses: []int{429}, wait: "18001", err: backend.ErrUnavailable},
		"the program ends in a pause":   {statuses: []int{500}, ends: 2 * time.Second, pauses: doubling(1), err: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if c.ends > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.ends)
				}
				defer cancel()
				a := &answers{began: time.Now(), statuses: c.statuses, wait: c.wait}
				w := &webhook{
					url: "https://receiver.example/", timeout: defaultTimeout, client: &http.Client{Transport: a},
					key: backend.Literal(backend.NewSecretString("a-key-of-more-than-24-bytes-c4nary")),
				}
				if err := w.deliver(ctx, message{id: newID(), body: []byte("{}")}); !errors.Is(err, c.err) {
					t.Errorf("%v, want %v", err, c.err)
				}
				if len(a.asked) != len(c.pauses)+1 {
					t.Fatalf("asked at %v", a.asked)
				}
				for i, pause := range c.pauses {
					got := a.asked[i+1] - a.asked[i] - c.each
					if least, most := pause*3/4, pause*5/4; got < least || got > most {
						t.Errorf("it paused for %v, want %v give or take a quarter", got, pause)
					}
				}
				if !slices.IsSorted(a.asked) || c.ends > 0 && time.Since(a.began) != c.ends {
					t.Errorf("it ended after %v", time.Since(a.began))
				}
			})
		})
	}
}
