package resolver

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
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

// revision is the HMAC-SHA-256 of c's type, secret and sorted fields, cut to 128 bits. Every part is written with its
// length, so that no two contents are written alike.
func revision(key []byte, typ backend.Type, c *backend.Credential) string {
	h := hmac.New(sha256.New, key)
	writePart(h, string(typ))
	writeSecret(h, c.Secret)
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		writePart(h, name)
		writeSecret(h, c.Fields[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func writePart(h hash.Hash, s string) {
	writeLen(h, uint64(len(s)))
	_, _ = io.WriteString(h, s)
}

func writeSecret(h hash.Hash, s backend.Secret) {
	kind := byte(0)
	switch {
	case s.IsZero():
	case s.IsJSON():
		kind = 2
	default:
		kind = 1
	}
	_, _ = h.Write([]byte{kind})
	_ = s.Use(func(b []byte) error {
		writeLen(h, uint64(len(b)))
		_, _ = h.Write(b)
		return nil
	})
}

func writeLen(h hash.Hash, n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	_, _ = h.Write(b[:])
}
