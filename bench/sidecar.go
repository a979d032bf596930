package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
)

func sidecarWorks() []work {
	in := func(f func(*meter, *tb) (result, error)) func(*meter) (result, error) {
		return func(m *meter) (result, error) {
			return withTB(func(t *tb) (result, error) { return f(m, t) })
		}
	}
	speed := func(connections int, audit string, of func([]time.Duration, float64) float64) func(*meter) (result, error) {
		return in(func(m *meter, t *tb) (result, error) { return measureSidecar(m, t, connections, audit, of) })
	}
	return []work{
		{"sidecar, one cached ref, 1 connection: time a request", 1.11, speed(1, "off", mean)},
		{"sidecar, one cached ref, 1 connection: p99", 1.3, speed(1, "off", p99)},
		{"sidecar, one cached ref, 16 connections: time a request", 1.11, speed(16, "off", mean)},
		{"sidecar, one cached ref, 16 connections: p99", 1.3, speed(16, "off", p99)},
		{"sidecar, one cached ref, 64 connections: time a request", 1.11, speed(64, "off", mean)},
		{"sidecar, one cached ref, 64 connections: p99", 1.3, speed(64, "off", p99)},
		{"sidecar, audit to a file, 64 connections: time a request", 1.43, speed(64, "audit.jsonl", mean)},
		{"sidecar, batch of 100: time a ref", 0.067, in(measureBatch)},
		{"sidecar, 1,000 cached secrets: resident memory", 1, in(measureResident)},
		{"sidecar, store dead, 1,000 clients: time a stale answer", 1.25, in(measureStale)},
		{"sidecar, store dead, 1,000 clients: store calls a key and interval", 1, in(measureStaleCalls)},
		{"sidecar, 10,000 watchers: memory of one", 0, in(measureWatchers)},
		{"sidecar, 10,000 watchers: from a change to the last event", 0, in(measureFanOut)},
	}
}

// sidecarProcess is a server in a process of its own on a Unix socket.
type sidecarProcess struct {
	socket string
	cmd    *exec.Cmd
	dir    string
}

