package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("AUDIT_TEST_CHILD"); path != "" {
		writeUntilKilled(path)
	}
	goleak.VerifyTestMain(m)
}

// writeUntilKilled is a process that writes under load and acknowledges on standard output.
func writeUntilKilled(path string) {
	keep := 1000
	s := Settings{}
	s.Path, s.Keep, s.MaxBytes = path, &keep, 20_000
	l, err := Open(s)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for c := range 6 {
		go func() {
			for n := 0; ; n++ {
				reason := fmt.Sprintf("%d %d %d %s", os.Getpid(), c, n, strings.Repeat("x", n%300))
				if err := l.Write([]Record{{Event: EventReveal, Reason: reason}}); err == nil {
					_, _ = os.Stdout.WriteString(reason + "\n")
				}
			}
		}()
	}
	select {}
}

func number(n int) *int { return &n }

// warnings are what a log tells of.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) add(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := w.texts
	w.texts = nil
	return texts
}

func toFile(t testing.TB) (Settings, *warnings) {
	w := new(warnings)
	return Settings{Dir: t.TempDir(), Warn: w.add}, w
}

func open(t testing.TB, s Settings) *Log {
	t.Helper()
	l, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// say writes a line with that reason.
func say(t testing.TB, l *Log, reason string) {
	t.Helper()
	if err := l.Write([]Record{{Event: EventReveal, Reason: reason}}); err != nil {
		t.Error(err)
	}
}

// reasons reads the reasons of all lines of files, and what of them is no line.
func reasons(t testing.TB, paths ...string) (out, broken []string) {
	t.Helper()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 0 && text[len(text)-1] != '\n' {
			broken = append(broken, "no line feed at the end of "+path)
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			var line struct{ Event, Reason string }
			switch err := json.Unmarshal(lines.Bytes(), &line); {
			case len(lines.Bytes()) == 0:
			case err != nil || line.Event == "":
				broken = append(broken, lines.Text())
			default:
				out = append(out, line.Reason)
			}
		}
	}
	return out, broken
}

// expect compares the reasons in files, in any order.
func expect(t testing.TB, want []string, paths ...string) {
	t.Helper()
	got, broken := reasons(t, paths...)
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) || broken != nil {
		t.Errorf("%d lines %.300v, want %d %.300v; broken: %.300v", len(got), got, len(want), want, broken)
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 28, 7, 8, 9, 123456789, time.FixedZone("", 3600))
	ref := credref.Ref{Provider: "app", ID: "kv/a b\"", Version: "3", Field: "password"}
	for _, tt := range []struct {
		in   Record
		want string
	}{
		{Record{Time: at, Event: EventStart}, `{"time":"2026-11-28T06:08:09.123456Z","event":"start"}`},
		{
			Record{
				Time: at, Event: EventReveal, Consumer: "web", Session: "s1", UID: number(0), GID: number(-1), PID: number(77), Executable: "/usr/bin/web",
				Remote: "unix", Request: "r1", Ref: &ref, Revision: "0a", Outcome: backend.CodeOK, Reason: "consumers[0] web allow[1]", Stale: true, Tool: "curl",
			},
			`{"time":"2026-11-28T06:08:09.123456Z","event":"reveal","consumer":"web","session":"s1","uid":0,"gid":-1,"pid":77,` +
				`"executable":"/usr/bin/web","remote":"unix","request":"r1","ref":"cred://app/kv/a%20b%22?version=3#password","revision":"0a",` +
				`"outcome":"ok","reason":"consumers[0] web allow[1]","stale":true,"tool":"curl"}`,
		},
		{
			Record{Time: at, Event: "x", Reason: "a\n{\"event\":\"reveal\"}\r\x00\x1b[2J\x7f\u0085\u202e\u2028\\é漢😀\U000e0001\xff\xc3"},
			`{"time":"2026-11-28T06:08:09.123456Z","event":"x","reason":"a\u000a{\"event\":\"reveal\"}\u000d\u0000\u001b[2J\u007f\u0085\u202e\u2028\\é漢😀\udb40\udc01\ufffd\ufffd"}`,
		},
	} {
		if got := string(appendRecord(nil, &tt.in)); got != tt.want+"\n" {
			t.Errorf("%s\nwant\n%s", got, tt.want)
		}
	}
	cut := string(appendRecord(nil, &Record{Time: at, Event: "x", Tool: strings.Repeat("a", maxText-1) + "é…"}))
	if want := `"tool":"` + strings.Repeat("a", maxText-1) + "…\"}\n"; !strings.HasSuffix(cut, want) {
		t.Errorf("…%s", cut[len(cut)-40:])
	}
}

