package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/internal/mototest"
	"github.com/credresolve/credresolve/internal/vaulttest"
	"github.com/credresolve/credresolve/resolver"
)

func storeWorks() []work {
	works := []work{
		{"Vault, 5 ms away: document of 1,000 refs in 100 secrets", 2, func(m *meter) (result, error) {
			return withTB(func(t *tb) (result, error) { return measureVault(m, t) })
		}},
		{"Vault: reads for that document", 1, func(*meter) (result, error) {
			return withTB(measureVaultReads)
		}},
		{"AWS: calls for 1,000 secrets", 1, func(*meter) (result, error) {
			return withTB(measureAWSCalls)
		}},
	}
	if program := os.Getenv("CREDRESOLVE_BENCH_VALS"); program != "" {
		works = append(works, work{"Vault, 5 ms away: the same document by vals (peer)", 0, func(*meter) (result, error) {
			return withTB(func(t *tb) (result, error) { return measureVals(t, program) })
		}})
	}
	return works
}

const (
	vaultSecrets  = 100
	fieldsOfEach  = 10
	storeDistance = 5 * time.Millisecond
)

// distantVault is a real Vault behind a proxy that adds to each call the time of a way, and counts reads.
type distantVault struct {
	server *vaulttest.Server
	url    string
	reads  atomic.Int64
	doc    []byte // a YAML document with every field of every secret, in both forms, shuffled
}

func newDistantVault(t *tb) *distantVault {
	v := &distantVault{server: vaulttest.StartOwn(t)}
	target, err := url.Parse(v.server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/secret/data/") {
			v.reads.Add(1)
		}
		time.Sleep(storeDistance)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	v.url = s.URL
	client := v.server.Client(t)
	var lines []string
	for i := range vaultSecrets {
		data := make(map[string]any, fieldsOfEach)
		for f := range fieldsOfEach {
			data[fmt.Sprintf("f%d", f)] = fmt.Sprintf("value-%d-%d", i, f)
			form := `cred://app/secret/s%d#f%d`
			if f%2 == 0 {
				form = `{provider: app, id: secret/s%d, field: f%d}`
			}
			lines = append(lines, fmt.Sprintf("k%d-%d: "+form+"\n", i, f, i, f))
		}
		if _, err := client.KVv2("secret").Put(t.Context(), fmt.Sprintf("s%d", i), data); err != nil {
			t.Fatal(err)
		}
	}
	rand.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	v.doc = []byte(strings.Join(lines, ""))
	return v
}

