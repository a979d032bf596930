package metrics_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/metrics"
	"github.com/credresolve/credresolve/resolver"
)

const canary = "c4nary-of-metrics"

func settings() metrics.Settings {
	return metrics.Settings{
		Version: "1.2.3", Routes: []string{"/v1/resolve", "/v1/sessions/{id}"},
		Providers: []string{"app", "aws-eu"}, Consumers: []string{"owner", "web"},
	}
}

// scrape reads the exposition with Prometheus's own parser.
func scrape(t *testing.T, m *metrics.Metrics, now metrics.Now) map[string]*dto.MetricFamily {
	t.Helper()
	var text bytes.Buffer
	n, err := m.WriteTo(&text, now)
	if err != nil || n != int64(text.Len()) {
		t.Fatalf("WriteTo = %d, %v; wrote %d bytes", n, err, text.Len())
	}
	if strings.Contains(text.String(), "c4nary") {
		t.Fatal("the exposition holds what a caller chose")
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatalf("the exposition is malformed: %v", err)
	}
	return families
}

// value gives the sample of a family with those labels, names and values by turns, and false where there is none.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
	for _, sample := range families["credresolve_"+name].GetMetric() {
		same := len(sample.Label)*2 == len(labels)
		for i := 0; same && i < len(labels); i += 2 {
			same = slices.ContainsFunc(sample.Label, func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] })
		}
		if same {
			return sample.GetGauge().GetValue() + sample.GetCounter().GetValue() + sample.GetHistogram().GetSampleSum(), true
		}
	}
	return math.NaN(), false
}

func want(t *testing.T, families map[string]*dto.MetricFamily, v float64, name string, labels ...string) {
	t.Helper()
	if got, _ := value(families, name, labels...); got != v {
		t.Errorf("%s%q = %v, want %v", name, labels, got, v)
	}
}

func series(families map[string]*dto.MetricFamily) int {
	n := 0
	for _, f := range families {
		for _, sample := range f.GetMetric() {
			n += 1 + len(sample.GetHistogram().GetBucket())
		}
	}
	return n
}

func served(age time.Duration, stale bool) *resolver.Value {
	return resolver.NewValue(resolver.ValueFacts{Secret: backend.NewSecretString(canary), Fetched: time.Now().Add(-age), Stale: stale})
}

func TestExposition(t *testing.T) {
	t.Parallel()
	m := metrics.New(settings())
	for range 3 {
		m.Hit("app")
	}
	m.Answered("app", resolver.Outcome{Value: served(0, false), Waited: true})
	m.Answered("app", resolver.Outcome{Value: served(0, true)})
	m.Answered("app", resolver.Outcome{Err: backend.ErrNotFound})
	m.Answered("app", resolver.Outcome{Err: backend.ErrUnavailable})
	m.Unchanged("aws-eu")
	m.Denied("web")
	m.Limited("web")
	m.Observe(resolver.Call{Provider: "aws-eu", Op: "batch", Refs: 20, Code: backend.CodeThrottled, Took: 20 * time.Millisecond})
	m.Observe(resolver.Call{Provider: "aws-eu", Op: "get", Refs: 1, Code: backend.CodeOK, Took: time.Minute})
	m.Request("/v1/resolve", 200, 50*time.Microsecond)
	m.Request("/v1/resolve", 503, time.Second)
	for _, n := range []int{8, -1} {
		m.Connection(n)
	}
	m.Served(served(time.Hour, false))
	m.Served(served(time.Minute, false))
	families := scrape(t, m, metrics.Now{Watchers: 6, Sessions: 5, Requests: 4, Queued: 3, AuditLost: 2, SpansLost: 1})

	want(t, families, 1, "build_info", "version", "1.2.3", "go", runtime.Version())
	want(t, families, 4, "hits_total", "provider", "app")
	want(t, families, 0, "hits_total", "provider", "aws-eu")
	want(t, families, 2, "misses_total", "provider", "app")
	want(t, families, 1, "stale_served_total", "provider", "app")
	want(t, families, 1, "negative_hits_total", "provider", "app")
	want(t, families, 1, "unchanged_total", "provider", "aws-eu")
	want(t, families, 1, "denied_total", "consumer", "web")
	want(t, families, 0, "denied_total", "consumer", "owner")
	want(t, families, 1, "limited_total", "consumer", "web")
	want(t, families, 1, "store_calls_total", "provider", "aws-eu", "op", "batch", "code", "throttled")
	want(t, families, 60.02, "store_call_seconds", "provider", "aws-eu")
	want(t, families, 1, "requests_total", "route", "/v1/resolve", "code", "503")
	for i, name := range []string{"spans_lost_total", "audit_lines_lost_total", "requests_queued", "requests_active", "sessions", "watchers", "connections"} {
		want(t, families, float64(i+1), name)
	}
	if age, _ := value(families, "oldest_served_age_seconds"); age < 3600 || age > 3660 {
		t.Errorf("the oldest value served is %v seconds old, want an hour", age)
	}
	for _, name := range []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_start_time_seconds"} {
		if v := families[name].GetMetric(); len(v) != 1 || v[0].GetGauge().GetValue() <= 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
	if rss := families["process_resident_memory_bytes"]; runtime.GOOS == "linux" && rss.GetMetric()[0].GetGauge().GetValue() < 1<<20 {
		t.Errorf("resident memory: %v", rss)
	}
	for name, f := range families {
		if f.GetHelp() == "" || f.GetType() == dto.MetricType_UNTYPED {
			t.Errorf("%s has no help or no type", name)
		}
		if counter := strings.HasSuffix(name, "_total"); counter != (f.GetType() == dto.MetricType_COUNTER) {
			t.Errorf("%s is a %s", name, f.GetType())
		}
	}
	// The next scrape tells of what was served since.
	want(t, scrape(t, m, metrics.Now{}), 0, "oldest_served_age_seconds")
}

