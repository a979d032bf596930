package metrics

import (
	"cmp"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/credresolve/credresolve/resolver"
)

// ContentType is that of what WriteTo writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Now is what only the server knows of the moment of a scrape.
type Now struct {
	Watchers  int
	Sessions  int
	Requests  int    // under way
	Queued    int    // requests that wait for their turn
	AuditLost uint64 // lines of the audit log that could not be written, since the start
	SpansLost uint64 // spans that could not be exported, since the start
	// Health is what the last look at a provider found, by its name: whether it was well, and how many of its credentials were not.
	Health map[string]Health
}

// Health is what a look at a provider found.
type Health struct {
	Known, Well bool // Known: it can be told
	Bad         int  // credentials that were not well
}

// states are those of a breaker.
var states = [...]string{"closed", "open", "half_open", "held"}

// WriteTo writes all metrics. The age of the oldest value begins afresh with each scrape, so that of two scrapers each sees a
// part.
func (m *Metrics) WriteTo(w io.Writer, now Now) (int64, error) {
	x := &exposition{out: make([]byte, 0, 32<<10)}
	set := m.names.Load()
	providers := sortedKeys(set.providers)

	x.family("build_info", "gauge", "The program's version; always 1.")
	x.sample("build_info", 1, "version", m.version, "go", runtime.Version())

	each := func(name, help string, get func(*provider) uint64) {
		x.family(name, "counter", help)
		for _, p := range providers {
			x.count(name, get(set.providers[p]), "provider", p)
		}
	}
	each("hits_total", "Refs that were answered from the cache, without waiting.", func(p *provider) uint64 { return p.hits.Load() })
	each("misses_total", "Refs that waited for a fetch, or had none.", func(p *provider) uint64 { return p.misses.Load() })
	each("stale_served_total", "Refs that were answered by a value past its time.", func(p *provider) uint64 { return p.stale.Load() })
	each("negative_hits_total", "Refs that were answered by a remembered \"not found\".", func(p *provider) uint64 { return p.negative.Load() })
	each("unchanged_total", "Refs of which the caller had the present revision.", func(p *provider) uint64 { return p.unchanged.Load() })

	x.family("denied_total", "counter", "Refusals by the policy.")
	for _, c := range sortedKeys(set.consumers) {
		x.count("denied_total", set.consumers[c].denied.Load(), "consumer", c)
	}
	x.family("limited_total", "counter", "Requests over their consumer's rate.")
	for _, c := range sortedKeys(set.consumers) {
		x.count("limited_total", set.consumers[c].limited.Load(), "consumer", c)
	}

	x.family("store_calls_total", "counter", "Calls to stores, by what became of them.")
	for _, name := range providers {
		p := set.providers[name]
		for op := range p.calls {
			for code := range p.calls[op] {
				// The product of all labels is large, and most of it never happens.
				if n := p.calls[op][code].Load(); n > 0 {
					x.count("store_calls_total", n, "provider", name, "op", at(ops[:], op), "code", at(codes[:], code))
				}
			}
		}
	}
	x.family("store_call_seconds", "histogram", "How long calls to stores took.")
	for _, name := range providers {
		x.histogram("store_call_seconds", &set.providers[name].took, "provider", name)
	}

	x.family("requests_total", "counter", "Requests of the API by path and HTTP status.")
	routes := sortedKeys(m.routes)
	for _, path := range routes {
		for i := range m.routes[path].statuses {
			if n := m.routes[path].statuses[i].Load(); n > 0 {
				code := other
				if i < len(statuses) {
					code = strconv.Itoa(statuses[i])
				}
				x.count("requests_total", n, "route", path, "code", code)
			}
		}
	}
	x.family("request_seconds", "histogram", "How long requests took. Of a watch, until it ended.")
	for _, path := range routes {
		x.histogram("request_seconds", &m.routes[path].took, "route", path)
	}

	age := 0.0
	if at := m.oldest.Swap(math.MaxInt64); at != math.MaxInt64 {
		age = max(time.Since(time.Unix(0, at)).Seconds(), 0)
	}
	x.gauge("oldest_served_age_seconds", "Age of the oldest value that was served since the last scrape; 0: none was.", age)
	x.gauge("connections", "Open connections.", float64(m.connections.Load()))
	x.gauge("watchers", "Open watches.", float64(now.Watchers))
	x.gauge("sessions", "Sessions that have not ended.", float64(now.Sessions))
	x.gauge("requests_active", "Requests under way.", float64(now.Requests))
	x.gauge("requests_queued", "Requests that wait for their turn.", float64(now.Queued))
	x.total("audit_lines_lost_total", "Lines of the audit log that could not be written.", now.AuditLost)
	x.total("spans_lost_total", "Spans that could not be exported.", now.SpansLost)

	x.family("event_deliveries_total", "counter", "Events for hooks and webhooks, by what became of them.")
	for i := range m.deliveries {
		for j := range m.deliveries[i] {
			x.count("event_deliveries_total", m.deliveries[i][j].Load(), "by", deliverers[i], "outcome", outcomes[j])
		}
	}

	for _, g := range []struct {
		name, help string
		get        func(Health) (float64, bool)
	}{
		{"provider_healthy", "1 where the provider was well at the last look, 0 where it was not.", func(h Health) (float64, bool) {
			if h.Well {
				return 1, h.Known
			}
			return 0, h.Known
		}},
		{"credentials_unhealthy", "Credentials that were not well at the last look.", func(h Health) (float64, bool) { return float64(h.Bad), true }},
	} {
		x.family(g.name, "gauge", g.help)
		for _, p := range providers {
			if h, looked := now.Health[p]; looked {
				if v, known := g.get(h); known {
					x.sample(g.name, v, "provider", p)
				}
			}
		}
	}

	if s := m.sources.Load(); s != nil {
		m.writeResolver(x, set, s)
	}
	x.process(m.began)
	n, err := w.Write(x.out)
	return int64(n), err
}

