package resolver

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"

	"github.com/credresolve/credresolve/backend"
)

// NewRevisionKey gives a random key for Config.RevisionKey.
func NewRevisionKey() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	return key
}

// reviser makes revisions. It is kept, since its making costs more than its use. It is not safe for concurrent use.
type reviser struct {
	mac   hash.Hash
	buf   []byte // never holds a secret
	write func([]byte) error
}

// newReviser gives a reviser with a copy of key; an empty one stands for a random one.
func newReviser(key []byte) *reviser {
	if len(key) == 0 {
		key = NewRevisionKey()
	}
	v := &reviser{mac: hmac.New(sha256.New, key)}
	v.write = func(b []byte) error {
		v.buf = binary.BigEndian.AppendUint64(v.buf, uint64(len(b)))
		_, _ = v.mac.Write(v.buf)
		_, _ = v.mac.Write(b)
		return nil
	}
	return v
}

// revision is the HMAC-SHA-256 of c's type, secret and sorted fields, cut to 128 bits. Every part is written with its
// length, so that no two contents are written alike.
func (v *reviser) revision(typ backend.Type, c *backend.Credential) string {
	v.mac.Reset()
	v.text(string(typ))
	v.secret(c.Secret)
	if len(c.Fields) > 0 {
		for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
			v.text(name)
			v.secret(c.Fields[name])
		}
	}
	v.buf = v.mac.Sum(v.buf[:0])
	v.wipe()
	return hex.EncodeToString(v.buf[:16])
}

// wipe overwrites the block that a hash keeps of what was written last, a secret. The first byte makes it keep the others,
// too, and not hash them in place.
func (v *reviser) wipe() {
	var zero [sha256.BlockSize]byte
	v.mac.Reset()
	_, _ = v.mac.Write(zero[:1])
	_, _ = v.mac.Write(zero[1:])
}

func (v *reviser) text(s string) {
	v.buf = binary.BigEndian.AppendUint64(v.buf[:0], uint64(len(s)))
	v.buf = append(v.buf, s...)
	_, _ = v.mac.Write(v.buf)
}

func (v *reviser) secret(s backend.Secret) {
	kind := byte(0)
	switch {
	case s.IsZero():
	case s.IsJSON():
		kind = 2
	default:
		kind = 1
	}
	v.buf = append(v.buf[:0], kind)
	_ = s.Use(v.write)
}