func TestHistogramIsCumulative(t *testing.T) {
	t.Parallel()
	m := metrics.New(settings())
	for _, took := range []time.Duration{-time.Second, 0, 100 * time.Microsecond, 100*time.Microsecond + 1, time.Second, time.Hour} {
		m.Request("/v1/resolve", 200, took)
	}
	for _, sample := range scrape(t, m, metrics.Now{})["credresolve_request_seconds"].GetMetric() {
		h := sample.GetHistogram()
		if sample.Label[0].GetValue() != "/v1/resolve" {
			continue
		}
		if h.GetSampleCount() != 6 {
			t.Errorf("count = %d", h.GetSampleCount())
		}
		last := uint64(0)
		for _, b := range h.GetBucket() {
			n := b.GetCumulativeCount()
			if n < last {
				t.Errorf("le=%v has %d, the one before %d", b.GetUpperBound(), n, last)
			}
			last = n
			for le, want := range map[float64]uint64{0.00005: 2, 0.0001: 3, 0.00025: 4, 0.5: 4, 1: 5, 30: 5, math.Inf(1): 6} {
				if b.GetUpperBound() == le && n != want {
					t.Errorf("le=%v has %d, want %d", le, n, want)
				}
			}
		}
		return
	}
	t.Error("there is no histogram")
}

// What callers choose makes no series.
func TestStrangeNamesAddNoSeries(t *testing.T) {
	t.Parallel()
	m := metrics.New(settings())
	flood := func(i int) {
		name := fmt.Sprintf("%s-%d\n\"}", canary, i)
		m.Hit(name)
		m.Unchanged(name)
		m.Denied(name)
		m.Limited(name)
		m.Answered(name, resolver.Outcome{Ref: credref.Ref{Provider: name, ID: name}, Err: backend.Errorf(backend.Code(name), "%s", name)})
		m.Request("/v1/"+name, 200, 0)
		m.Request("/v1/sessions/"+name, 100+i, 0)
		m.Observe(resolver.Call{Provider: name, Op: name, Code: backend.Code(name)})
	}
	for i := range 900 { // every status there is
		flood(i)
	}
	before := series(scrape(t, m, metrics.Now{}))
	for i := range 10_000 {
		flood(i)
	}
	families := scrape(t, m, metrics.Now{})
	if after := series(families); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	want(t, families, 10_900, "hits_total", "provider", "other")
	want(t, families, 10_900, "denied_total", "consumer", "other")
	want(t, families, 10_900, "store_calls_total", "provider", "other", "op", "other", "code", "other")
}

func TestLabelsAreEscaped(t *testing.T) {
	t.Parallel()
	s := settings()
	s.Version = "a\\b\"c\nd"
	families := scrape(t, metrics.New(s), metrics.Now{})
	want(t, families, 1, "build_info", "version", s.Version, "go", runtime.Version())
}

