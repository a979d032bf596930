package grants

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"

	"github.com/credresolve/credresolve/backend"
)

// key names a grant.
type key struct {
	provider string
	req      backend.Request // ID and Subject alone
}

func (k key) String() string {
	if strings.ContainsFunc(k.req.ID, unicode.IsControl) { // it is shown on terminals
		return k.provider + "/" + strconv.Quote(k.req.ID)
	}
	return k.provider + "/" + k.req.ID
}

const maxPart = 100 // bytes of an escaped part of an id in the store

// id is under what the grant is kept: prefix/provider/id, and behind the id what the subject has, as in
// credresolve/github/me+tenant=acme. No two grants have the same, also where a store does not tell upper from lower case, and
// none leaves the prefix.
func (k key) id(prefix string) string {
	var b strings.Builder
	b.WriteString(prefix)
	b.WriteByte('/')
	b.WriteString(k.provider)
	b.WriteByte('/')
	b.WriteString(escape(k.req.ID))
	s := k.req.Subject
	for _, part := range [...]struct{ name, value string }{
		{"tenant", s.Tenant}, {"end_user", s.EndUser}, {"session", s.Session}, {"plugin", s.Plugin},
	} {
		if part.value != "" {
			b.WriteString("+" + part.name + "=" + escape(part.value))
		}
	}
	return b.String()
}

// escape leaves lower-case letters, digits, "@", "-" and inner dots as they are. It writes "_" as "__", an upper-case letter
// as "_u" and the lower-case one, any other byte as "_" and two hexadecimal digits, and what is too long as its beginning, "_h"
// and a digest.
func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '@', c == '-', c == '.' && i > 0 && i < len(s)-1:
			b.WriteByte(c)
		case c == '_':
			b.WriteString("__")
		case c >= 'A' && c <= 'Z':
			b.WriteString("_u")
			b.WriteByte(c + 'a' - 'A')
		default:
			b.WriteString("_" + hex.EncodeToString([]byte{c}))
		}
	}
	out := b.String()
	if len(out) <= maxPart {
		return out
	}
	sum := sha256.Sum256([]byte(s))
	// What is cut may end within an escape: that only has to be readable, the digest tells it apart.
	return strings.TrimRight(out[:maxPart-36], "_.") + "_h" + hex.EncodeToString(sum[:16])
}

// lockName names the lock of the grant that is kept under id.
func lockName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "login-" + hex.EncodeToString(sum[:12])
}
