package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// versionInfo is what a key-value engine of version 2 tells of one version.
type versionInfo struct {
	CreatedTime    string            `json:"created_time"`
	DeletionTime   string            `json:"deletion_time"`
	Destroyed      bool              `json:"destroyed"`
	Version        int64             `json:"version"`
	CustomMetadata map[string]string `json:"custom_metadata"`
}

// deletion is when the version is or was deleted; zero: it is not to be.
func (v versionInfo) deletion() time.Time {
	at, err := time.Parse(time.RFC3339Nano, v.DeletionTime)
	if err != nil {
		return time.Time{}
	}
	return at
}

// gone is the error of a version without a value, nil when it has one.
func (v versionInfo) gone(id string, n int64) error {
	switch {
	case v.Destroyed:
		return backend.Errorf(backend.CodeNotFound, "version %d of %s was destroyed", n, id)
	case v.DeletionTime != "" && !v.deletion().After(time.Now()):
		return &backend.Error{Code: backend.CodeNotFound, Reason: "version " + strconv.FormatInt(n, 10) + " of " + id + " was deleted",
			Remedy: "it can come back with: vault kv undelete"}
	}
	return nil
}

// parseVersion reads a version of the store. One that is no positive number does not exist.
func parseVersion(id, version string) (int64, error) {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != version {
		return 0, backend.Errorf(backend.CodeNotFound, "%s has no such version: versions of kv version 2 are numbers from 1", id)
	}
	return n, nil
}

// getV2 reads a secret of a key-value engine of version 2.
func (b *Backend) getV2(ctx context.Context, p place, version string) (*backend.Credential, error) {
	query := url.Values{}
	if version != "" {
		if _, err := parseVersion(p.id, version); err != nil {
			return nil, err
		}
		query.Set("version", version)
	}
	a, err := b.do(ctx, call{method: http.MethodGet, path: p.path + "data/" + p.rest, query: query})
	if err != nil {
		return nil, err
	}
	defer a.wipe()
	var data struct {
		Data     json.RawMessage `json:"data"`
		Metadata versionInfo     `json:"metadata"`
	}
	defer func() { clear(data.Data) }()
	if len(a.Data) > 0 && json.Unmarshal(a.Data, &data) != nil {
		return nil, b.garbled(p.id)
	}
	if a.status == http.StatusNotFound {
		return nil, b.missingV2(a, p, version, data.Metadata)
	}
	if err := b.failure(a, p.id); err != nil {
		return nil, err
	}
	if err := data.Metadata.gone(p.id, data.Metadata.Version); err != nil {
		return nil, err // a future deletion time may have come since the server looked
	}
	fields, ok := backend.FieldsFromJSON(data.Data)
	if !ok || data.Metadata.Version < 1 {
		return nil, b.garbled(p.id)
	}
	c := &backend.Credential{
		Fields:   fields,
		Version:  strconv.FormatInt(data.Metadata.Version, 10),
		Expires:  data.Metadata.deletion(),
		Metadata: map[string]string{"created_time": data.Metadata.CreatedTime},
	}
	for name, value := range data.Metadata.CustomMetadata {
		c.Metadata["custom_metadata."+name] = value
	}
	return c, nil
}

// missingV2 says what of a secret is not there.
func (b *Backend) missingV2(a *answer, p place, version string, info versionInfo) error {
	if a.says("no handler for route") {
		return b.failure(a, p.id)
	}
	if err := info.gone(p.id, info.Version); err != nil {
		return err
	}
	e := backend.Errorf(backend.CodeNotFound, "there is no secret %s", p.id)
	if version != "" {
		e.Reason = "there is no secret " + p.id + ", or it has no version " + version
	}
	for _, part := range [...]string{"data/", "metadata/"} {
		if rest, ok := strings.CutPrefix(p.rest, part); ok {
			e.Remedy = "ids leave out " + part + ": try " + strings.TrimSuffix(p.id, p.rest) + rest
		}
	}
	return e
}