func TestAllow(t *testing.T) {
	t.Parallel()
	m := metrics.New(settings())
	m.Hit("app")
	m.Hit("aws-eu")
	m.Denied("web")
	m.Allow([]string{"app", "new"}, []string{"owner"})
	m.Hit("app")
	m.Hit("new")
	m.Hit("aws-eu")
	m.Denied("web")
	families := scrape(t, m, metrics.Now{})
	want(t, families, 2, "hits_total", "provider", "app")
	want(t, families, 1, "hits_total", "provider", "new")
	want(t, families, 1, "hits_total", "provider", "other")
	want(t, families, 1, "denied_total", "consumer", "other")
	if v, there := value(families, "hits_total", "provider", "aws-eu"); there {
		t.Errorf("a provider that is gone has %v", v)
	}
}

// What the resolver counts is read at the scrape.
func TestResolver(t *testing.T) {
	t.Parallel()
	b, err := memory.New(memory.Config{Values: map[string]string{"a": canary, "b": canary}})
	if err != nil {
		t.Fatal(err)
	}
	m := metrics.New(settings())
	r, err := resolver.New(resolver.Config{Providers: map[string]resolver.Provider{"app": {Backend: b}, "hidden": {Backend: b}}, Observe: m.Observe})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	m.Watch(r)
	for _, o := range r.ResolveAll(context.Background(), []credref.Ref{{Provider: "app", ID: "a"}, {Provider: "app", ID: "b"}, {Provider: "app", ID: "none"}}) {
		m.Answered("app", o)
	}
	m.Hit("app")
	families := scrape(t, m, metrics.Now{})
	want(t, families, 3, "cache_entries") // that there is none is remembered too
	want(t, families, 2, "fetched_total")
	want(t, families, 3, "misses_total", "provider", "app")
	want(t, families, 1, "store_calls_avoided_total")
	want(t, families, 1, "store_calls_total", "provider", "app", "op", "batch", "code", "ok")
	want(t, families, 1, "breaker_state", "provider", "app", "state", "closed")
	want(t, families, 0, "breaker_state", "provider", "app", "state", "open")
	want(t, families, 0, "flight_waiters", "provider", "app")
	if _, there := value(families, "breaker_failures", "provider", "hidden"); there {
		t.Error("a provider that is in no list is shown")
	}
	m.Allow(nil, nil)
	want(t, scrape(t, m, metrics.Now{}), 1, "store_calls_avoided_total")
	if size, _ := value(families, "cache_bytes"); size <= 0 {
		t.Errorf("the cache has %v bytes", size)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := metrics.New(settings())
	v := served(time.Minute, false)
	found := resolver.Outcome{Value: v, Waited: true}
	call := resolver.Call{Provider: "app", Op: "get", Code: backend.CodeOK, Took: time.Millisecond}
	if n := testing.AllocsPerRun(100, func() {
		m.Hit("app")
		m.Hit("strange")
		m.Answered("app", found)
		m.Unchanged("app")
		m.Served(v)
		m.Denied("web")
		m.Request("/v1/resolve", 200, time.Millisecond)
		m.Observe(call)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	m := metrics.New(settings())
	const each = 1000
	var counting, scraping sync.WaitGroup
	stop := make(chan struct{})
	scraping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			scrape(t, m, metrics.Now{})
			m.Allow([]string{"app", fmt.Sprint("p", i%3)}, nil)
		}
	})
	for range 4 {
		counting.Go(func() {
			for i := range each {
				m.Hit("app")
				m.Served(served(time.Duration(i)*time.Second, false))
				m.Request("/v1/resolve", 200, time.Millisecond)
				m.Denied("web")
			}
		})
	}
	counting.Wait()
	close(stop)
	scraping.Wait()
	families := scrape(t, m, metrics.Now{})
	want(t, families, 4*each, "hits_total", "provider", "app")
	want(t, families, 4*each, "requests_total", "route", "/v1/resolve", "code", "200")
}

func BenchmarkHit(b *testing.B) {
	m := metrics.New(settings())
	v := served(time.Minute, false)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Hit("app")
			m.Served(v)
			m.Request("/v1/resolve", 200, 50*time.Microsecond)
		}
	})
}
