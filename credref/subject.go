package credref

import "context"

// Subject is whom a credential is for. The zero Subject is gateway-wide: for everybody. A subject comes from the
// context or from an authenticated session, never from a Ref, so that a document cannot name another's.
type Subject struct {
	Tenant  string
	EndUser string
	Session string
	Plugin  string
}

// IsZero reports whether s is the gateway-wide subject.
func (s Subject) IsZero() bool { return s == Subject{} }

// Validate reports the first part of s that is longer than MaxID bytes, no UTF-8 or holds a control character.
func (s Subject) Validate() error {
	for _, p := range [...]struct{ name, value string }{
		{"tenant", s.Tenant}, {"end user", s.EndUser}, {"session", s.Session}, {"plugin", s.Plugin},
	} {
		if err := validText(p.name, p.value, MaxID); err != nil {
			return err
		}
	}
	return nil
}

type subjectKey struct{}

// WithSubject returns a context under which credentials are resolved for s.
func WithSubject(ctx context.Context, s Subject) context.Context {
	return context.WithValue(ctx, subjectKey{}, s)
}

// SubjectFrom gives the subject of ctx, the zero Subject if it has none.
func SubjectFrom(ctx context.Context) Subject {
	s, _ := ctx.Value(subjectKey{}).(Subject)
	return s
}
