package sealed

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver"
)

// header begins the plain text and names its version. Then come a number and as many entries. Numbers are varints; a text is
// its length and its bytes; a time is its Unix nanoseconds and 1, or 0 for none. JSON was not taken, since encoding/json makes
// strings, which cannot be zeroed.
const header = "credresolve sealed copy 1\n"

// Ways in which a secret stands in an entry.
const (
	secretNone = iota
	secretText
	secretJSON
)

// encode gives the plain text of rem, the newest first, and as many as limit bytes have room for. The caller zeroes it.
func encode(rem []resolver.Remembered, limit int64) (plain []byte, n int) {
	rem = slices.Clone(rem)
	slices.SortStableFunc(rem, func(a, b resolver.Remembered) int { return b.Fetched.Compare(a.Fetched) })
	size := int64(len(header) + binary.MaxVarintLen64)
	for ; n < len(rem); n++ {
		var w writer
		w.entry(&rem[n])
		if size+w.size > limit {
			break
		}
		size += w.size
	}
	w := writer{out: make([]byte, 0, size)} // never grown, which would leave a copy
	w.raw([]byte(header))
	w.number(uint64(n))
	for i := range rem[:n] {
		w.entry(&rem[i])
	}
	return w.out, n
}

// writer appends to out; the zero writer only counts.
type writer struct {
	out  []byte
	size int64
}

func (w *writer) raw(b []byte) {
	w.size += int64(len(b))
	if w.out != nil {
		w.out = append(w.out, b...)
	}
}

func (w *writer) number(n uint64) {
	var b [binary.MaxVarintLen64]byte
	w.raw(b[:binary.PutUvarint(b[:], n)])
}

func (w *writer) text(s string) {
	w.number(uint64(len(s)))
	w.raw([]byte(s))
}

func (w *writer) time(t time.Time) {
	if t.IsZero() {
		w.number(0)
		return
	}
	w.number(1)
	var b [binary.MaxVarintLen64]byte
	w.raw(b[:binary.PutVarint(b[:], t.UnixNano())])
}

func (w *writer) secret(s backend.Secret) {
	switch {
	case s.IsZero():
		w.number(secretNone)
		return
	case s.IsJSON():
		w.number(secretJSON)
	default:
		w.number(secretText)
	}
	_ = s.Use(func(b []byte) error {
		w.number(uint64(len(b)))
		w.raw(b)
		return nil
	})
}

func (w *writer) entry(r *resolver.Remembered) {
	c := r.Credential
	for _, s := range [...]string{
		r.Digest, r.Ref.Provider, r.Ref.ID, r.Ref.Version, r.Subject.Tenant, r.Subject.EndUser, r.Subject.Plugin,
		string(r.Type), string(c.Type), c.Version,
	} {
		w.text(s)
	}
	for _, t := range [...]time.Time{r.Fetched, r.Expires, c.Expires, c.RefreshAfter} {
		w.time(t)
	}
	w.secret(c.Secret)
	// In any order: the file differs each time anyway.
	w.number(uint64(len(c.Fields)))
	for name, field := range c.Fields {
		w.text(name)
		w.secret(field)
	}
	w.number(uint64(len(c.Metadata)))
	for name, value := range c.Metadata {
		w.text(name)
		w.text(value)
	}
}

var (
	errVersion = errors.New("another version")
	errForm    = errors.New("malformed")
)

// decode is the reverse of encode. It keeps nothing of plain, which the caller zeroes.
func decode(plain []byte) ([]resolver.Remembered, error) {
	if len(plain) < len(header) || string(plain[:len(header)]) != header {
		return nil, errVersion
	}
	r := reader{in: plain[len(header):]}
	n := r.count()
	out := make([]resolver.Remembered, 0, min(n, 4096))
	for range n {
		one := r.entry()
		if r.bad {
			return nil, errForm
		}
		out = append(out, one)
	}
	if r.bad || len(r.in) > 0 {
		return nil, errForm
	}
	return out, nil
}

// reader takes from in; once something is wrong, it gives zeros alone.
type reader struct {
	in  []byte
	bad bool
}

func (r *reader) fail() {
	r.in, r.bad = nil, true
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.in)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.in = r.in[size:]
	return n
}

// count reads how many bytes, or things of at least one byte, follow.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.in)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte {
	n := r.count()
	out := r.in[:n]
	r.in = r.in[n:]
	return out
}

func (r *reader) text() string { return string(r.bytes()) }

func (r *reader) time() time.Time {
	switch r.number() {
	case 0:
		return time.Time{}
	case 1:
		n, size := binary.Varint(r.in)
		if size <= 0 {
			break
		}
		r.in = r.in[size:]
		return time.Unix(0, n)
	}
	r.fail()
	return time.Time{}
}

func (r *reader) secret() backend.Secret {
	switch r.number() {
	case secretNone:
		return backend.Secret{}
	case secretText:
		return backend.NewSecret(r.bytes())
	case secretJSON:
		return backend.NewJSONSecret(r.bytes())
	}
	r.fail()
	return backend.Secret{}
}

func (r *reader) entry() resolver.Remembered {
	c := &backend.Credential{}
	out := resolver.Remembered{Credential: c}
	var typ, own string
	for _, s := range [...]*string{
		&out.Digest, &out.Ref.Provider, &out.Ref.ID, &out.Ref.Version, &out.Subject.Tenant, &out.Subject.EndUser, &out.Subject.Plugin,
		&typ, &own, &c.Version,
	} {
		*s = r.text()
	}
	out.Type, c.Type = backend.Type(typ), backend.Type(own)
	for _, t := range [...]*time.Time{&out.Fetched, &out.Expires, &c.Expires, &c.RefreshAfter} {
		*t = r.time()
	}
	c.Secret = r.secret()
	if n := r.count(); n > 0 {
		c.Fields = make(map[string]backend.Secret, min(n, 1024))
		for range n {
			name := r.text()
			c.Fields[name] = r.secret()
		}
	}
	if n := r.count(); n > 0 {
		c.Metadata = make(map[string]string, min(n, 1024))
		for range n {
			name := r.text()
			c.Metadata[name] = r.text()
		}
	}
	if !r.bad && cmp.Or(out.Ref.Validate(), out.Subject.Validate()) != nil {
		r.fail()
	}
	if r.bad {
		return resolver.Remembered{}
	}
	return out
}
