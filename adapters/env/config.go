package env

import "github.com/credresolve/credresolve/backend"

// Config are the settings of a provider of kind env.
type Config struct {
	// Allow are the names of the variables that may be read. A name that ends in "*" stands for all names that start so;
	// "*" alone stands for every variable. At least one is needed.
	Allow []string `yaml:"allow"`
	// AllowBlank takes a variable that is empty or holds white space only as it is. Zero: such a variable counts as missing.
	AllowBlank bool `yaml:"allow_blank"`
}

// Reach tells which variables the provider reads.
func (c Config) Reach() []backend.Reach {
	reach := make([]backend.Reach, len(c.Allow))
	for i, name := range c.Allow {
		reach[i] = backend.Reach{What: backend.ReachEnvironment, Value: name}
	}
	return reach
}

// Kind is the kind "env" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("env", "environment variables on an allow-list",
		func(c Config, host backend.Host) (backend.Backend, error) { return New(c, host) })
}
