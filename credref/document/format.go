package document

import (
	"path/filepath"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// Format is the syntax of a document.
type Format string

// The formats. JSON is read as JSONC: comments and trailing commas are no error, since many tools write them into
// files named .json.
const (
	YAML  Format = "yaml"
	JSON  Format = "json"
	JSON5 Format = "json5"
	TOML  Format = "toml"
	Env   Format = "env"
)

// Formats lists every Format.
func Formats() []Format { return []Format{YAML, JSON, JSON5, TOML, Env} }

// FormatOf tells the format by a file's name: .yaml, .yml, .json, .jsonc, .json5, .toml, and .env in any of the forms
// .env, app.env, .env.local. Another name is an error of code usage.
func FormatOf(path string) (Format, error) {
	base := strings.ToLower(filepath.Base(path))
	switch filepath.Ext(base) {
	case ".yaml", ".yml":
		return YAML, nil
	case ".json", ".jsonc":
		return JSON, nil
	case ".json5":
		return JSON5, nil
	case ".toml":
		return TOML, nil
	case ".env":
		return Env, nil
	}
	if strings.HasPrefix(base, ".env.") {
		return Env, nil
	}
	e := backend.Errorf(backend.CodeUsage, "%s: the name does not tell the format", path)
	e.Remedy = "name the format: yaml, json, json5, toml or env"
	return "", e
}
