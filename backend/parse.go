package backend

import "context"

// Parser is a Backend that recognises credential files which other programs wrote.
type Parser interface {
	Backend
	// ParseFile reads content, found under name, and reports whether it is of a form that this backend knows. The
	// credentials' Metadata tell them apart.
	ParseFile(ctx context.Context, name string, content Secret) (found []*Credential, known bool, err error)
}

// ParseFile asks b for the credentials in content; a b that is no Parser knows no file.
func ParseFile(ctx context.Context, b Backend, name string, content Secret) (found []*Credential, known bool, err error) {
	if p, ok := b.(Parser); ok {
		return p.ParseFile(ctx, name, content)
	}
	return nil, false, nil
}