// getPlain reads any path that answers to a read: a secret of a key-value engine of version 1, a dynamic credential.
func (b *Backend) getPlain(ctx context.Context, p place) (*backend.Credential, error) {
	s, err := b.session(ctx)
	if err != nil {
		return nil, err
	}
	a, s, err := b.doWith(ctx, s, call{method: http.MethodGet, path: p.path + p.rest})
	if err != nil {
		return nil, err
	}
	defer a.wipe()
	for _, w := range a.Warnings {
		if a.status == http.StatusNotFound && strings.Contains(w, "versioned K/V") {
			return nil, errBlindV2
		}
	}
	if err := b.failure(a, p.id); err != nil {
		return nil, err
	}
	fields, ok := backend.FieldsFromJSON(a.Data)
	if !ok {
		return nil, backend.Errorf(backend.CodeNotFound, "nothing to read at %s", p.id)
	}
	c := &backend.Credential{Fields: fields, Type: typeOf(p.engine, fields)}
	life := time.Duration(a.LeaseDuration) * time.Second
	switch {
	case a.LeaseID != "":
		lease := b.leases.took(backend.Lease{ID: a.LeaseID, Duration: life, Renewable: a.Renewable}, s)
		c.Lease, c.Expires = &lease, a.sent.Add(lease.Duration)
	case p.version == 1 && life > 0:
		// Without a lease it is only advice: how soon to look again.
		c.RefreshAfter = a.sent.Add(life)
	case p.engine == "database" && strings.HasPrefix(p.rest, "static-creds/"):
		c.Expires = a.sent.Add(secondsOf(fields["ttl"]))
	}
	return c, nil
}

// typeOf tells the type of a dynamic credential from its engine, where its fields bear that out.
func typeOf(engine string, fields map[string]backend.Secret) backend.Type {
	for _, t := range [...]struct {
		engine string
		fields []string
		is     backend.Type
	}{
		{"database", []string{"username", "password"}, backend.TypeBasic},
		{"ldap", []string{"username", "password"}, backend.TypeBasic},
		{"aws", []string{"access_key", "secret_key"}, backend.TypeAWS},
		{"pki", []string{"certificate"}, backend.TypeCertificate},
	} {
		if t.engine == engine && !slices.ContainsFunc(t.fields, func(f string) bool { return fields[f].IsZero() }) {
			return t.is
		}
	}
	return ""
}

// secondsOf reads a field that is a number of seconds; zero when it is none.
func secondsOf(s backend.Secret) time.Duration {
	var n int64
	_ = s.Use(func(text []byte) error { n, _ = strconv.ParseInt(string(text), 10, 32); return nil })
	return time.Duration(n) * time.Second
}

// CurrentVersion implements backend.Checker by the metadata of kv version 2.
func (b *Backend) CurrentVersion(ctx context.Context, req backend.Request) (string, error) {
	p, err := b.locate(ctx, req.ID)
	if err != nil {
		return "", err
	}
	if p.version != 2 {
		if req.Version != "" {
			return "", errNoVersions
		}
		return "", errNoCheck
	}
	n, err := b.currentV2(ctx, p, req.Version)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(n, 10), nil
}

// currentV2 gives the number of the current version, or of the one asked for. It fails as getV2 would, except for a
// policy that may not read metadata: that is ErrUnsupported.
func (b *Backend) currentV2(ctx context.Context, p place, version string) (int64, error) {
	a, err := b.do(ctx, call{method: http.MethodGet, path: p.path + "metadata/" + p.rest})
	if err != nil {
		return 0, err
	}
	switch a.status {
	case http.StatusForbidden:
		return 0, errNoCheck
	case http.StatusNotFound:
		return 0, b.missingV2(a, p, version, versionInfo{})
	}
	if err := b.failure(a, p.id); err != nil {
		return 0, err
	}
	var data struct {
		CurrentVersion int64                  `json:"current_version"`
		Versions       map[string]versionInfo `json:"versions"`
	}
	if json.Unmarshal(a.Data, &data) != nil {
		return 0, b.garbled(p.id)
	}
	n := data.CurrentVersion
	if version != "" {
		if n, err = parseVersion(p.id, version); err != nil {
			return 0, err
		}
	}
	info, ok := data.Versions[strconv.FormatInt(n, 10)]
	if !ok { // metadata can be written before the first version is
		return 0, b.missingV2(a, p, version, versionInfo{})
	}
	return n, info.gone(p.id, n)
}

