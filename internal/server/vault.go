package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// What metrics call the paths of Vault.
const (
	vaultSecretPath = "/v1/{mount}/data/{path}"
	vaultMountsPath = "/v1/sys/internal/ui/mounts"
	vaultTokenPath  = "/v1/auth/token/lookup-self" //nolint:gosec // a path
	vaultHealthPath = "/v1/sys/health"
	vaultSealPath   = "/v1/sys/seal-status"
)

// vaultVersion is what we call ourselves where a client asks for Vault's version, of a form that clients can read.
const vaultVersion = "0.0.0+credresolve"

// vaultAPI answers reads of the key-value engine, version 2, as Vault does, and what clients ask before.
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
type vaultAPI struct {
	s                                   *Server
	health, seal, lookup, mounts, mount []route
	secret                              []route
}

func newVault(s *Server) http.Handler {
	anybody := func(answer func(*request)) []route {
		handle := func(_ *Server, req *request) { answer(req) }
		return []route{{method: http.MethodGet, open: true, health: true, handle: handle}, {method: http.MethodHead, open: true, health: true, handle: handle}}
	}
	return &vaultAPI{
		s: s, health: anybody((*request).vaultHealth), seal: anybody((*request).vaultSeal),
		lookup: vaultReads((*Server).vaultLookup), mounts: vaultReads((*Server).vaultMounts), mount: vaultReads((*Server).vaultMount),
		secret: vaultReads((*Server).vaultGet),
	}
}

// vaultReads are the routes of a path that can be read alone, by a request that asks for nothing which we would leave out.
func vaultReads(handle func(*Server, *request)) []route {
	return reads(func(s *Server, req *request) {
		if err := vaultPlain(req.r); err != nil {
			req.fail(err)
			return
		}
		handle(s, req)
	})
}

func (a *vaultAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found, name := []route(nil), otherPath
	switch path := r.URL.Path; {
	case path == vaultHealthPath:
		found, name = a.health, path
	case path == vaultSealPath:
		found, name = a.seal, path
	case path == vaultTokenPath:
		found, name = a.lookup, path
	case path == vaultMountsPath:
		found, name = a.mounts, path
	case strings.HasPrefix(path, vaultMountsPath+"/"):
		found, name = a.mount, vaultMountsPath
	case vaultEngine(path):
		found, name = a.secret, vaultSecretPath
	}
	a.s.answer(w, r, &vaultProtocol, found, name)
}

// vaultEngine reports whether path may be that of a secret, as opposed to one of Vault's own.
func vaultEngine(path string) bool {
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return false
	}
	first, _, _ := strings.Cut(rest, "/")
	return !slices.Contains([]string{"", "sys", "auth", "identity", "cubbyhole"}, first)
}

var vaultProtocol = protocol{token: vaultToken, fail: vaultFail}

func vaultToken(r *http.Request) (string, error) {
	if header(r, "X-Vault-Request") != "true" {
		return "", bad(http.StatusPreconditionFailed, `missing "X-Vault-Request" header`, "send X-Vault-Request: true, as Vault's clients do")
	}
	return cmp.Or(header(r, "X-Vault-Token"), bearer(r)), nil
}

// vaultPlain refuses what would change the answer and is not done here: whoever asks for a wrapped secret must not get it in
// the clear, nor one of another namespace the one of this.
func vaultPlain(r *http.Request) error {
	for _, name := range [...]string{"X-Vault-Wrap-Ttl", "X-Vault-Wrap-Format", "X-Vault-Namespace"} {
		if strings.Join(r.Header[name], "") != "" {
			return bad(http.StatusBadRequest, "credresolve has neither response wrapping nor namespaces", "leave out "+name)
		}
	}
	return nil
}

const vaultOnly = "this is credresolve, which answers reads of kv version 2 alone, at the mounts of serve.vault.mounts: GET /v1/MOUNT/data/PATH"

// vaultFail answers with the status and the errors that Vault has.
func vaultFail(req *request, err error) {
	code := backend.CodeOf(err)
	status, text := code.HTTPStatus(), err.Error()
	var own *badRequest
	switch {
	case errors.As(err, &own) && own.status == http.StatusNotFound:
		status, text = own.status, "no handler for route: "+vaultOnly
	case errors.As(err, &own) && own.status == http.StatusMethodNotAllowed:
		status, text = own.status, "unsupported operation: "+vaultOnly
	case errors.As(err, &own):
		status = own.status
	case req.caller == nil && code == backend.CodeAuthRequired:
		status, text = http.StatusForbidden, "permission denied: the request has no valid X-Vault-Token; it is in the file that serve.vault.token_file names"
	default:
		switch code {
		case backend.CodeNotFound:
			req.write(http.StatusNotFound, []byte(`{"errors":[]}`))
			return
		case backend.CodeDenied:
			text = "permission denied: " + text
		case backend.CodeInvalidID, backend.CodeFieldRequired, backend.CodeUnsupported:
			status = http.StatusBadRequest
		case backend.CodeExpired:
			status = http.StatusNotFound
		case backend.CodeInvalidConfig:
			status = http.StatusInternalServerError
		case backend.CodeAuthRequired, backend.CodeLocked: // it is not this client that has to log in
			status = http.StatusBadGateway
		}
	}
	req.vaultErrors(status, text)
}

