package keychain

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// isQuery reports whether id is a query over attributes rather than an account.
func isQuery(id string) bool { return strings.HasPrefix(id, "?") }

// parseQuery gives the attributes that an id of the form "?attribute=value&attribute=value" names. It is as strict as it
// can be: what is not understood would match other items.
func parseQuery(id string) (map[string]string, error) {
	attributes := make(map[string]string)
	for pair := range strings.SplitSeq(strings.TrimPrefix(id, "?"), "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, errQuery
		}
		name, err := url.PathUnescape(name)
		if err != nil || name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, isControl) {
			return nil, errQuery
		}
		if value, err = url.PathUnescape(value); err != nil || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return nil, errQuery
		}
		if _, twice := attributes[name]; twice {
			return nil, errQuery
		}
		attributes[name] = value
	}
	return attributes, nil
}
