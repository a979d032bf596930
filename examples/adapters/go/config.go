package jsonstore

import "github.com/credresolve/credresolve/backend"

// Config are the settings of a provider of kind jsonstore.
type Config struct {
	// Path is the file of secrets, absolute. Empty: invalid.
	Path string `yaml:"path"`
}

// Reach tells that the store is one file.
func (c Config) Reach() []backend.Reach {
	return []backend.Reach{{What: backend.ReachFile, Value: c.Path}}
}

// Kind is the kind "jsonstore" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("jsonstore", "values in a JSON file",
		func(c Config, _ backend.Host) (backend.Backend, error) { return New(c) })
}