func (req *request) vaultErrors(status int, text string) {
	out, _ := json.Marshal(map[string][]string{"errors": {text}})
	req.write(status, out)
}

// vaultReply is what Vault wraps around data.
type vaultReply struct {
	RequestID     string    `json:"request_id"`
	LeaseID       string    `json:"lease_id"`
	Renewable     bool      `json:"renewable"`
	LeaseDuration int       `json:"lease_duration"`
	Data          any       `json:"data"`
	WrapInfo      *struct{} `json:"wrap_info"`
	Warnings      []string  `json:"warnings"`
	Auth          *struct{} `json:"auth"`
}

func (req *request) vaultReply(data any) {
	req.json(http.StatusOK, vaultReply{RequestID: req.id, Data: data})
}

func (req *request) vaultHealth() {
	req.json(http.StatusOK, struct {
		Initialized                bool   `json:"initialized"`
		Sealed                     bool   `json:"sealed"`
		Standby                    bool   `json:"standby"`
		PerformanceStandby         bool   `json:"performance_standby"`
		ReplicationPerformanceMode string `json:"replication_performance_mode"`
		ReplicationDRMode          string `json:"replication_dr_mode"`
		ServerTimeUTC              int64  `json:"server_time_utc"`
		Version                    string `json:"version"`
		ClusterName                string `json:"cluster_name"`
	}{Initialized: true, ReplicationPerformanceMode: "disabled", ReplicationDRMode: "disabled", ServerTimeUTC: time.Now().Unix(), Version: vaultVersion, ClusterName: "credresolve"})
}

func (req *request) vaultSeal() {
	req.json(http.StatusOK, struct {
		Type        string `json:"type"`
		Initialized bool   `json:"initialized"`
		Sealed      bool   `json:"sealed"`
		T           int    `json:"t"`
		N           int    `json:"n"`
		Progress    int    `json:"progress"`
		Nonce       string `json:"nonce"`
		Version     string `json:"version"`
		ClusterName string `json:"cluster_name"`
		StorageType string `json:"storage_type"`
	}{Type: "credresolve", Initialized: true, T: 1, N: 1, Version: vaultVersion, ClusterName: "credresolve", StorageType: "credresolve"})
}

// vaultLookup tells of the caller's token, but not the token itself. It has no end, so nobody renews it.
func (s *Server) vaultLookup(req *request) {
	req.vaultReply(map[string]any{
		"accessor": "", "creation_time": s.began.Unix(), "creation_ttl": 0, "display_name": "credresolve", "entity_id": "",
		"expire_time": nil, "explicit_max_ttl": 0, "meta": map[string]string{"consumer": req.caller.consumer.Name()}, "num_uses": 0,
		"orphan": true, "path": "auth/token/create", "policies": []string{}, "renewable": false, "ttl": 0, "type": "service",
	})
}

// vaultEngineInfo is what Vault tells of a mount.
type vaultEngineInfo struct {
	Path        string            `json:"path,omitempty"`
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options"`
}

func kvInfo(path string) vaultEngineInfo {
	return vaultEngineInfo{Path: path, Type: "kv", Description: "served by credresolve", Options: map[string]string{"version": "2"}}
}

// vaultMounts lists the mounts of which the caller may read something.
func (s *Server) vaultMounts(req *request) {
	secret := map[string]vaultEngineInfo{}
	for mount, provider := range req.state.serve.Vault.Mounts {
		if req.caller.consumer.Sees(provider) {
			secret[strings.Trim(mount, "/")+"/"] = kvInfo("")
		}
	}
	req.vaultReply(map[string]any{"secret": secret, "auth": map[string]any{}})
}