func FuzzRecord(f *testing.F) {
	seeds := []string{"plain", "a\n\"}", "\xff\xfe", "\u2028\U0001f600", strings.Repeat("é", maxText)}
	for _, s := range seeds {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, text, id string) {
		r := Record{
			Event: EventDenial, Consumer: text, Session: text, Executable: text, Remote: text, Request: text, Ref: &credref.Ref{Provider: text, ID: id, Field: text},
			Revision: text, Outcome: backend.Code(text), Reason: text, Tool: text,
		}
		line := appendRecord(nil, &r)
		if !json.Valid(line) || bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Fatalf("%q", line)
		}
		for _, c := range line[:len(line)-1] {
			if c < ' ' || c == 0x7f {
				t.Fatalf("%q", line)
			}
		}
		var read map[string]string
		if err := json.Unmarshal(line, &read); err != nil || read["event"] != EventDenial {
			t.Fatalf("%q: %v", line, err)
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); len(text) <= maxText && len(text) == len(want) && read["reason"] != want {
			t.Fatalf("%q was read as %q", text, read["reason"])
		}
	})
}

// What is written together stays together, and each line is there once.
func TestConcurrentCallers(t *testing.T) {
	t.Parallel()
	s, w := toFile(t)
	l := open(t, s)
	const callers, calls = 64, 50
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for n := range calls {
				recs := make([]Record, 1+n%3)
				for i := range recs {
					recs[i] = Record{Event: EventReveal, Reason: fmt.Sprintf("%d %d %d/%d", c, n, i+1, len(recs))}
				}
				if err := l.Write(recs); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, broken := reasons(t, filepath.Join(s.Dir, FileName))
	seen := map[string]bool{}
	for i, reason := range got {
		call, part, _ := strings.Cut(reason[strings.LastIndex(reason, " ")+1:], "/")
		n, _ := strconv.Atoi(call)
		if n > 1 {
			if want := strings.Replace(reason, fmt.Sprintf(" %d/%s", n, part), fmt.Sprintf(" %d/%s", n-1, part), 1); got[i-1] != want {
				t.Fatalf("%q follows %q", reason, got[i-1])
			}
		}
		seen[reason] = true
	}
	want := 0
	for n := range calls {
		want += callers * (1 + n%3)
	}
	if len(got) != want || len(seen) != want || broken != nil || l.Lost() != 0 || w.take() != nil {
		t.Errorf("%d lines, %d different, want %d; broken: %q", len(got), len(seen), want, broken)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]Settings{
		"the audit log can go to file":                {AuditSettings: config.AuditSettings{To: "c4nary"}},
		"when the audit log fails":                    {AuditSettings: config.AuditSettings{OnFailure: "c4nary"}, Dir: "/x"},
		"the path of the audit log is not absolute":   {AuditSettings: config.AuditSettings{Path: "x"}},
		"there is no standard output":                 {AuditSettings: config.AuditSettings{To: "stdout"}},
		"the audit log /no/where/a cannot be opened:": {AuditSettings: config.AuditSettings{Path: "/no/where/a"}},
	} {
		if runtime.GOOS == "windows" && strings.Contains(want, "/no") {
			continue
		}
		l, err := Open(s)
		if !errors.Is(err, backend.ErrInvalidConfig) || !strings.HasPrefix(err.Error(), want) || l != nil || strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	s, w := toFile(t)
	path := filepath.Join(s.Dir, FileName)
	l := open(t, s)
	say(t, l, "one")

	bad := s
	bad.Path = filepath.Join(s.Dir, "none", "x")
	if err := l.Apply(bad); !errors.Is(err, backend.ErrInvalidConfig) {
		t.Errorf("%v", err)
	}
	bad.To = "nonsense"
	if err := l.Apply(bad); !errors.Is(err, backend.ErrInvalidConfig) {
		t.Errorf("%v", err)
	}
	say(t, l, "two")
	if l.Off() {
		t.Error("it is off")
	}

	off := s
	off.To = "off"
	if err := l.Apply(off); err != nil || !l.Off() {
		t.Errorf("off: %v, %v", l.Off(), err)
	}
	say(t, l, "nobody hears it")

	out, err := os.Create(filepath.Join(s.Dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	std := s
	std.To, std.Stdout = "stdout", out
	if err := l.Apply(std); err != nil || l.Off() {
		t.Error(err)
	}
	say(t, l, "three")

	smaller := s
	smaller.MaxBytes = 1
	if err := l.Apply(smaller); err != nil {
		t.Error(err)
	}
	say(t, l, "four")
	if err := l.Apply(s); err != nil {
		t.Error(err)
	}
	say(t, l, "five")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	expect(t, []string{"three"}, out.Name())
	expect(t, []string{"one", "two"}, path+".1")
	expect(t, []string{"four", "five"}, path)
	if _, err := out.WriteString("still open"); err != nil {
		t.Errorf("standard output was closed: %v", err)
	}
	if err := l.Write([]Record{{Event: EventStop}}); !errors.Is(err, backend.ErrUnavailable) || err.Error() != "the audit log cannot be written: it is closed" {
		t.Errorf("after Close: %v", err)
	}
	if err := l.Apply(s); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if told := w.take(); told != nil {
		t.Errorf("told: %q", told)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 1, 3} {
		s, w := toFile(t)
		s.Keep, s.MaxBytes = &keep, 300
		l := open(t, s)
		path := filepath.Join(s.Dir, FileName)
		for n := range 30 {
			say(t, l, fmt.Sprint(n))
		}
		names, err := filepath.Glob(path + "*")
		if err != nil || len(names) != keep+1 {
			t.Errorf("keep %d: %v, %v", keep, names, err)
		}
		var all []string
		for n := keep; n >= 0; n-- {
			name := path
			if n > 0 {
				name += "." + strconv.Itoa(n)
			}
			st, err := os.Stat(name)
			if err != nil || st.Size() > s.MaxBytes || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
				t.Errorf("%v: %v", st, err)
			}
			got, broken := reasons(t, name)
			if broken != nil {
				t.Error(broken)
			}
			all = append(all, got...)
		}
		for i, reason := range all { // the last ones, in order
			if want := fmt.Sprint(30 - len(all) + i); reason != want {
				t.Errorf("keep %d: %v", keep, all)
				break
			}
		}
		big := make([]Record, 20) // larger than a file may be
		for i := range big {
			big[i] = Record{Event: EventReveal, Reason: "big"}
		}
		if err := l.Write(big); err != nil {
			t.Error(err)
		}
		if got, broken := reasons(t, path); len(got) != 20 || broken != nil {
			t.Errorf("%d lines, %v", len(got), broken)
		}
		if told := w.take(); told != nil {
			t.Errorf("told: %q", told)
		}
	}
}

// A file that cannot be rotated grows; somebody is told, not at each line.
func TestRotationFails(t *testing.T) {
	t.Parallel()
	s, w := toFile(t)
	keep := 1
	s.Keep, s.MaxBytes = &keep, 100
	path := filepath.Join(s.Dir, FileName)
	if err := os.Mkdir(path+".1", 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, s)
	for n := range 10 {
		say(t, l, fmt.Sprint(n))
	}
	if got, broken := reasons(t, path); len(got) != 10 || broken != nil {
		t.Errorf("%v, %v", got, broken)
	}
	if told := w.take(); len(told) != 1 || !strings.HasPrefix(told[0], "the audit log is not rotated: ") {
		t.Errorf("told: %q", told)
	}
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(s); err != nil { // tries again at once
		t.Fatal(err)
	}
	say(t, l, "new")
	expect(t, []string{"new"}, path)
}

func BenchmarkWrite(b *testing.B) {
	ref := credref.Ref{Provider: "app", ID: "kv/app/db", Field: "password"}
	rec := Record{
		Event: EventReveal, Consumer: "web", UID: number(1000), PID: number(4711), Executable: "/usr/bin/web", Remote: "unix", Request: "5f3a0c1d22",
		Ref: &ref, Revision: "d4bf64b64d0b1933e6a6fc6c1cccc5a0", Outcome: backend.CodeOK, Reason: "consumers[0] web allow[0]",
	}
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s, _ := toFile(b)
			l := open(b, s)
			b.ReportAllocs()
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			if callers == 1 {
				recs := []Record{rec}
				for b.Loop() {
					_ = l.Write(recs)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				recs := []Record{rec}
				for pb.Next() {
					_ = l.Write(recs)
				}
			})
		})
	}
	b.Run("encoding", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = appendRecord(buf[:0], &rec)
		}
	})
}
