package openclawtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Model is a server that answers as a model behind an API like OpenAI's does, always the same.
type Model struct {
	URL string // what baseUrl of a model provider is

	mu   sync.Mutex
	keys []string
}

// Reply is what the model says.
const Reply = "the model was called"

// NewModel gives a model that ends with the test.
func NewModel(t testing.TB) *Model {
	m := new(Model)
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	m.URL = server.URL + "/v1"
	return m
}

// ServeHTTP implements http.Handler.
func (m *Model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if r.URL.Path != "/v1/chat/completions" {
		http.NotFound(w, r)
		return
	}
	m.mu.Lock()
	m.keys = append(m.keys, r.Header.Get("Authorization"))
	m.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	const about = `"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"`
	fmt.Fprintf(w, "data: {%s, \"choices\": [{\"index\": 0, \"delta\": {\"role\": \"assistant\", \"content\": %q}, \"finish_reason\": null}]}\n\n", about, Reply)
	fmt.Fprintf(w, "data: {%s, \"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}], \"usage\": {\"prompt_tokens\": 1, \"completion_tokens\": 1, \"total_tokens\": 2}}\n\n", about)
	fmt.Fprint(w, "data: [DONE]\n\n")
}

// Authorizations are the headers of that name of the calls since the last time.
func (m *Model) Authorizations() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := m.keys
	m.keys = nil
	return keys
}