// Strength implements backend.Writer: kv version 2 compares by itself, version 1 cannot.
func (b *Backend) Strength() backend.Strength {
	if b.settings.KVVersion == 1 {
		return backend.StrengthNone
	}
	return backend.StrengthStore
}

// Put implements backend.Writer. A plain secret is stored as the field "value".
func (b *Backend) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	if req.Version != "" {
		return "", errPinned
	}
	p, err := b.locateToWrite(ctx, req.ID)
	if err != nil {
		return "", err
	}
	fields := maps.Clone(v.Fields)
	if fields == nil {
		fields = map[string]backend.Secret{"value": v.Secret}
	}
	body, err := jsonBody(fields)
	if err != nil {
		return "", err
	}
	defer clear(body)
	if p.version == 2 && !keepsNumbers(body) {
		return "", errNumber
	}
	switch {
	case p.version == 2:
		return b.putV2(ctx, p, body, cond)
	case p.path == "":
		// The server does not tell of a mount that is missing, nor of one that no policy is for.
		return "", backend.Errorf(backend.CodeDenied, "no policy of the login is for %s, or no secrets engine is mounted there", p.id)
	case p.version != 1:
		return "", errNoKV
	case cond != backend.Condition{}:
		return "", errV1Condition
	}
	a, err := b.do(ctx, call{method: http.MethodPut, path: p.path + p.rest, body: body})
	if err != nil {
		return "", err
	}
	return "", b.failure(a, p.id)
}

// keepsNumbers reports whether kv version 2 gives the numbers of a JSON text back as they are: it reads them as 64-bit
// floating point (version 1 does not).
func keepsNumbers(text []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	for {
		token, err := dec.Token()
		if err != nil {
			return err == io.EOF
		}
		if n, ok := token.(json.Number); ok {
			f, err := n.Float64()
			if again, _ := json.Marshal(f); err != nil || string(again) != n.String() {
				return false
			}
		}
	}
}

func (b *Backend) putV2(ctx context.Context, p place, data []byte, cond backend.Condition) (string, error) {
	switch {
	case cond.Version != "":
		n, err := parseVersion(p.id, cond.Version)
		if err != nil {
			return "", errChanged
		}
		// A deletion leaves the number of the current version as it is, and check-and-set does not see it: look.
		if current, err := b.currentV2(ctx, p, ""); err == nil && current != n || errors.Is(err, backend.ErrNotFound) {
			return "", errChanged
		} else if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return "", err
		}
		return b.casV2(ctx, p, data, n)
	case cond.Absent:
		version, err := b.casV2(ctx, p, data, 0)
		if !errors.Is(err, backend.ErrConflict) {
			return version, err
		}
		// A deleted secret is absent too, but keeps its number: set it against that.
		n, absent, err := b.deletedV2(ctx, p)
		if err != nil {
			return "", err
		}
		if !absent {
			return "", errExists
		}
		if version, err = b.casV2(ctx, p, data, n); errors.Is(err, backend.ErrConflict) {
			return "", errExists // somebody was faster
		}
		return version, err
	}
	return b.casV2(ctx, p, data, -1)
}