// vaultMount tells of the mount of a path. One that is not there and one that the caller has no right to look alike.
func (s *Server) vaultMount(req *request) {
	mount, provider, _, ok := vaultSplit(req.state.serve.Vault.Mounts, strings.TrimPrefix(req.r.URL.Path, vaultMountsPath+"/"))
	if !ok || !req.caller.consumer.Sees(provider) {
		req.vaultErrors(http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to the path: "+vaultOnly)
		return
	}
	req.vaultReply(kvInfo(mount + "/"))
}

// vaultSplit finds the innermost mount that holds path, its provider, and what of path is below it.
func vaultSplit(mounts map[string]string, path string) (mount, provider, rest string, ok bool) {
	for name, of := range mounts {
		name = strings.Trim(name, "/")
		below, under := strings.CutPrefix(path+"/", name+"/")
		if under && (!ok || len(name) > len(mount)) {
			mount, provider, rest, ok = name, of, strings.TrimSuffix(below, "/"), true
		}
	}
	return mount, provider, rest, ok
}

func (s *Server) vaultGet(req *request) {
	mount, provider, rest, ok := vaultSplit(req.state.serve.Vault.Mounts, strings.TrimPrefix(req.r.URL.Path, "/v1/"))
	path, isData := strings.CutPrefix(rest, "data/")
	switch {
	case !ok:
		req.fail(bad(http.StatusNotFound, "", ""))
		return
	case !isData || path == "":
		// As Vault tells it, so that a client does not take it for a missing secret.
		text := "Invalid path for a versioned K/V secrets engine: " + vaultOnly
		out, _ := json.Marshal(struct {
			RequestID string   `json:"request_id"`
			Errors    []string `json:"errors"`
			Warnings  []string `json:"warnings"`
		}{req.id, []string{text}, []string{text}})
		req.write(http.StatusNotFound, out)
		return
	}
	version, err := vaultVersionOf(req.r.URL.RawQuery)
	if err != nil {
		req.fail(err)
		return
	}
	ref := credref.Ref{Provider: provider, ID: path, Version: version}
	if def := req.state.kinds[provider]; def != nil && version != "" && def.Kind == "awssm" {
		req.fail(backend.Errorf(backend.CodeUnsupported, "the versions of this mount are not numbers"))
		return
	} else if def != nil && def.Kind == "vault" && def.Text("mount") == "" {
		ref.ID = mount + "/" + path
	}
	v, err := s.one(req, ref, resolver.Demand{})
	switch {
	case err != nil:
		req.fail(err)
		return
	case version != "" && v.Version() != version:
		req.fail(backend.Errorf(backend.CodeUnsupported, "the versions of this mount are not numbers"))
		return
	}
	if err := req.vaultSecret(v); err != nil {
		req.fail(err)
	}
}

// vaultVersionOf reads the query of a read: the version that it asks for, empty for the current one.
func vaultVersionOf(query string) (string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", bad(http.StatusBadRequest, "the query is not percent-encoded", "")
	}
	version := ""
	for name, given := range values {
		switch {
		case name == "list":
			return "", bad(http.StatusMethodNotAllowed, "", "")
		case name != "version" || len(given) > 1:
			return "", bad(http.StatusBadRequest, "the query has an unknown parameter, or one twice", "known: version")
		}
		n, err := strconv.ParseUint(given[0], 10, 31)
		if err != nil {
			return "", bad(http.StatusBadRequest, "version is not a number", "")
		}
		if n > 0 { // as Vault has it, 0 is the current one
			version = strconv.FormatUint(n, 10)
		}
	}
	return version, nil
}

// vaultSecret writes a version of a secret. What is no object becomes one with the key value.
func (req *request) vaultSecret(v *resolver.Value) error {
	fields := v.Fields()
	if len(fields) == 0 {
		fields = map[string]backend.Secret{"value": v.Secret()}
	}
	if err := allText(fields); err != nil {
		return err
	}
	data, err := backend.FieldsToJSON(fields)
	if err != nil {
		return err
	}
	defer clear(data)
	metadata := v.Metadata()
	out := slices.Grow(req.out[:0], 1024+len(data)+size(v))
	out = backend.AppendJSONString(append(out, `{"request_id":`...), req.id)
	out = append(append(out, `,"lease_id":"","renewable":false,"lease_duration":0,"data":{"data":`...), data...)
	out = append(out, `,"metadata":{"created_time":"`...)
	out = created(v, metadata).UTC().AppendFormat(out, time.RFC3339Nano)
	out = appendCustom(append(out, `","custom_metadata":`...), metadata)
	out = append(out, `,"deletion_time":"`...)
	if end := v.Expires(); !end.IsZero() {
		out = end.UTC().AppendFormat(out, time.RFC3339Nano)
	}
	out = strconv.AppendInt(append(out, `","destroyed":false,"version":`...), vaultNumber(v), 10)
	out = append(out, `}},"wrap_info":null,"warnings":`...)
	if v.Stale() {
		out = append(out, `["the store is unavailable: this value is past its time"]`...)
	} else {
		out = append(out, "null"...)
	}
	req.out = append(out, ",\"auth\":null}\n"...)
	req.write(http.StatusOK, req.out)
	return nil
}

// appendCustom appends what a store of the same kind tells as custom metadata, null for none.
func appendCustom(out []byte, metadata map[string]string) []byte {
	const prefix = "custom_metadata."
	begin := byte('{')
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		if key, ok := strings.CutPrefix(name, prefix); ok {
			out = append(backend.AppendJSONString(append(out, begin), key), ':')
			out = backend.AppendJSONString(out, metadata[name])
			begin = ','
		}
	}
	if begin == '{' {
		return append(out, "null"...)
	}
	return append(out, '}')
}

// vaultNumber is the number of a version: the store's, where that is one, else one that is another for each content.
func vaultNumber(v *resolver.Value) int64 {
	if n, err := strconv.ParseInt(v.Version(), 10, 64); err == nil && n > 0 {
		return n
	}
	n, _ := strconv.ParseInt(v.Revision()[:min(8, len(v.Revision()))], 16, 64)
	return max(n&0x7fffffff, 1)
}
