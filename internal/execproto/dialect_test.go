package execproto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/execproto"
)

const canary = "hunter2-c4nary"

var dialect = execproto.Dialect{Codes: []string{"NOT_FOUND", "UNAVAILABLE"}}

func TestEncodeRequest(t *testing.T) {
	t.Parallel()
	got, err := dialect.EncodeRequest("corp", []string{"b", "a<&>", "b", `q"\`, "ü"})
	want := `{"protocolVersion":1,"provider":"corp","ids":["b","a<&>","q\"\\","ü"]}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	if got, err := dialect.EncodeRequest("corp", nil); err != nil || string(got) != `{"protocolVersion":1,"provider":"corp","ids":[]}` {
		t.Errorf("no ids: %s, %v", got, err)
	}
	for _, tt := range []struct {
		dialect execproto.Dialect
		want    string
	}{
		{execproto.Dialect{MaxIDs: 1}, "the request has 2 ids, more than 1"},
		{execproto.Dialect{MaxIDs: 2, MaxRequest: 54}, "the request has 55 bytes, more than 54"},
		{execproto.Dialect{MaxIDs: 2, MaxRequest: 55}, ""},
	} {
		_, err := tt.dialect.EncodeRequest("corp", []string{"b", "a", "a"})
		if got := fmt.Sprint(err); got != tt.want && (tt.want != "" || err != nil) {
			t.Errorf("%+v: %v, want %q", tt.dialect, err, tt.want)
		}
	}
}

func TestDecodeResponse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, response, want string // want describes the answers for a and b
		problem              execproto.Problem
	}{
		{name: "values", response: `{"protocolVersion":1,"values":{"a":"x","b":"y"}}`, want: "x|y"},
		{name: "pretty, with a mark and white space", response: "\ufeff \n{\n \"protocolVersion\" : 1.0,\n \"values\": { \"a\" : \"x\" } }\r\n\t", want: "x|-"},
		{name: "escapes", response: `{"protocolVersion":1,"values":{"\u0061":"\u00fc\n\"","b":""}}`, want: "ü\n\"|"},
		{name: "more than was asked for", response: `{"x":[1],"protocolVersion":1,"values":{"a":"x","z":"` + canary + `"},"errors":{"y":{}}}`, want: "x|-"},
		{name: "other ids alone", response: `{"protocolVersion":1,"values":{"z":"` + canary + `"}}`, want: "-|-"},
		{name: "keys in another case", response: `{"protocolVersion":1,"values":{"A":"x"},"Values":{"a":"x"}}`, want: "-|-"},
		{name: "errors win", response: `{"protocolVersion":1,"values":{"a":"x","b":"y"},"errors":{"a":{"code":"NOT_FOUND"}}}`, want: "!NOT_FOUND|y"},
		{name: "null is no error", response: `{"protocolVersion":1,"values":{"a":"x"},"errors":{"a":null}}`, want: "x|-"},
		{name: "errors null", response: `{"protocolVersion":1,"values":{"a":"x"},"errors":null}`, want: "x|-"},
		{name: "errors an array", response: `{"protocolVersion":1,"values":{"a":"x"},"errors":["a"]}`, want: "x|-"},
		{name: "unknown codes and messages", response: `{"protocolVersion":1,"values":{},"errors":{"a":{"code":"` + canary + `","message":"` + canary + `"},"b":"` + canary + `"}}`, want: "!|!"},
		{name: "codes that are no text", response: `{"protocolVersion":1,"values":{},"errors":{"a":{"code":7},"b":{"Code":"NOT_FOUND"}}}`, want: "!|!"},
		{name: "a code's case counts", response: `{"protocolVersion":1,"values":{},"errors":{"a":{"code":"not_found"},"b":{}}}`, want: "!|!"},
		{name: "retry after", response: `{"protocolVersion":1,"values":{},"errors":{"a":{"code":"UNAVAILABLE","retryAfterMs":1500},"b":{"code":"UNAVAILABLE","retryAfterMs":1e300}}}`,
			want: "!UNAVAILABLE 1.5s|!UNAVAILABLE 24h0m0s"},
		{name: "retry after, senseless", response: `{"protocolVersion":1,"values":{},"errors":{"a":{"retryAfterMs":-5},"b":{"retryAfterMs":"soon"}}}`, want: "!|!"},
		{name: "an object", response: `{"protocolVersion":1,"values":{"a":{"u": "x", "n": 1.50, "o": {"p": [ ]}},"b":{}}}`,
			want: `json {"u":"x","n":1.50,"o":{"p":[]}} n=json 1.50 o=json {"p":[]} u=x|json {}`},
		{name: "other values", response: `{"protocolVersion":1,"values":{"a":12345678901234567890,"b":[true , null]}}`, want: "json 12345678901234567890|json [true,null]"},
		{name: "null", response: `{"protocolVersion":1,"values":{"a":null,"b":false}}`, want: "null json null|json false"},
		{name: "the last of duplicates", response: `{"protocolVersion":1,"values":{"a":"1","a":"2"}}`, want: "2|-"},

		{name: "nothing", response: "", problem: execproto.Empty},
		{name: "white space", response: " \r\n\ufeff\n", problem: execproto.Empty},
		{name: "garbage", response: canary, problem: execproto.InvalidJSON},
		{name: "a log line before", response: "starting " + canary + "\n{}", problem: execproto.InvalidJSON},
		{name: "a JSON log line before", response: `{"msg":"` + canary + `"}` + "\n" + `{"protocolVersion":1,"values":{}}`, problem: execproto.InvalidJSON},
		{name: "cut off", response: `{"protocolVersion":1,"values":{"a":"` + canary, problem: execproto.InvalidJSON},
		{name: "not UTF-8", response: `{"protocolVersion":1,"values":{"a":"` + canary + "\xff" + `"}}`, problem: execproto.InvalidText},
		{name: "deeper than any need", response: `{"protocolVersion":1,"values":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", problem: execproto.InvalidJSON},
		{name: "an array", response: `[{"protocolVersion":1,"values":{"a":"x"}}]`, problem: execproto.NotAnObject},
		{name: "a text", response: `"` + canary + `"`, problem: execproto.NotAnObject},
		{name: "null alone", response: `null`, problem: execproto.NotAnObject},
		{name: "version 2", response: `{"protocolVersion":2,"values":{"a":"x"}}`, problem: execproto.WrongVersion},
		{name: "version in quotes", response: `{"protocolVersion":"1","values":{"a":"x"}}`, problem: execproto.WrongVersion},
		{name: "no version", response: `{"values":{"a":"x"}}`, problem: execproto.WrongVersion},
		{name: "null version", response: `{"protocolVersion":null,"values":{"a":"x"}}`, problem: execproto.WrongVersion},
		{name: "no values", response: `{"protocolVersion":1,"errors":{"a":{"code":"NOT_FOUND"}}}`, problem: execproto.NoValues},
		{name: "values null", response: `{"protocolVersion":1,"values":null}`, problem: execproto.NoValues},
		{name: "values an array", response: `{"protocolVersion":1,"values":["x"]}`, problem: execproto.NoValues},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			response := []byte(tt.response)
			answers, err := dialect.DecodeResponse(response, []string{"a", "b"})
			clear(response) // the answers must not depend on it
			if tt.problem != "" {
				var e *execproto.Error
				if !errors.As(err, &e) || e.Problem != tt.problem || answers != nil {
					t.Errorf("got %v and %d answers, want %q", err, len(answers), tt.problem)
				} else if strings.Contains(fmt.Sprintf("%v %+v", err, err), canary) {
					t.Errorf("the error holds the response: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(answers[0]) + "|" + describe(answers[1]); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// describe shows everything in a.
func describe(a execproto.Answer) string {
	if a.Failed {
		s := "!" + a.Code
		if a.RetryAfter > 0 {
			s += " " + a.RetryAfter.String()
		}
		return s
	}
	if a.Value.IsZero() {
		return "-"
	}
	s := reveal(a.Value)
	if a.Null {
		s = "null " + s
	}
	for _, name := range []string{"n", "o", "u"} {
		if f, ok := a.Fields[name]; ok {
			s += " " + name + "=" + reveal(f)
		}
	}
	return s
}

func reveal(s backend.Secret) string {
	if s.IsJSON() {
		return "json " + string(s.Reveal())
	}
	return string(s.Reveal())
}

func TestReplaceInvalid(t *testing.T) {
	t.Parallel()
	d := execproto.Dialect{ReplaceInvalid: true}
	answers, err := d.DecodeResponse([]byte(`{"protocolVersion":1,"values":{"a":"x`+"\xff"+`"}}`), []string{"a"})
	if err != nil || describe(answers[0]) != "x\ufffd" {
		t.Errorf("got %v, %v", answers, err)
	}
}

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	for _, response := range []string{"", "x", "[]", "{}", `{"protocolVersion":1}`, "\xff"} {
		_, err := dialect.DecodeResponse([]byte(response), nil)
		if err == nil || !strings.HasPrefix(err.Error(), "the program") {
			t.Errorf("%q: %v", response, err)
		}
	}
}

func TestRetryAfterKeepsFractions(t *testing.T) {
	t.Parallel()
	answers, err := dialect.DecodeResponse([]byte(`{"protocolVersion":1,"values":{},"errors":{"a":{"retryAfterMs":250}}}`), []string{"a"})
	if err != nil || answers[0].RetryAfter != 250*time.Millisecond {
		t.Errorf("got %v, %v", answers, err)
	}
}

func FuzzDecodeResponse(f *testing.F) {
	for _, seed := range []string{
		`{"protocolVersion":1,"values":{"a":"x"},"errors":{"b":{"code":"NOT_FOUND","retryAfterMs":5}}}`,
		`{"protocolVersion":1,"values":{"a":{"b":[1,{"c":null}]}}}`,
	} {
		if _, err := dialect.DecodeResponse([]byte(seed), []string{"a"}); err != nil {
			f.Fatalf("seed %s: %v", seed, err)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		kept := bytes.Clone(response)
		answers, err := dialect.DecodeResponse(response, []string{"a", "b"})
		if !bytes.Equal(response, kept) {
			t.Error("the response was changed")
		}
		if (err == nil) != (len(answers) == 2) {
			t.Fatalf("%d answers and %v", len(answers), err)
		}
		for _, a := range answers {
			if a.Failed && !a.Value.IsZero() {
				t.Error("a failure came with a value")
			}
			if a.Value.IsJSON() && !json.Valid(a.Value.Reveal()) {
				t.Error("a JSON value is not valid")
			}
		}
	})
}

func BenchmarkDecodeResponse(b *testing.B) {
	const n = 1000
	ids := make([]string, n)
	values := make(map[string]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("kv/app/%d/password", i)
		values[ids[i]] = strings.Repeat("s", 40)
	}
	response, err := json.Marshal(map[string]any{"protocolVersion": 1, "values": values})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := dialect.DecodeResponse(response, ids); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/ref")
}