func (m *Metrics) writeResolver(x *exposition, set *names, s *source) {
	stats := s.Stats()
	hits := m.retired.Load()
	for _, p := range set.providers {
		hits += p.avoided()
	}
	x.total("store_calls_avoided_total", "Refs that cost no call of their own: from the cache, or one fetch for several who waited.", hits+stats.Shared)
	x.gauge("cache_entries", "Secrets in the cache.", float64(stats.Entries))
	x.gauge("cache_bytes", "Size of the secrets in the cache.", float64(stats.Bytes))
	x.total("cache_evicted_total", "Secrets that left the cache to make room.", stats.Evicted)
	x.total("fetched_total", "Secrets that calls to stores gave.", stats.Fetched)
	x.total("fetches_failed_total", "Fetches that failed in the end.", stats.Failed)
	x.total("fetch_retries_total", "Fetches that were tried again.", stats.Retries)
	x.total("refreshes_total", "Fetches that nobody waited for when they began.", stats.Refreshes)
	x.total("renewals_total", "Leases that were renewed.", stats.Renewals)
	x.total("checks_total", "Looks for a new version, which read no secret.", stats.Checks)

	all := s.Providers()
	all = slices.DeleteFunc(slices.Clone(all), func(p resolver.ProviderState) bool { return set.providers[p.Name] == nil })
	slices.SortFunc(all, func(a, b resolver.ProviderState) int { return cmp.Compare(a.Name, b.Name) })
	x.family("breaker_state", "gauge", "1 for the state that the provider's breaker is in.")
	for _, p := range all {
		for _, state := range states {
			is := 0.0
			if p.Breaker == state {
				is = 1
			}
			x.sample("breaker_state", is, "provider", p.Name, "state", state)
		}
	}
	for _, g := range []struct {
		name, help string
		get        func(*resolver.ProviderState) int
	}{
		{"breaker_failures", "Failures in a row.", func(p *resolver.ProviderState) int { return p.Failures }},
		{"store_calls_active", "Calls under way.", func(p *resolver.ProviderState) int { return p.Calls }},
		{"fetches_queued", "Fetches that wait for a call.", func(p *resolver.ProviderState) int { return p.Queued }},
		{"flight_waiters", "Callers who wait for a fetch.", func(p *resolver.ProviderState) int { return p.Waiting }},
		{"provider_cache_entries", "Secrets of the provider in the cache.", func(p *resolver.ProviderState) int { return p.Entries }},
	} {
		x.family(g.name, "gauge", g.help)
		for i := range all {
			x.sample(g.name, float64(g.get(&all[i])), "provider", all[i].Name)
		}
	}
}

// at gives the name at i of a list; other behind its end.
func at[S ~string](list []S, i int) string {
	if i < len(list) {
		return string(list[i])
	}
	return other
}

// exposition is text in Prometheus's format.
type exposition struct{ out []byte }

const prefix = "credresolve_"

// family begins a metric. All its samples follow at once, as the format demands.
func (x *exposition) family(name, kind, help string) { x.foreign(prefix+name, kind, help) }

func (x *exposition) foreign(name, kind, help string) {
	x.out = append(append(append(append(x.out, "# HELP "...), name...), ' '), help...)
	x.out = append(append(append(append(x.out, "\n# TYPE "...), name...), ' '), kind...)
	x.out = append(x.out, '\n')
}

func (x *exposition) gauge(name, help string, v float64) {
	x.family(name, "gauge", help)
	x.sample(name, v)
}

func (x *exposition) total(name, help string, n uint64) {
	x.family(name, "counter", help)
	x.count(name, n)
}

// sample writes a value; labels are names and values by turns.
func (x *exposition) sample(name string, v float64, labels ...string) {
	x.name(prefix+name, labels)
	x.float(v)
	x.out = append(x.out, '\n')
}

func (x *exposition) count(name string, n uint64, labels ...string) {
	x.name(prefix+name, labels)
	x.out = append(strconv.AppendUint(x.out, n, 10), '\n')
}

func (x *exposition) histogram(name string, h *histogram, labels ...string) {
	labels = append(slices.Clone(labels), "le", "")
	total := uint64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
		le := "+Inf"
		if i < len(buckets) {
			le = strconv.FormatFloat(buckets[i].Seconds(), 'g', -1, 64)
		}
		labels[len(labels)-1] = le
		x.count(name+"_bucket", total, labels...)
	}
	labels = labels[:len(labels)-2]
	x.sample(name+"_sum", time.Duration(h.sum.Load()).Seconds(), labels...)
	x.count(name+"_count", total, labels...)
}

// name writes a metric's name and labels, with values escaped as the format says.
func (x *exposition) name(name string, labels []string) {
	x.out = append(x.out, name...)
	for i := 0; i+1 < len(labels); i += 2 {
		x.out = append(x.out, "{,"[min(i, 1)])
		x.out = append(append(x.out, labels[i]...), '=', '"')
		for _, c := range []byte(labels[i+1]) {
			switch c {
			case '\\', '"':
				x.out = append(x.out, '\\', c)
			case '\n':
				x.out = append(x.out, '\\', 'n')
			default:
				x.out = append(x.out, c)
			}
		}
		x.out = append(x.out, '"')
	}
	if len(labels) > 0 {
		x.out = append(x.out, '}')
	}
	x.out = append(x.out, ' ')
}

func (x *exposition) float(v float64) { x.out = strconv.AppendFloat(x.out, v, 'g', -1, 64) }