// startProcess starts argv, which is to listen at dir/run/sock.
func startProcess(t *tb, dir string, argv ...string) *sidecarProcess {
	p := &sidecarProcess{socket: filepath.Join(dir, "run", "sock"), dir: dir}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = dir
	p.cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin", "CREDRESOLVE_SOCKET=" + p.socket}
	var messages bytes.Buffer
	p.cmd.Stderr = &messages
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(os.Interrupt)
		_ = p.cmd.Wait()
	})
	for range 500 {
		if c, err := net.Dial("unix", p.socket); err == nil {
			_ = c.Close()
			return p
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not listen: %s", filepath.Base(argv[0]), messages.Bytes())
	return nil
}

func startFloor(t *tb) *sidecarProcess {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	return startProcess(t, dir, build(t, ".", "./barehttp"), filepath.Join(dir, "run", "sock"))
}

// startSidecar starts a sidecar with n secrets of a file, whose only caller is a consumer under a policy.
func startSidecar(t *tb, n int, audit, cache string) *sidecarProcess {
	dir := project(t, n)
	settings := fmt.Sprintf(`version: 1
providers:
  conf: {kind: file, path: secrets.json, mode: json, cache: {%s}}
serve:
  limits: {connections: 20000, watchers: 20000, requests: 2000}
  consumers:
    - name: bench
      uid: %d
      allow: [{provider: conf, id: "/k*"}, {provider: conf, id: "/other/**"}]
      may: [status, metrics]
`, cache, os.Geteuid())
	if err := os.WriteFile(filepath.Join(dir, "credresolve.yaml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	return startProcess(t, dir, build(t, "..", "./cmd/credresolve"), "--config", "credresolve.yaml", "serve", "--audit", audit)
}

// load is a client of the simplest kind: it writes the same request again and again, and reads the answers.
type load struct {
	conns   []net.Conn
	readers []*bufio.Reader
	request []byte
}

func newLoad(t *tb, p *sidecarProcess, connections int, request []byte) *load {
	l := &load{request: request}
	for range connections {
		c, err := net.Dial("unix", p.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		l.conns = append(l.conns, c)
		l.readers = append(l.readers, bufio.NewReaderSize(c, 4096))
	}
	l.run(t, 200*time.Millisecond) // warm
	return l
}

// run sends requests for that long on every connection, and gives their latencies and the time that one took of the whole.
func (l *load) run(t *tb, long time.Duration) (latencies []time.Duration, each float64) {
	perConn := make([][]time.Duration, len(l.conns))
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(long)
	for i := range l.conns {
		wg.Go(func() {
			for at := time.Now(); at.Before(end); {
				if err := l.once(i); err != nil {
					failed.Store(&err)
					return
				}
				now := time.Now()
				perConn[i] = append(perConn[i], now.Sub(at))
				at = now
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	latencies = slices.Concat(perConn...)
	return latencies, float64(took) / float64(len(latencies))
}

func (l *load) once(i int) error {
	if _, err := l.conns[i].Write(l.request); err != nil {
		return err
	}
	r := l.readers[i]
	length := -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("the answer is %q", line)
		}
		if len(line) == 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(v)))
		}
	}
	if length < 0 {
		return fmt.Errorf("an answer has no length")
	}
	_, err := r.Discard(length)
	return err
}

const one = "GET /v1/resolve?ref=cred%3A%2F%2Fconf%2F%2Fk0 HTTP/1.1\r\nHost: localhost\r\n\r\n"

func mean(latencies []time.Duration, each float64) float64 { return each }

func p99(latencies []time.Duration, _ float64) float64 {
	slices.Sort(latencies)
	return float64(latencies[len(latencies)*99/100])
}

const roundTime = 150 * time.Millisecond

// against measures ours and baseline by turns, and compares what of gives of each round.
func (m *meter) against(t *tb, ours, baseline *load, of func([]time.Duration, float64) float64) (a, b float64) {
	var x, y []float64
	for range max(8, m.rounds/10) {
		x = append(x, of(ours.run(t, roundTime)))
		y = append(y, of(baseline.run(t, roundTime)))
	}
	return median(x), median(y)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

func microseconds(ns float64) string { return fmt.Sprintf("%.1f µs", ns/1e3) }

func measureSidecar(m *meter, t *tb, connections int, audit string, of func([]time.Duration, float64) float64) (result, error) {
	ours := newLoad(t, startSidecar(t, 1, audit, "ttl: 1h"), connections, []byte(one))
	floor := newLoad(t, startFloor(t), connections, []byte(one))
	a, b := m.against(t, ours, floor, of)
	return result{ours: a, baseline: b, ratio: a / b, format: microseconds, against: "net/http, a static answer"}, nil
}

func measureBatch(m *meter, t *tb) (result, error) {
	p := startSidecar(t, 100, "off", "ttl: 1h")
	var body strings.Builder
	body.WriteString(`{"refs":[`)
	for i := range 100 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"provider":"conf","id":"/k%d"}`, i)
	}
	body.WriteString("]}")
	request := fmt.Sprintf("POST /v1/resolve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", body.Len(), body.String())
	batch := newLoad(t, p, 16, []byte(request))
	single := newLoad(t, p, 16, []byte(one))
	a, b := m.against(t, batch, single, mean)
	a /= 100
	return result{ours: a, baseline: b, ratio: a / b, format: microseconds, against: "a request of its own"}, nil
}

// api gives a client of p.
func (p *sidecarProcess) api(t *tb) *client.Client {
	c, err := client.New(client.Config{Socket: p.socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func refs(n int) []credref.Ref {
	out := make([]credref.Ref, n)
	for i := range out {
		out[i] = credref.Ref{Provider: "conf", ID: fmt.Sprintf("/k%d", i)}
	}
	return out
}

func (p *sidecarProcess) fill(t *tb, n int) {
	for _, o := range p.api(t).ResolveAll(t.Context(), refs(n)) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
}

// resident is the process's resident memory in bytes.
func (p *sidecarProcess) resident(t *tb) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kib * 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func mebibytes(b float64) string { return fmt.Sprintf("%.1f MiB", b/(1<<20)) }

func measureResident(_ *meter, t *tb) (result, error) {
	p := startSidecar(t, 1000, "audit.jsonl", "ttl: 1h")
	p.fill(t, 1000)
	newLoad(t, p, 64, []byte(one)).run(t, 2*time.Second)
	const allowed = 25e6
	used := p.resident(t)
	return result{ours: used, baseline: allowed, ratio: used / allowed, format: mebibytes, against: "what is allowed"}, nil
}

// deadStore makes p's store unavailable, and waits until what it gave is stale.
func (p *sidecarProcess) deadStore(t *tb) {
	if err := os.WriteFile(filepath.Join(p.dir, "secrets.json"), []byte("{"), 0o600); err != nil { // no JSON: unavailable
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
}

const clients = 1000

func measureStale(m *meter, t *tb) (result, error) {
	healthy := newLoad(t, startSidecar(t, 1, "off", "ttl: 1h"), clients, []byte(one))
	p := startSidecar(t, 1, "off", "ttl: 1s, max_stale: 1h")
	p.fill(t, 1)
	p.deadStore(t)
	stale := newLoad(t, p, clients, []byte(one))
	a, b := m.against(t, stale, healthy, mean)
	return result{ours: a, baseline: b, ratio: a / b, format: microseconds, against: "a fresh one"}, nil
}

// storeCalls is how many calls the metrics count.
func (p *sidecarProcess) storeCalls(t *tb) float64 {
	hc := &http.Client{Transport: &http.Transport{DialContext: dialer(p.socket)}}
	res, err := hc.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %d %v", res.StatusCode, err)
	}
	total := 0.0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "credresolve_store_calls_total") {
			n, _ := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:len(line)-1], 64)
			total += n
		}
	}
	return total
}

func measureStaleCalls(_ *meter, t *tb) (result, error) {
	p := startSidecar(t, 1, "off", "ttl: 1s, max_stale: 1h")
	p.fill(t, 1)
	p.deadStore(t)
	l := newLoad(t, p, clients, []byte(one))
	before := p.storeCalls(t)
	const long = 5 * time.Second
	l.run(t, long)
	calls := p.storeCalls(t) - before
	intervals := long.Seconds() // a second, the shortest between two fetches of a successor
	return result{ours: calls, baseline: intervals, ratio: calls / intervals, format: count, against: "seconds"}, nil
}

const watchers = 10_000

// watch opens n streams of one ref, and gives their readers.
func (p *sidecarProcess) watch(t *tb, n int) []*bufio.Reader {
	query := url.Values{"ref": {"cred://conf//k0"}}.Encode()
	out := make([]*bufio.Reader, n)
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < n; i += 8 {
				c, err := net.Dial("unix", p.socket)
				if err == nil {
					_, err = fmt.Fprintf(c, "GET /v1/watch?%s HTTP/1.1\r\nHost: localhost\r\n\r\n", query)
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				out[i] = bufio.NewReaderSize(c, 512)
				if err := awaitEvent(out[i]); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	return out
}

// awaitEvent reads up to the end of the next event that tells of a new revision or of the present one.
func awaitEvent(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if kind, ok := strings.CutPrefix(line, "event: "); ok && (kind == "resolved\n" || kind == "rotated\n") {
			break
		}
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "data: ") {
			return err
		}
	}
}

func measureWatchers(_ *meter, t *tb) (result, error) {
	p := startSidecar(t, 1, "off", "ttl: 1h")
	p.fill(t, 1)
	idle := p.resident(t)
	p.watch(t, watchers)
	each := (p.resident(t) - idle) / watchers
	kib := func(b float64) string { return fmt.Sprintf("%.1f KiB", b/1024) }
	return result{ours: each, baseline: 32 << 10, ratio: each / (32 << 10), format: kib, against: "32 KiB"}, nil
}

func measureFanOut(_ *meter, t *tb) (result, error) {
	p := startSidecar(t, 1, "off", "ttl: 1h")
	p.fill(t, 1)
	readers := p.watch(t, watchers)
	api := p.api(t)
	var times []float64
	for round := range 3 {
		if err := os.WriteFile(filepath.Join(p.dir, "secrets.json"), fmt.Appendf(nil, `{"k0": "value-%d"}`, round), 0o600); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		v, err := api.Resolve(t.Context(), refs(1)[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.Report(t.Context(), refs(1)[0], v.Revision()); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for part := range 8 {
			wg.Go(func() {
				for i := part; i < len(readers); i += 8 {
					_ = awaitEvent(readers[i])
				}
			})
		}
		wg.Wait()
		times = append(times, float64(time.Since(start)))
		time.Sleep(11 * time.Second) // a report may cause a fetch each ten seconds
	}
	return result{ours: median(times), baseline: 1e9, ratio: median(times) / 1e9, format: milliseconds, against: "a second"}, nil
}

func dialer(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
}
