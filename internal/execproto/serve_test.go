package execproto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/execproto"
)

func TestDecodeRequest(t *testing.T) {
	t.Parallel()
	many := make([]string, execproto.MostIDs+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"a%d"`, i)
	}
	for _, tt := range []struct {
		name, request string
		want          string // provider: ids
		problem       execproto.Problem
	}{
		{name: "as OpenClaw sends it", request: `{"protocolVersion":1,"provider":"corp","ids":["a","b"]}`, want: `corp: ["a" "b"]`},
		{name: "white space, a mark, later keys", request: "\ufeff\n{ \"ids\" : [ \"a\" ], \"x\": {\"ids\":[1]}, \"provider\":\"c\", \"protocolVersion\": 1.0 }\n", want: `c: ["a"]`},
		{name: "twice", request: `{"protocolVersion":1,"provider":"corp","ids":["b","a","b"]}`, want: `corp: ["b" "a"]`},
		{name: "escapes", request: `{"protocolVersion":1,"provider":"corp","ids":["\u0061"]}`, want: `corp: ["a"]`},
		{name: "an empty id, which is for others to judge", request: `{"protocolVersion":1,"provider":"corp","ids":["a",""]}`, want: `corp: ["a" ""]`},
		{name: "no provider", request: `{"protocolVersion":1,"ids":["a"]}`, want: `: ["a"]`},
		{name: "no ids asked for", request: `{"protocolVersion":1,"provider":"corp","ids":[]}`, want: `corp: []`},
		{name: "many", request: `{"protocolVersion":1,"provider":"p","ids":[` + strings.Join(many[1:], ",") + `]}`, want: "p: 4096"},

		{name: "nothing", request: " \n", problem: execproto.Empty},
		{name: "cut off", request: `{"protocolVersion":1,"ids":["` + canary, problem: execproto.InvalidJSON},
		{name: "two requests", request: `{"protocolVersion":1,"ids":[]}{"protocolVersion":1,"ids":[]}`, problem: execproto.InvalidJSON},
		{name: "not UTF-8", request: `{"protocolVersion":1,"ids":["` + canary + "\xff\"]}", problem: execproto.InvalidText},
		{name: "an array", request: `["a"]`, problem: execproto.NotAnObject},
		{name: "version 2", request: `{"protocolVersion":2,"ids":["a"]}`, problem: execproto.WrongVersion},
		{name: "version in quotes", request: `{"protocolVersion":"1","ids":["a"]}`, problem: execproto.WrongVersion},
		{name: "no version", request: `{"ids":["a"]}`, problem: execproto.WrongVersion},
		{name: "a provider that is no text", request: `{"protocolVersion":1,"provider":7,"ids":["a"]}`, problem: execproto.NoProvider},
		{name: "no ids", request: `{"protocolVersion":1,"provider":"p"}`, problem: execproto.NoIDs},
		{name: "ids null", request: `{"protocolVersion":1,"ids":null}`, problem: execproto.NoIDs},
		{name: "ids an object", request: `{"protocolVersion":1,"ids":{"a":"b"}}`, problem: execproto.NoIDs},
		{name: "an id that is a number", request: `{"protocolVersion":1,"ids":["a",1]}`, problem: execproto.NoIDs},
		{name: "an id that is null", request: `{"protocolVersion":1,"ids":["a",null]}`, problem: execproto.NoIDs},
		{name: "too many", request: `{"protocolVersion":1,"ids":[` + strings.Join(many, ",") + `]}`, problem: execproto.TooManyIDs},
		{name: "too large", request: `{"protocolVersion":1,"ids":["a"]}` + strings.Repeat(" ", execproto.MostRequest), problem: execproto.TooBig},
		{name: "deeper than any need", request: `{"protocolVersion":1,"ids":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", problem: execproto.InvalidJSON},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req, err := execproto.Dialect{}.DecodeRequest([]byte(tt.request))
			if tt.problem != "" {
				var e *execproto.Error
				if !errors.As(err, &e) || e.Problem != tt.problem || !strings.HasPrefix(err.Error(), "the request") {
					t.Errorf("got %v, want %q", err, tt.problem)
				} else if strings.Contains(err.Error(), canary) {
					t.Errorf("the error holds the request: %v", err)
				}
				return
			}
			got := fmt.Sprintf("%s: %q", req.Provider, req.IDs)
			if len(req.IDs) > 10 {
				got = fmt.Sprintf("%s: %d", req.Provider, len(req.IDs))
			}
			if err != nil || got != tt.want {
				t.Errorf("got %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestEncodeResponse(t *testing.T) {
	t.Parallel()
	value := func(s string) backend.Secret { return backend.NewSecretString(s) }
	got := execproto.EncodeResponse([]execproto.Reply{
		{ID: "a", Value: value("x\"\n<ü>\u2028")}, {ID: "b", Code: "NOT_FOUND"}, {ID: "c", Value: value("")},
		{ID: "d", Value: value("not given"), Code: "UNAVAILABLE", RetryAfter: 1500 * time.Millisecond},
	})
	want := `{"protocolVersion":1,"values":{"a":"x\"\n<ü>\u2028","c":""},"errors":{"b":{"code":"NOT_FOUND"},"d":{"code":"UNAVAILABLE","retryAfterMs":1500}}}` + "\n"
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if cap(got) == 0 || string(execproto.EncodeResponse(nil)) != `{"protocolVersion":1,"values":{},"errors":{}}`+"\n" {
		t.Error("values and errors are not always there")
	}
}

// What one side writes the other reads.
func FuzzRequestAndResponse(f *testing.F) {
	for _, seed := range [][3]string{{"corp", "a/b#c", "value"}, {"", "\u2028\x00", "\"\\\ufffd"}, {"ü", `"`, ""}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, provider, id, value string) {
		if id == "" {
			return
		}
		request, err := dialect.EncodeRequest(provider, []string{id, "other"})
		if err != nil {
			t.Fatal(err)
		}
		req, err := dialect.DecodeRequest(request)
		if err != nil {
			t.Fatalf("%q: %v", request, err)
		}
		asked := req.IDs[0]
		if !slices.Contains(req.IDs, asked) || len(req.IDs) > 2 {
			t.Fatalf("%q: %q", request, req.IDs)
		}
		response := execproto.EncodeResponse([]execproto.Reply{{ID: asked, Value: backend.NewSecretString(value)}, {ID: "another", Code: "NOT_FOUND"}})
		if !json.Valid(response) || bytes.Count(response, []byte("\n")) != 1 {
			t.Fatalf("%q is not one line of JSON", response)
		}
		answers, err := execproto.Dialect{ReplaceInvalid: true, Codes: []string{"NOT_FOUND"}}.DecodeResponse(response, []string{asked, "another"})
		if err != nil || answers[0].Failed && asked != "another" || !answers[1].Failed {
			t.Fatalf("%q: %+v, %v", response, answers, err)
		}
		if got := string(answers[0].Value.Reveal()); asked != "another" && got != strings.ToValidUTF8(value, "\ufffd") && len(got) == 0 != (value == "") {
			t.Fatalf("%q became %q", value, got)
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	for _, seed := range []string{
		`{"protocolVersion":1,"provider":"corp","ids":["a","b"]}`, `{"ids":[{}],"protocolVersion":1}`, "\ufeff{}", `{"protocolVersion":1,"ids":["\ud800"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		req, err := dialect.DecodeRequest(text)
		if err == nil && len(req.IDs) > execproto.MostIDs {
			t.Fatal("there are too many ids")
		}
	})
}
