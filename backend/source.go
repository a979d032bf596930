package backend

import "context"

// Source is a secret-valued setting of an adapter: a literal, or a ref that is resolved when the adapter asks. An adapter
// asks at each login, never when it is opened, and keeps nothing of what it got. The zero Source is a setting that was
// not made.
type Source struct {
	get     func(context.Context) (Secret, string, error)
	reject  func(revision string)
	literal bool
	of      string
}

// Literal gives a Source of a secret that stands in the configuration itself.
func Literal(s Secret) Source {
	return Source{literal: true, get: func(context.Context) (Secret, string, error) { return s, "", nil }}
}

// NewSource gives a Source that asks get, and tells reject of a revision that the store refused; reject may be nil. Both
// must be safe for concurrent use.
func NewSource(get func(context.Context) (secret Secret, revision string, err error), reject func(revision string)) Source {
	return Source{get: get, reject: reject}
}

// IsZero reports whether the setting was not made.
func (s Source) IsZero() bool { return s.get == nil }

// IsLiteral reports whether the secret stands in the configuration itself.
func (s Source) IsLiteral() bool { return s.literal }

// Get gives the secret and its revision, which is opaque and empty for a literal. The zero Source gives the zero Secret.
func (s Source) Get(ctx context.Context) (secret Secret, revision string, err error) {
	if s.get == nil {
		return Secret{}, "", nil
	}
	return s.get(ctx)
}

// Reject tells that the store refused the secret of that revision, so that the next Get gives a newer one if there is.
func (s Source) Reject(revision string) {
	if s.reject != nil {
		s.reject(revision)
	}
}

// Of gives s with a name for the secret that it is a field of, so that GetAll knows which belong to one.
func (s Source) Of(secret string) Source {
	s.of = secret
	return s
}

// GetAll gives the secrets of sources that belong together, such as the parts of an access key, with their revisions. Fields of one
// secret, by Of, are of one revision of it: where it changed in between they are read again, and ErrUnavailable tells that it
// changes all the time. at is the place in sources of the one that failed.
func GetAll(ctx context.Context, sources ...Source) (secrets []Secret, revisions []string, at int, err error) {
	for range 5 {
		secrets, revisions = make([]Secret, len(sources)), make([]string, len(sources))
		seen, mixed := map[string]string{}, false
		for i, s := range sources {
			if secrets[i], revisions[i], err = s.Get(ctx); err != nil {
				return nil, nil, i, err
			}
			if s.of == "" {
				continue
			}
			first, known := seen[s.of]
			mixed = mixed || known && first != revisions[i]
			seen[s.of] = revisions[i]
		}
		if !mixed {
			return secrets, revisions, 0, nil
		}
	}
	return nil, nil, 0, Errorf(CodeUnavailable, "it changes all the time")
}