// casV2 writes data if the current version is that one, 0 for none; always when it is negative.
func (b *Backend) casV2(ctx context.Context, p place, data []byte, version int64) (string, error) {
	body := append(make([]byte, 0, len(data)+64), `{"options":{`...)
	if version >= 0 {
		body = append(strconv.AppendInt(append(body, `"cas":`...), version, 10), `},"data":`...)
	} else {
		body = append(body, `},"data":`...)
	}
	body = append(append(body, data...), '}')
	defer clear(body)
	a, err := b.do(ctx, call{method: http.MethodPut, path: p.path + "data/" + p.rest, body: body})
	if err != nil {
		return "", err
	}
	if err := b.failure(a, p.id); err != nil {
		if errors.Is(err, backend.ErrConflict) {
			return "", errChanged
		}
		return "", err
	}
	var made versionInfo
	if json.Unmarshal(a.Data, &made) != nil || made.Version < 1 {
		return "", b.garbled(p.id)
	}
	return strconv.FormatInt(made.Version, 10), nil
}

// deletedV2 reports whether the current version is deleted or destroyed, and its number.
func (b *Backend) deletedV2(ctx context.Context, p place) (int64, bool, error) {
	a, err := b.do(ctx, call{method: http.MethodGet, path: p.path + "data/" + p.rest})
	if err != nil {
		return 0, false, err
	}
	defer a.wipe()
	if a.status == http.StatusForbidden {
		return 0, false, nil // a policy that may only write cannot tell a deleted secret from one that is there
	}
	if a.status != http.StatusNotFound {
		return 0, false, b.failure(a, p.id)
	}
	var data struct {
		Metadata versionInfo `json:"metadata"`
	}
	if len(a.Data) > 0 && json.Unmarshal(a.Data, &data) != nil {
		return 0, false, b.garbled(p.id)
	}
	return data.Metadata.Version, true, nil
}

// Delete implements backend.Writer. Of kv version 2 it deletes the current version, which can be undeleted.
func (b *Backend) Delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	if req.Version != "" {
		return errPinned
	}
	p, err := b.locateToWrite(ctx, req.ID)
	if err != nil {
		return err
	}
	switch {
	case p.version == 2:
		return b.deleteV2(ctx, p, cond)
	case p.path == "":
		return backend.Errorf(backend.CodeDenied, "no policy of the login is for %s, or no secrets engine is mounted there", p.id)
	case p.version != 1:
		return errNoKV
	case cond != backend.Condition{}:
		return errV1Condition
	}
	// Version 1 deletes what is not there without a word.
	if _, err := b.getPlain(ctx, p); err != nil && !errors.Is(err, backend.ErrDenied) {
		return err
	}
	return b.delete(ctx, p, p.path+p.rest)
}

func (b *Backend) deleteV2(ctx context.Context, p place, cond backend.Condition) error {
	// Version 2 deletes what is not there without a word, too.
	n, err := b.currentV2(ctx, p, "")
	if errors.Is(err, errors.ErrUnsupported) {
		var c *backend.Credential
		if c, err = b.getV2(ctx, p, ""); err == nil {
			n, err = parseVersion(p.id, c.Version)
		}
	}
	switch {
	case errors.Is(err, backend.ErrDenied) && cond == backend.Condition{}:
		return b.delete(ctx, p, p.path+"data/"+p.rest) // a policy that may only delete
	case err != nil:
		return err
	case cond.Absent:
		return errExists
	case cond.Version == "":
		return b.delete(ctx, p, p.path+"data/"+p.rest)
	case cond.Version != strconv.FormatInt(n, 10):
		return errChanged
	}
	// There is no check-and-set for a deletion. But to delete this one version by its number leaves alone whatever
	// somebody else writes meanwhile.
	a, err := b.do(ctx, call{method: http.MethodPut, path: p.path + "delete/" + p.rest, body: []byte(`{"versions":[` + cond.Version + `]}`)})
	if err != nil {
		return err
	}
	return b.failure(a, p.id)
}

func (b *Backend) delete(ctx context.Context, p place, path string) error {
	a, err := b.do(ctx, call{method: http.MethodDelete, path: path})
	if err != nil {
		return err
	}
	return b.failure(a, p.id)
}
