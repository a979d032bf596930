package secretref

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

// FileMode says what a file provider's file holds.
type FileMode string

// The modes.
const (
	ModeJSON        FileMode = "json"        // one JSON object, whose values are found by JSON pointers
	ModeSingleValue FileMode = "singleValue" // one value, whose id is "value"
)

// FileProvider reads one file.
type FileProvider struct {
	// Path may start with "~" and may be relative to Host.Dir.
	Path     string
	Mode     FileMode      // empty: ModeJSON
	Timeout  time.Duration // zero: 5 s
	MaxBytes int64         // zero: 1 MiB
	// AllowInsecurePath accepts every owner and mode. Under V2026_3_2 alone.
	AllowInsecurePath bool
}

var byteOrderMark = []byte("\ufeff")

func (p *FileProvider) resolve(ctx context.Context, g *group, c Config, h Host) ([]answer, error) {
	content, err := p.read(ctx, g, c, h)
	defer clear(content)
	if err != nil {
		return nil, err
	}
	text := decode(content)
	defer clear(text)
	if c.Compat == Newest {
		text = bytes.TrimPrefix(text, byteOrderMark)
	}
	answers := make([]answer, len(g.ids))
	if p.Mode == ModeSingleValue {
		if rest, cut := bytes.CutSuffix(text, []byte("\n")); cut {
			text = bytes.TrimSuffix(rest, []byte("\r"))
		}
		value := backend.NewSecret(text)
		for i, id := range g.ids {
			if id != singleValueID {
				answers[i].err = g.refuse(RefInvalid, id, "singleValue file provider %q expects ref id %q.", g.provider, singleValueID)
				continue
			}
			answers[i].value = value
		}
		return answers, nil
	}
	switch text = trimJSON(text); {
	case !json.Valid(text):
		return nil, g.failf(ProviderUnavailable, "File provider %q payload is not valid JSON.", g.provider)
	case text[0] != '{':
		return nil, g.failf(ProviderUnavailable, "File provider %q payload is not a JSON object.", g.provider)
	}
	root := &node{text: text}
	for i, id := range g.ids {
		if at, missing := root.find(id, c.Compat); at != nil {
			answers[i].value = backend.SecretFromJSON(at.text)
		} else {
			answers[i].err = g.refuse(RefNotFound, id, "%s", missing)
		}
	}
	return answers, nil
}

// trimJSON takes the white space off that JSON has around a value.
func trimJSON(text []byte) []byte { return bytes.Trim(text, " \t\r\n") }

// read gives the content, which the caller zeroes.
func (p *FileProvider) read(ctx context.Context, g *group, c Config, h Host) ([]byte, error) {
	old := c.Compat == V2026_3_2
	check := pathCheck{
		label: "secrets.providers." + g.provider + ".path", deny: 0o066, hardLinks: old,
		sizeLast: old, insecure: old && p.AllowInsecurePath, maxBytes: orDefault(p.MaxBytes, defaultMaxBytes),
	}
	if old {
		check.setOwners(h, os.Getuid(), "current")
	} else {
		check.setOwners(h, os.Geteuid(), "effective")
	}
	path, err := h.expand(p.Path)
	if err != nil {
		return nil, g.failf(ProviderUnavailable, "%s must be an absolute path.", check.label)
	}
	if !verifiable && !check.insecure {
		return nil, check.unverifiable(g, path, "Use an env or exec provider.")
	}
	timeout := orDefault(p.Timeout, defaultTimeout)
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	content, _, err := safefile.Read(limited, path, check.policy())
	switch {
	case err == nil:
		return content, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return nil, g.failf(ProviderUnavailable, "File provider %q timed out after %dms.", g.provider, timeout.Milliseconds())
	}
	failed, err := safefile.Await(limited, func() (*Error, error) { return check.explain(g, path, err), nil }, nil)
	if err != nil {
		return nil, g.failf(ProviderUnavailable, "File provider %q timed out after %dms.", g.provider, timeout.Milliseconds())
	}
	return nil, failed
}
