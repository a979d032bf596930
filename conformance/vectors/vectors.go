// Package vectors holds what an executable adapter owes as data: requests, the outcomes that are expected, and the rules.
// README.md documents the form, for runners in other languages; package execs is the one in Go.
package vectors

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Format is the version of the form that this package reads.
const Format = 1

//go:embed *.json
var files embed.FS

// order is that in which the subjects are run: what others need first.
var order = []string{"answer", "code", "value", "request", "hostile", "process"}

// Vector is one rule and the way to check it. The keys are explained in README.md.
type Vector struct {
	Name       string   `json:"name"`
	Rule       string   `json:"rule"`
	Capability string   `json:"capability"`
	Needs      []string `json:"needs"`
	Send       Send     `json:"send"`
	Expect     Expect   `json:"expect"`
}

// Send is what the program is given.
type Send struct {
	IDs             []ID                       `json:"ids"`
	ProtocolVersion int                        `json:"protocol_version"`
	Extra           map[string]json.RawMessage `json:"extra"`
	Escape          bool                       `json:"escape"`
	Pretty          bool                       `json:"pretty"`
	Cut             int                        `json:"cut"`
	Stdin           *string                    `json:"stdin"`
	AtOnce          int                        `json:"at_once"`
	Hold            bool                       `json:"hold"`
	Signal          string                     `json:"signal"`
}

// ID is one or more ids of a request.
type ID struct {
	Known    string  `json:"known"`
	Before   string  `json:"before"`
	After    string  `json:"after"`
	Text     *string `json:"text"`
	Repeat   string  `json:"repeat"`
	Times    int     `json:"times"`
	Numbered int     `json:"numbered"`
}

// Expect is what the program must do.
type Expect struct {
	Exit      string   `json:"exit"`
	Answers   []Answer `json:"answers"`
	OnlyAsked bool     `json:"only_asked"`
	Values    *int     `json:"values"`
	Errors    *int     `json:"errors"`
	Stdout    string   `json:"stdout"`
	Quiet     string   `json:"quiet"`
	WithinMS  int      `json:"within_ms"`
	MaxOutput int64    `json:"max_output"`
	Alone     bool     `json:"alone"`
}

// Answer is what is expected of one id: a value, or an error.
type Answer struct {
	Value      string   `json:"value"`
	Codes      []string `json:"codes"`
	RetryAfter bool     `json:"retry_after"`
}

// Load gives every vector, in the order in which they are run: after those that they need.
func Load() ([]Vector, error) {
	var all []Vector
	for _, subject := range order {
		text, err := files.ReadFile(subject + ".json")
		if err != nil {
			return nil, err
		}
		vs, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s.json: %w", subject, err)
		}
		all = append(all, vs...)
	}
	return all, nil
}

// Parse reads one file of vectors. It refuses another format and keys that it does not know.
func Parse(text []byte) ([]Vector, error) {
	var file struct {
		Format  int      `json:"format"`
		Vectors []Vector `json:"vectors"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("there is more than one JSON value")
	}
	if file.Format != Format {
		return nil, fmt.Errorf("the format is %d, and this program reads %d", file.Format, Format)
	}
	for _, v := range file.Vectors {
		if err := v.check(); err != nil {
			return nil, fmt.Errorf("vector %q: %w", v.Name, err)
		}
	}
	return file.Vectors, nil
}

func (v Vector) check() error {
	ids := 0
	for _, id := range v.Send.IDs {
		forms := 0
		for _, is := range []bool{id.Known != "", id.Text != nil, id.Repeat != ""} {
			if is {
				forms++
			}
		}
		if forms != 1 || id.Repeat != "" && (id.Times > 0) == (id.Numbered > 0) {
			return errors.New("an id has not exactly one form")
		}
		ids += max(1, id.Numbered)
	}
	switch {
	case v.Name == "" || v.Rule == "":
		return errors.New("it has no name or no rule")
	case !slices.Contains([]string{"zero", "nonzero", "any"}, v.Expect.Exit):
		return fmt.Errorf("exit is %q", v.Expect.Exit)
	case v.Expect.Answers != nil && len(v.Expect.Answers) != ids:
		return fmt.Errorf("it expects %d answers to %d ids", len(v.Expect.Answers), ids)
	case !slices.Contains([]string{"", "one object"}, v.Expect.Stdout):
		return fmt.Errorf("stdout is %q", v.Expect.Stdout)
	case !slices.Contains([]string{"", "stdout", "stderr", "errors"}, v.Expect.Quiet):
		return fmt.Errorf("quiet is %q", v.Expect.Quiet)
	case !slices.Contains([]string{"", "TERM"}, v.Send.Signal):
		return fmt.Errorf("signal is %q", v.Send.Signal)
	}
	for _, a := range v.Expect.Answers {
		if (a.Value == "") == (len(a.Codes) == 0) {
			return errors.New("an answer is not exactly one of value and codes")
		}
	}
	return nil
}

// Roles names the known ids without which the vector shows nothing.
func (v Vector) Roles() []string {
	var roles []string
	for _, id := range v.Send.IDs {
		if id.Known != "" && !slices.Contains(roles, id.Known) {
			roles = append(roles, id.Known)
		}
	}
	return roles
}