// open writes the configuration and opens it: everything is cold.
func open(t *tb, content string, kinds ...backend.Kind) *resolver.Resolver {
	path := filepath.Join(t.TempDir(), config.FileName)
	if err := os.WriteFile(path, []byte("version: 1\nproviders:\n"+content), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := config.Open(path, kinds...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// render resolves the document with a cold resolver and checks what came out.
func (v *distantVault) render(t *tb) {
	r := open(t, fmt.Sprintf("  app: {kind: vault, address: %q, auth: {method: token, token: %q}}\n", v.url, v.server.Token), vault.Kind())
	defer func() {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	doc, err := document.Parse("app.yaml", v.doc, document.YAML, document.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sites := doc.Refs()
	refs := make([]credref.Ref, len(sites))
	values := make(map[*document.Site]backend.Secret, len(sites))
	for i, s := range sites {
		refs[i] = s.Ref
	}
	for i, o := range r.ResolveAll(t.Context(), refs) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		values[sites[i]] = o.Value.Secret()
	}
	out, err := doc.Render(func(s *document.Site) (document.Replacement, error) {
		return document.Replacement{Secret: values[s]}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(out, []byte("value-")); n != vaultSecrets*fieldsOfEach {
		t.Fatalf("%d values in the rendered document", n)
	}
}

// bare reads each secret once, 32 at a time, with the SDK alone.
func (v *distantVault) bare(t *tb, client *api.Client) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range next {
				if _, err := client.KVv2("secret").Get(t.Context(), fmt.Sprintf("s%d", i)); err != nil {
					panic(err)
				}
			}
		})
	}
	for i := range vaultSecrets {
		next <- i
	}
	close(next)
	wg.Wait()
}

func measureVault(m *meter, t *tb) (result, error) {
	v := newDistantVault(t)
	c := api.DefaultConfig()
	c.Address, c.MaxRetries = v.url, 0
	c.HttpClient.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	client, err := api.NewClient(c)
	if err != nil {
		return result{}, err
	}
	client.SetToken(v.server.Token)
	var ours, bare []float64
	for range max(3, m.rounds/40) {
		ours = append(ours, timed(func() { v.render(t) }))
		bare = append(bare, timed(func() { v.bare(t, client) }))
		c.HttpClient.CloseIdleConnections() // ours begins without connections too
	}
	a, b := least(ours), least(bare)
	return result{ours: a, baseline: b, ratio: a / b, format: duration, against: "32 parallel bare reads"}, nil
}

func measureVaultReads(t *tb) (result, error) {
	v := newDistantVault(t)
	v.render(t)
	n := float64(v.reads.Load())
	return result{ours: n, baseline: vaultSecrets, ratio: n / vaultSecrets, format: count, against: "distinct secrets"}, nil
}

// measureVals lets vals, the program of bench/vals, evaluate the same refs in the same order, written as vals writes them.
func measureVals(t *tb, program string) (result, error) {
	v := newDistantVault(t)
	ours := timed(func() { v.render(t) })
	before := v.reads.Load()
	forms := regexp.MustCompile(`(?m)(?:cred://app/secret/(s\d+)#(f\d+)|\{provider: app, id: secret/(s\d+), field: (f\d+)\})$`)
	doc := forms.ReplaceAll(v.doc, []byte("ref+vault://secret/$1$3#/$2$4"))
	cmd := exec.Command(program)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "VAULT_ADDR=" + v.url, "VAULT_TOKEN=" + v.server.Token}
	cmd.Stdin, cmd.Stderr = bytes.NewReader(doc), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return result{}, err
	}
	var took float64
	var values int
	if _, err := fmt.Sscan(string(out), &took, &values); err != nil || values != vaultSecrets*fieldsOfEach {
		return result{}, fmt.Errorf("vals gave %d values: %v", values, err)
	}
	against := fmt.Sprintf("ours; vals made %d reads", v.reads.Load()-before)
	return result{ours: took, baseline: ours, ratio: took / ours, format: duration, against: against}, nil
}

func timed(f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start))
}

func measureAWSCalls(t *tb) (result, error) {
	const secrets, batch = 1000, 20
	p := mototest.New(t)
	r := open(t, fmt.Sprintf("  aws: {kind: awssm, region: us-east-1, endpoint: %q, access_key_id: AKIABENCH, secret_access_key: bench, limits: {timeout: 2m}}\n", p.URL), awssm.Kind())
	defer r.Close()
	b, err := r.Backend("aws")
	if err != nil {
		return result{}, err
	}
	w, err := backend.AsWriter(b)
	if err != nil {
		return result{}, err
	}
	refs := make([]credref.Ref, secrets)
	for i := range refs {
		refs[i] = credref.Ref{Provider: "aws", ID: fmt.Sprintf("bench/%d", i)}
		if _, err := w.Put(t.Context(), backend.Request{ID: refs[i].ID}, backend.Value{Secret: backend.NewSecretString("x")}, backend.Condition{Absent: true}); err != nil {
			return result{}, err
		}
	}
	p.Reset()
	for _, o := range r.ResolveAll(t.Context(), refs) {
		if o.Err != nil {
			return result{}, o.Err
		}
	}
	n := float64(len(p.All()))
	return result{ours: n, baseline: secrets / batch, ratio: n / (secrets / batch), format: count, against: "batches of 20"}, nil
}
