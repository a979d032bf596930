// Package execs holds an executable to the vectors of package vectors: the rules of the suite, as far as the protocol of the
// kind exec can show them, and those of a process. It shows nothing of what the program writes.
package execs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/credresolve/credresolve/backend"
)

// Program is an executable, and what is known of its secrets.
type Program struct {
	// Command is its absolute path.
	Command string `json:"-"`
	// Args are its arguments.
	Args []string `json:"args"`
	// Env is its whole environment.
	Env map[string]string `json:"env"`
	// Known tells which id plays which role of the vectors; "present" is required.
	Known map[string]Known `json:"known"`
}

// Known is an id, and the value that it has: a JSON string, or another JSON value for a structured secret. No value: the id
// leads to an error.
type Known struct {
	ID    string          `json:"id"`
	Value json.RawMessage `json:"value"`
}

// Read reads what is known of the program from JSON, in the form that README.md of package vectors documents. Its errors are
// ErrInvalidConfig and hold nothing of the text.
func Read(r io.Reader, command string) (Program, error) {
	p := Program{Command: command}
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	err := dec.Decode(&p)
	if err == nil {
		if _, err = dec.Token(); err == nil {
			err = errors.New("more than one value")
		} else if err == io.EOF {
			err = nil
		}
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return Program{}, backend.Errorf(backend.CodeInvalidConfig, "the description of the program is not JSON, at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return Program{}, backend.Errorf(backend.CodeInvalidConfig, "the description of the program: %s is not of type %v", kind.Field, kind.Type)
	case err != nil:
		return Program{}, backend.Errorf(backend.CodeInvalidConfig, "the description of the program is not one JSON object with the keys args, env and known alone")
	}
	return p, p.check()
}

func (p Program) check() error {
	known, ok := p.Known["present"]
	if !ok || known.ID == "" || known.Value == nil {
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "no secret is known of the program", Remedy: `name the id and the value of one as known.present`}
	}
	return nil
}

// secrets are the bytes that must not be seen beyond the answer.
func (p Program) secrets() [][]byte {
	var all [][]byte
	var add func(v any)
	add = func(v any) {
		switch v := v.(type) {
		case string:
			all = append(all, []byte(v))
		case []any:
			for _, e := range v {
				add(e)
			}
		case map[string]any:
			for _, e := range v {
				add(e)
			}
		}
	}
	for _, k := range p.Known {
		var v any
		if json.Unmarshal(k.Value, &v) == nil {
			add(v)
		}
	}
	return all
}

func (p Program) environment() []string {
	env := make([]string, 0, len(p.Env))
	for name, value := range p.Env {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// lacks says which of roles, or whose value, is not known; empty when all are.
func (p Program) lacks(roles, values []string) string {
	for _, role := range roles {
		if _, ok := p.Known[role]; !ok {
			return fmt.Sprintf("needs an id of the role %s: name it in known", role)
		}
	}
	for _, role := range values {
		if p.Known[role].Value == nil {
			return fmt.Sprintf("needs the value of the id of the role %s: name it in known", role)
		}
	}
	return ""
}
