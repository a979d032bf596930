package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/credresolve/credresolve/client"
)

// What plainRefs takes, encoding/json reads as the same.
func FuzzPlainRefs(f *testing.F) {
	taken := 0
	for _, seed := range []string{
		`{"refs":[]}`, `{"refs":[{"provider":"m","id":"x"}]}`, ` { "refs" : [ { "id" : "ü" , "provider":"m" } , {"provider":"m","id":"y","version":"3","field":"/a/b","if_revision":"00"} ] } ` + "\n",
		`{"refs":[{}]}`, `{"refs":[{"provider":"m","provider":"n"}]}`, `{"refs":[{"provider":"m"},]}`, `{"refs":[{"provider":"a\u0062"}]}`, `{"refs":[{"Provider":"m"}]}`,
		`{"refs":[{"provider":1}]}`, `{"refs":[{"provider":""}]}`, `{"refs":[]}x`, `{"refs":[],"no_cache":true}`, `{"refs":[{"provider":"m"`, `{"refs":null}`,
		`{"refs":[],"timeout":"1.5s"}`, `{"refs":[],"timeout":"-1s"}`, `{"refs":[],"timeout":"1s","timeout":"2s"}`, `{"refs":[],"timeout":"0"}`, `{"refs":[],"timeout":1}`, "{\"refs\":[{\"id\":\"\xff\"}]}",
	} {
		if _, _, ok := plainRefs(seed, nil); ok {
			taken++
		}
		f.Add([]byte(seed))
	}
	if taken < 3 {
		f.Fatalf("%d seeds are taken", taken)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, timeout, ok := plainRefs(string(body), nil)
		if !ok {
			return
		}
		var want client.ResolveRequest
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", body, err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			t.Fatalf("there is more in %q", body)
		}
		asks := make([]ask, len(want.Refs))
		for i, r := range want.Refs {
			asks[i] = ask{ref: r.Ref, ifRevision: r.IfRevision}
		}
		if !slices.Equal(got, asks) || want.Demand != (client.Demand{Timeout: timeout}) {
			t.Fatalf("%q is %+v, to encoding/json %+v", body, got, asks)
		}
	})
}
