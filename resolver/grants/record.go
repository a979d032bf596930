package grants

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// state is what a record says of its grant.
type state string

const (
	stateActive       state = "active"
	stateRefreshing   state = "refreshing"    // an exchange began
	stateAuthRequired state = "auth_required" // no exchange is made until somebody logs in
)

// record is what is kept of one grant.
type record struct {
	key
	facts
	cred    *backend.Credential
	refresh backend.Secret
	version string // the store's, of what was read or written last
}

// facts are the part of a record that is not secret.
type facts struct {
	Provider string          `json:"provider"`
	ID       string          `json:"id"`
	Subject  backend.Subject `json:"subject,omitzero"`
	// Binding says with what server the grant was made. It is sent to no other.
	Binding string `json:"binding,omitempty"`
	State   state  `json:"state"`
	// Generation is a random name of the grant's content: of one login or refresh.
	Generation string `json:"generation"`
	Sequence   int64  `json:"sequence"` // how often it was refreshed
	Reason     string `json:"reason,omitempty"`

	About        map[string]string `json:"about,omitempty"`
	Type         backend.Type      `json:"type,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Version      string            `json:"version,omitempty"` // of the credential
	Expires      time.Time         `json:"expires,omitzero"`
	RefreshAfter time.Time         `json:"refresh_after,omitzero"`
	LoggedIn     time.Time         `json:"logged_in,omitzero"`
	Obtained     time.Time         `json:"obtained,omitzero"` // by login or refresh

	Attempt *attempt `json:"attempt,omitempty"` // the exchange that began, in stateRefreshing
	// Interrupted is when an exchange began of which nobody knows how it ended; zero when none did since the last success.
	Interrupted time.Time `json:"interrupted,omitzero"`
	// Unanswered is when an exchange failed that the server may have made; zero when none did since the last success.
	Unanswered    time.Time    `json:"unanswered,omitzero"`
	Failures      int          `json:"failures,omitempty"` // exchanges that failed, in a row
	Failure       backend.Code `json:"failure,omitempty"`  // of the last
	FailureReason string       `json:"failure_reason,omitempty"`
	FailureRemedy string       `json:"failure_remedy,omitempty"`
	Failed        time.Time    `json:"failed,omitzero"`     // when it was
	NotBefore     time.Time    `json:"not_before,omitzero"` // the server asked to wait
	Ended         bool         `json:"ended,omitempty"`     // the credential is not given any more
	Revoked       time.Time    `json:"revoked,omitzero"`    // when the login was; its server is to be told still
	Same          []string     `json:"same,omitempty"`      // fields that are the secret again
}

// attempt is an exchange under way: a lease of the record.
type attempt struct {
	Owner string    `json:"owner"` // a process: host and random number
	Host  string    `json:"host"`
	PID   int       `json:"pid"` // there
	Began time.Time `json:"began"`
	Until time.Time `json:"until"`           // the owner gives up then, by its clock
	Again bool      `json:"again,omitempty"` // it follows one that was interrupted
}

// is reports whether b is a, as it was written.
func (a *attempt) is(b *attempt) bool {
	return a != nil && b != nil && a.Owner == b.Owner && a.Began.Equal(b.Began)
}

// The members of the document. A secret that is no UTF-8 stands as base64 under a name with the suffix.
const (
	memberFormat  = "credresolve_login"
	memberFacts   = "facts"
	memberSecret  = "secret"
	memberFields  = "fields"
	memberRefresh = "refresh"
	suffixBase64  = "_base64"

	format = "1" // the version of the document that this program writes, and the only one that it reads
)

func newRecord(k key, binding string, g *backend.Grant, now time.Time) *record {
	r := &record{key: k, refresh: g.Refresh}
	r.facts = facts{Provider: k.provider, ID: k.req.ID, Subject: k.req.Subject, Binding: binding, State: stateActive, LoggedIn: now.Round(0)}
	r.take(g, now)
	return r
}

// take makes g the content of r.
func (r *record) take(g *backend.Grant, now time.Time) {
	c := g.Credential
	r.refresh = g.Refresh
	r.Generation, r.Obtained = rand.Text(), now.Round(0) // by the wall clock, which goes on while the machine sleeps
	r.About, r.Type, r.Metadata, r.Version = maps.Clone(g.About), c.Type, maps.Clone(c.Metadata), c.Version
	r.Expires, r.RefreshAfter = c.Expires.Round(0), c.RefreshAfter.Round(0)
	if r.Expires.IsZero() && c.Lease != nil && c.Lease.Duration > 0 {
		r.Expires = r.Obtained.Add(c.Lease.Duration)
	}
	r.State, r.Reason, r.Attempt, r.Ended = stateActive, "", nil, false
	if !r.Interrupted.IsZero() {
		r.Reason = "the refresh that began at " + at(r.Interrupted) + " was interrupted; the next one succeeded"
	}
	r.Interrupted, r.Unanswered, r.NotBefore = time.Time{}, time.Time{}, time.Time{}
	r.Failures, r.Failure, r.FailureReason, r.FailureRemedy, r.Failed = 0, "", "", "", time.Time{}
	r.cred = &backend.Credential{
		Type: r.Type, Secret: c.Secret, Fields: maps.Clone(c.Fields), Version: r.Version, Expires: r.Expires, RefreshAfter: r.RefreshAfter, Metadata: r.Metadata,
	}
}

// grant is what an adapter gets.
func (r *record) grant() *backend.Grant {
	return &backend.Grant{Credential: r.cred, Refresh: r.refresh, About: maps.Clone(r.About)}
}

func (r *record) clone() *record {
	out := *r
	return &out
}

// encode gives the document, which the caller zeroes.
func (r *record) encode() ([]byte, error) {
	f := r.facts
	f.Same = nil
	doc := map[string]backend.Secret{memberFormat: backend.NewJSONSecret([]byte(format))}
	put(doc, memberSecret, r.cred.Secret)
	put(doc, memberRefresh, r.refresh)
	if r.cred.Fields != nil {
		text, binary := map[string]backend.Secret{}, map[string]backend.Secret{}
		for name, v := range r.cred.Fields {
			switch {
			case !r.cred.Secret.IsZero() && v.Equal(r.cred.Secret):
				f.Same = append(f.Same, name)
			case isText(v):
				text[name] = v
			default:
				binary[name] = toBase64(v)
			}
		}
		slices.Sort(f.Same)
		for member, fields := range map[string]map[string]backend.Secret{memberFields: text, memberFields + suffixBase64: binary} {
			if len(fields) == 0 && member != memberFields {
				continue
			}
			object, err := backend.FieldsToJSON(fields)
			if err != nil {
				return nil, err
			}
			doc[member] = backend.NewJSONSecret(object)
			clear(object)
		}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	doc[memberFacts] = backend.NewJSONSecret(text)
	return backend.FieldsToJSON(doc)
}

func put(doc map[string]backend.Secret, member string, v backend.Secret) {
	switch {
	case v.IsZero():
	case isText(v):
		doc[member] = v
	default:
		doc[member+suffixBase64] = toBase64(v)
	}
}

func isText(v backend.Secret) (is bool) {
	_ = v.Use(func(b []byte) error { is = utf8.Valid(b); return nil })
	return is
}

func toBase64(v backend.Secret) (coded backend.Secret) {
	_ = v.Use(func(b []byte) error {
		text := base64.StdEncoding.AppendEncode(make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))), b)
		coded = backend.NewSecret(text)
		clear(text)
		return nil
	})
	return coded
}

func fromBase64(v backend.Secret) (plain backend.Secret, err error) {
	err = v.Use(func(b []byte) error {
		text := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
		defer clear(text)
		n, err := base64.StdEncoding.Strict().Decode(text, b)
		if err == nil {
			plain = backend.NewSecret(text[:n])
		}
		return err
	})
	return plain, err
}

// decode reads the document that is kept for k.
func decode(k key, text []byte) (*record, error) {
	doc, ok := backend.FieldsFromJSON(text)
	if !ok {
		return nil, k.damaged("is damaged")
	}
	switch v := doc[memberFormat]; {
	case v.IsZero():
		return nil, k.damaged("is not what this program has put there")
	case !v.Equal(backend.NewJSONSecret([]byte(format))):
		return nil, k.damaged("has the form of another version of this program")
	}
	r := &record{key: k}
	if err := doc[memberFacts].Use(func(b []byte) error { return json.Unmarshal(b, &r.facts) }); err != nil {
		return nil, k.damaged("is damaged")
	}
	if r.Provider != k.provider || r.ID != k.req.ID || r.Subject != k.req.Subject {
		return nil, k.damaged("is that of another")
	}
	r.cred = &backend.Credential{Type: r.Type, Version: r.Version, Expires: r.Expires, RefreshAfter: r.RefreshAfter, Metadata: r.Metadata}
	if !r.fill(doc) {
		return nil, k.damaged("is damaged")
	}
	return r, nil
}

// fill takes the secrets of doc, and reports whether the record is whole.
func (r *record) fill(doc map[string]backend.Secret) bool {
	for member, to := range map[string]*backend.Secret{memberSecret: &r.cred.Secret, memberRefresh: &r.refresh} {
		*to = doc[member]
		if coded, ok := doc[member+suffixBase64]; ok {
			var err error
			if *to, err = fromBase64(coded); err != nil {
				return false
			}
		}
	}
	if text, ok := doc[memberFields]; ok {
		if r.cred.Fields, ok = fieldsOf(text); !ok {
			return false
		}
		if coded, ok := doc[memberFields+suffixBase64]; ok {
			binary, ok := fieldsOf(coded)
			if !ok {
				return false
			}
			for name, v := range binary {
				plain, err := fromBase64(v)
				if err != nil {
					return false
				}
				r.cred.Fields[name] = plain
			}
		}
		for _, name := range r.Same {
			r.cred.Fields[name] = r.cred.Secret
		}
	}
	switch r.State {
	case stateActive, stateAuthRequired:
	case stateRefreshing:
		if r.Attempt == nil {
			return false
		}
	default:
		return false
	}
	return r.Generation != "" && (!r.cred.Secret.IsZero() || r.cred.Fields != nil)
}

func fieldsOf(object backend.Secret) (fields map[string]backend.Secret, ok bool) {
	_ = object.Use(func(b []byte) error { fields, ok = backend.FieldsFromJSON(b); return nil })
	return fields, ok
}
