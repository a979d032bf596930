package memory

import "github.com/credresolve/credresolve/backend"

// Config are the settings of a provider of kind memory.
type Config struct {
	// Values are the secrets by id, each a text. A text that is a JSON object has its members as fields. Empty: the
	// store starts without secrets.
	Values map[string]string `yaml:"values"`
}

// Reach tells that the store touches nothing outside of the process.
func (Config) Reach() []backend.Reach { return nil }

// Kind is the kind "memory" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("memory", "values in the memory of the process, for tests and trials",
		func(c Config, _ backend.Host) (backend.Backend, error) { return New(c) })
}
