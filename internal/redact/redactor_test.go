package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/redact"
)

// mask passes the pieces through a Writer for values.
func mask(t interface{ Fatal(...any) }, values []string, pieces ...string) string {
	var secrets []backend.Secret
	for _, v := range values {
		secrets = append(secrets, backend.NewSecretString(v))
	}
	r, _ := redact.New(secrets)
	var out bytes.Buffer
	w := r.Writer(&out)
	for _, p := range pieces {
		if n, err := io.WriteString(w, p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

const tricky = "pa$$/wörd+\"x\\y\" &<€>=~"

func TestForms(t *testing.T) {
	t.Parallel()
	goJSON, err := json.Marshal(tricky)
	if err != nil {
		t.Fatal(err)
	}
	std, pem := base64.StdEncoding, "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG\n9w0BAQEFAASCAUAwggE8\n-----END KEY-----\n"
	for _, tt := range []struct{ name, value, text, want string }{
		{"as it is", "hunter22", "a hunter22 b", "a [redacted] b"},
		{"twice", "hunter22", "hunter22,hunter22", "[redacted],[redacted]"},
		{"side by side", "hunter22", "hunter22hunter22", "[redacted]"},
		{"overlapping itself", "abcabc", "abcabcabc.", "[redacted]."},
		{"nearly", "hunter22", "hunter2 hunter23 hunte", "hunter2 hunter23 [redacted]"},
		{"nothing", "hunter22", "all is well\n", "all is well\n"},
		{"beginning again", "aaab", "aaaaab", "aa[redacted]"},
		{"base64", "hunter22", std.EncodeToString([]byte("hunter22")), "[redacted]"},
		{"base64 unpadded", "hunter2!", base64.RawURLEncoding.EncodeToString([]byte("hunter2!")) + "\n", "[redacted]\n"},
		{"percent, query", tricky, "?p=" + url.QueryEscape(tricky) + "&x", "?p=[redacted]&x"},
		{"percent, path", tricky, "/" + url.PathEscape(tricky) + "/x", "/[redacted]/x"},
		{"percent, userinfo", "p:w/d@ü%", url.UserPassword("u", "p:w/d@ü%").String() + "@h", "u:[redacted]@h"},
		{"percent, lower case", "p/w?ü!", "p%2fw%3f%c3%bc%21", "[redacted]"},
		{"JSON of Go", tricky, string(goJSON), `"[redacted]"`},
		{"JSON of Python", tricky, `"pa$$/w\u00f6rd+\"x\\y\" &<\u20ac>=~"`, `"[redacted]"`},
		{"JSON of PHP", tricky, `"pa$$\/w\u00f6rd+\"x\\y\" &<\u20ac>=~"`, `"[redacted]"`},
		{"JSON with a pair of surrogates", "clef \U0001d11e!", `clef \ud834\udd1e!`, "[redacted]"},
		{"JSON of lines", "one\ntwo", `{"k":"one\ntwo"}`, `{"k":"[redacted]"}`},
		{"JSON, all escaped", "p/w\u00f6\U0001d11e", `"\u0070\u002f\u0077\u00f6\ud834\udd1e"`, `"[redacted]"`},
		{"JSON, all escaped, upper case", "p/w\u00f6\U0001d11e", `\u0070\u002F\u0077\u00F6\uD834\uDD1E`, "[redacted]"},
		{"percent, all", "p/w\u00f6", "%70%2F%77%C3%B6", "[redacted]"},
		{"bytes of C", "p/w\u00f6", `\x70\x2f\x77\xc3\xb6`, "[redacted]"},
		{"hexadecimal", "hunter22", hex.EncodeToString([]byte("hunter22")), "[redacted]"},
		{"terminal line ends", "line one\nline two", "line one\r\nline two\r\n", "[redacted]\r\n"},
		{"a line of many", pem, "key: MIIBVgIBADANBgkqhkiG.", "key: [redacted]."},
		{"the frame of a key alone", pem, "-----BEGIN KEY-----", "-----BEGIN KEY-----"},
		{"without its line end", "hunter22\n", "pw=hunter22;", "pw=[redacted];"},
		{"a text in JSON", `{"user":"bob","deep":[{"pw":"hunter22"}],"n":12345}`, "bob has hunter22 12345", "bob has [redacted] 12345"},
		{"four bytes", "p@ss", "p@ss", "[redacted]"},
		{"empty value", "", "text", "text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := mask(t, []string{tt.value}, tt.text); got != tt.want {
				t.Errorf("whole: got %q, want %q", got, tt.want)
			}
			if got := mask(t, []string{tt.value}, strings.Split(tt.text, "")...); got != tt.want {
				t.Errorf("byte by byte: got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBase64InsideOfALongerText(t *testing.T) {
	t.Parallel()
	const value = "correct-horse-battery"
	for _, prefix := range []string{"", "u", "us", "user:", "a long beginning of a text "} {
		for _, suffix := range []string{"", "x", " and an end"} {
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
				got := mask(t, []string{value}, enc.EncodeToString([]byte(prefix+value+suffix)))
				before, after, found := strings.Cut(got, backend.Redacted)
				if !found {
					t.Errorf("%q: nothing is masked in %q", prefix+value+suffix, got)
					continue
				}
				if most := (len(prefix)*8 + 5) / 6; len(before) > most {
					t.Errorf("%q + %q: %q is left before the mask, want at most %d characters", prefix, suffix, before, most)
				}
				if most := (len(suffix)*8+5)/6 + 3; len(after) > most {
					t.Errorf("%q + %q: %q is left after the mask, want at most %d characters", prefix, suffix, after, most)
				}
			}
		}
	}
}

func TestBase64InLines(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("0123456789abcdef", 12)
	for _, prefix := range []string{"", "x", strings.Repeat("y", 54), strings.Repeat("y", 56)} {
		flat := base64.StdEncoding.EncodeToString([]byte(prefix + value))
		for _, end := range []string{"\n", "\r\n", "\n    "} {
			var text strings.Builder
			for i := 0; i < len(flat); i += 76 {
				text.WriteString(flat[i:min(i+76, len(flat))] + end)
			}
			got := mask(t, []string{value}, text.String())
			if left := len(got) - len(backend.Redacted) - (len(prefix)*8+5)/6; left > 12 {
				t.Errorf("%d bytes before, line end %q: %d bytes too many are left: %q", len(prefix), end, left, got)
			}
		}
	}
}

// coreutils are an encoder that we did not write.
func TestBase64OfCoreutils(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("base64")
	if err != nil {
		t.Skip("needs base64: install coreutils")
	}
	value := strings.Repeat("correct horse battery staple ", 8)
	cmd := exec.Command(path)
	cmd.Stdin = strings.NewReader(value)
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := mask(t, []string{value}, string(text)); got != backend.Redacted+"\n" {
		t.Errorf("got %q", got)
	}
}

func TestManyValues(t *testing.T) {
	t.Parallel()
	got := mask(t, []string{"first-value", "first-value-longer", "value-longer-than", "second"}, "first-value-longer-than that second first-value!")
	if want := "[redacted] that [redacted] [redacted]!"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShortValuesAreTold(t *testing.T) {
	t.Parallel()
	_, skipped := redact.New([]backend.Secret{
		backend.NewSecretString("long enough"), backend.NewSecretString("abc"), backend.NewSecretString(""), {},
	})
	if len(skipped) != 1 || skipped[0] != 1 {
		t.Errorf("skipped = %v, want [1]", skipped)
	}
}

// Whatever the neighbours and the cuts, no spelling of a value survives, and nothing else changes.
func TestNoSpellingSurvives(t *testing.T) {
	t.Parallel()
	encoders := []func(string) string{
		func(s string) string { return s },
		url.QueryEscape,
		url.PathEscape,
		func(s string) string { b, _ := json.Marshal(s); return string(b[1 : len(b)-1]) },
		func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
		func(s string) string { return hex.EncodeToString([]byte(s)) },
	}
	rapid.Check(t, func(t *rapid.T) {
		// The noise has no byte that a spelling of a value could have, so that what must survive is known.
		value := "Q" + rapid.StringN(3, 40, 80).Filter(func(s string) bool { return !strings.Contains(s, "\n") && !strings.ContainsAny(s, "[{| ") }).Draw(t, "value")
		noise := rapid.StringMatching(`[|]{0,9}`)
		var text, want strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "times") {
			before := noise.Draw(t, "before")
			text.WriteString("|" + before + rapid.SampledFrom(encoders).Draw(t, "form")(value))
			want.WriteString("|" + before + backend.Redacted)
		}
		text.WriteString("|")
		want.WriteString("|")
		var pieces []string
		for rest := text.String(); rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if got := mask(t, []string{value}, pieces...); got != want.String() {
			t.Fatalf("got %q, want %q", got, want.String())
		}
	})
}

func TestWhatRestsIsShownWhenItTellsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r, _ := redact.New([]backend.Secret{backend.NewSecretString(": is how this value begins")})
		w := r.Writer(&out)
		step := func(write, want string) {
			t.Helper()
			if _, err := io.WriteString(w, write); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if out.String() != want {
				t.Errorf("after %q: got %q, want %q", write, out.String(), want)
			}
		}
		step("Password: ", "Password: ")         // a prompt appears though a value begins like this
		step("is how this", "Password: ")        // more of the value is held back however long it rests
		step(" value", "Password: ")             //
		step(" begins", "Password: [redacted]")  // and what is shown already does not hinder the rest
		step("\nok", "Password: [redacted]\nok") //
		step(": is not", "Password: [redacted]\nok: is not")
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWriteErrorIsGivenOn(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	r, _ := redact.New(nil)
	w := r.Writer(writerFunc(func([]byte) (int, error) { return 0, broken }))
	if _, err := io.WriteString(w, "x"); !errors.Is(err, broken) {
		t.Errorf("Write gave %v", err)
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("Close gave %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func BenchmarkWriter(b *testing.B) {
	var secrets []backend.Secret
	for _, v := range []string{"correct-horse-battery", "AKIAIOSFODNN7EXAMPLE", strings.Repeat("k", 1600)} {
		secrets = append(secrets, backend.NewSecretString(v))
	}
	r, _ := redact.New(secrets)
	w := r.Writer(io.Discard)
	line := []byte(strings.Repeat("2026-01-02T03:04:05Z level=info msg=\"request served\" path=/v1/things status=200\n", 400))
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := w.Write(line); err != nil {
			b.Fatal(err)
		}
	}
}
