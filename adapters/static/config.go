package static

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// Config are the settings of a provider of kind static.
type Config struct {
	// Type is the type of the credentials: api_key or user_value. Empty: api_key.
	Type string `yaml:"type" jsonschema:"enum=api_key,enum=user_value"`
	// Fields are what a person enters, in this order, at most 64, not all of them optional. Empty: one, "value".
	Fields []Field `yaml:"fields"`
	// Check is a request that tells whether a service accepts what was entered. Zero: nothing is checked.
	Check Check `yaml:"check"`
}

// Field is one field of the form.
type Field struct {
	// Name is the field of the credential: letters, digits, - and _, at most 64. It must be set.
	Name string `yaml:"name"`
	// Label is what a person is asked for. Empty: the name.
	Label string `yaml:"label"`
	// Secret: it is not shown while it is entered. Not set: true.
	Secret *bool `yaml:"secret"`
	// Help says in one line where it is found. Empty: nothing.
	Help string `yaml:"help"`
	// URL is a page that tells more, or where the value is made. Empty: none.
	URL string `yaml:"url"`
	// Optional: it may be left empty.
	Optional bool `yaml:"optional"`
}

// Check is an HTTP request with what was entered.
type Check struct {
	// URL is the https URL that is asked; http is taken for this machine alone. Empty: nothing is checked.
	URL string `yaml:"url"`
	// Method is GET, HEAD or POST. Empty: GET.
	Method string `yaml:"method" jsonschema:"enum=GET,enum=HEAD,enum=POST"`
	// Headers are sent; {name} in a value stands for the field of that name, as in "Bearer {value}". A header with a field that
	// was left empty is not.
	Headers map[string]string `yaml:"headers"`
	// Status are the statuses of an answer that accepts. Empty: 200 to 299.
	Status []int `yaml:"status"`
	// Timeout bounds the request. Zero: 10s.
	Timeout time.Duration `yaml:"timeout"`
}

const (
	onlyField      = "value"
	maxFields      = 64
	defaultTimeout = 10 * time.Second
)

// Reach implements backend.Reacher.
func (c Config) Reach() []backend.Reach {
	if c.Check.URL == "" {
		return []backend.Reach{}
	}
	return []backend.Reach{{What: backend.ReachAddress, Value: c.Check.URL}}
}

// Kind is the kind "static" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("static", "what a person enters once: API keys and other values",
		func(c Config, h backend.Host) (backend.Backend, error) {
			b, err := New(c, h)
			if err != nil {
				return nil, err
			}
			return b, nil
		})
}

// settle checks c and fills its gaps.
func (c *Config) settle() error {
	invalid := func(format string, args ...any) error {
		return backend.Errorf(backend.CodeInvalidConfig, format, args...)
	}
	switch c.Type {
	case "":
		c.Type = string(backend.TypeAPIKey)
	case string(backend.TypeAPIKey), string(backend.TypeUserValue):
	default:
		return invalid("type is neither api_key nor user_value")
	}
	if c.Fields = slices.Clone(c.Fields); len(c.Fields) == 0 {
		c.Fields = []Field{{Name: onlyField}}
	}
	if len(c.Fields) > maxFields {
		return invalid("there are over %d fields", maxFields)
	}
	if !slices.ContainsFunc(c.Fields, func(f Field) bool { return !f.Optional }) {
		return invalid("every field is optional: a login without anything would be kept")
	}
	names := map[string]bool{}
	for _, f := range c.Fields {
		switch {
		case !isName(f.Name):
			return invalid("the name of a field is not 1 to 64 letters, digits, - or _")
		case names[f.Name]:
			return invalid("two fields are called %s", f.Name)
		case f.URL != "" && !isPage(f.URL):
			return invalid("fields: the url of %s is not that of a page: https://…", f.Name)
		}
		names[f.Name] = true
	}
	return c.Check.settle(names, invalid)
}

func (c *Check) settle(names map[string]bool, invalid func(string, ...any) error) error {
	if c.URL == "" {
		if c.Method != "" || len(c.Headers) > 0 || len(c.Status) > 0 || c.Timeout != 0 {
			return invalid("check.url is missing")
		}
		return nil
	}
	if c.Method == "" {
		c.Method = http.MethodGet
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())):
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "check.url is not an https URL", Remedy: "http is taken for localhost, 127.0.0.1 and [::1] alone"}
	case strings.ContainsAny(c.URL, "{}"):
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "check.url holds a brace", Remedy: "send fields in check.headers: URLs are logged by servers"}
	case !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost}, c.Method):
		return invalid("check.method is none of GET, HEAD, POST")
	case len(c.Headers) == 0:
		return invalid("check.headers is missing: nothing that was entered would be sent")
	case c.Timeout < 0 || c.Timeout > time.Minute:
		return invalid("check.timeout is not within 0s and 1m")
	}
	for name, value := range c.Headers {
		if !isName(name) || strings.EqualFold(name, "Host") {
			return invalid("check.headers has a name that is no header")
		}
		if strings.ContainsFunc(value, isControl) {
			return invalid("check.headers.%s holds a control character", name)
		}
		for part, isField := range parts(value) {
			if isField && !names[part] {
				return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "check.headers." + name + " names a field that is not one", Remedy: "write {name} of one of fields"}
			}
		}
	}
	for _, status := range c.Status {
		if status < 200 || status > 599 || status == http.StatusUnauthorized {
			return invalid("check.status holds what no accepting answer has")
		}
	}
	return nil
}

// parts yields the texts of value, and the names in braces between them.
func parts(value string) func(yield func(part string, isField bool) bool) {
	return func(yield func(string, bool) bool) {
		for value != "" {
			text, rest, found := strings.Cut(value, "{")
			name, after, closed := strings.Cut(rest, "}")
			if !found || !closed {
				yield(value, false)
				return
			}
			if text != "" && !yield(text, false) || !yield(name, true) {
				return
			}
			value = after
		}
	}
}

func isName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

func isPage(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http")
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
