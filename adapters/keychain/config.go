package keychain

import (
	"runtime"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// Config are the settings of a provider of kind keychain.
type Config struct {
	// Backend is the store: secret-service, kwallet, keychain (macOS), wincred (Windows), pass, keyctl (Linux) or file.
	// Empty or auto: the first that works here, in the order keychain, wincred, secret-service, kwallet, pass, file, as far
	// as the operating system has them; file only where path and password are set, keyctl never, as the kernel forgets.
	Backend string `yaml:"backend"`
	// Service is what the items belong to: an attribute of theirs, the folder in KWallet, the keyring in keyctl. Empty:
	// credresolve.
	Service string `yaml:"service"`
	// Collection is the name or label of the Secret Service's collection, the wallet of KWallet, the keychain of macOS.
	// Empty: items are read from every collection and written to the default one; the user's default wallet or keychain.
	Collection string `yaml:"collection"`
	// Path is the directory of the encrypted files; made with mode 0700 if missing. Empty: the file backend cannot be used.
	Path string `yaml:"path"`
	// Password encrypts the files of the file backend. Empty: the file backend cannot be used.
	Password backend.Source `yaml:"password"`
	// PassDir is the directory of the password store of pass. Empty: $PASSWORD_STORE_DIR, else ~/.password-store.
	PassDir string `yaml:"pass_dir"`
	// PassPrefix is the folder of pass below which ids lie; "/" is the top of the store. Empty: the service.
	PassPrefix string `yaml:"pass_prefix"`
	// PassFirstLine yields only the first line of an entry of pass, where its users keep the password, and refuses to
	// overwrite an entry of several lines. False: the whole text, without the line feed at its end.
	PassFirstLine bool `yaml:"pass_first_line"`
	// KeyctlScope is the keyring of the kernel that holds the service's own: user, usersession or session. Empty: user.
	KeyctlScope string `yaml:"keyctl_scope"`
	// WincredPrefix begins the target name of a credential of Windows, which is prefix:service:id. Empty: keyring.
	WincredPrefix string `yaml:"wincred_prefix"`
}

// Reach tells of the keychain, and of what the file backend and pass touch where they may be chosen.
func (c Config) Reach() []backend.Reach {
	c = c.withDefaults()
	may := func(name string) bool {
		return c.Backend == name || c.Backend == auto && slices.Contains(order(runtime.GOOS), name)
	}
	var reach []backend.Reach
	if c.Backend != passName {
		reach = append(reach, backend.Reach{What: backend.ReachKeychain, Value: c.Backend + " " + c.Service})
	}
	if may(passName) {
		reach = append(reach, backend.Reach{What: backend.ReachExecutable, Value: "pass"})
		if c.PassDir != "" {
			reach = append(reach, backend.Reach{What: backend.ReachFile, Value: c.PassDir})
		}
	}
	if c.Path != "" && may(fileName) {
		reach = append(reach, backend.Reach{What: backend.ReachFile, Value: c.Path})
	}
	return reach
}

// Kind is the kind "keychain" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("keychain", "the operating system's store of secrets, pass, or encrypted files",
		func(c Config, host backend.Host) (backend.Backend, error) { return New(c, host) })
}

// The values of Config.Backend.
const (
	auto              = "auto"
	secretServiceName = "secret-service"
	kwalletName       = "kwallet"
	macName           = "keychain"
	wincredName       = "wincred"
	passName          = "pass"
	keyctlName        = "keyctl"
	fileName          = "file"
)

func names() []string {
	return []string{auto, secretServiceName, kwalletName, macName, wincredName, passName, keyctlName, fileName}
}

// order lists what auto tries on an operating system, the first first.
func order(goos string) []string {
	switch goos {
	case "darwin":
		return []string{macName, passName, fileName}
	case "windows":
		return []string{wincredName, fileName}
	}
	return []string{secretServiceName, kwalletName, passName, fileName}
}

// keyctlScopes are the keyrings that all threads of a process, and other processes, see.
func keyctlScopes() []string { return []string{"user", "usersession", "session"} }

func (c Config) withDefaults() Config {
	setDefault := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	setDefault(&c.Backend, auto)
	setDefault(&c.Service, "credresolve")
	setDefault(&c.KeyctlScope, "user")
	setDefault(&c.PassPrefix, c.Service)
	setDefault(&c.WincredPrefix, "keyring")
	return c
}

func (c Config) validate() error {
	if !slices.Contains(names(), c.Backend) {
		e := backend.Errorf(backend.CodeInvalidConfig, "backend %q is unknown; known: %s", c.Backend, strings.Join(names(), ", "))
		if near := backend.Nearest(c.Backend, names()); near != "" {
			e.Remedy = "did you mean " + near + "?"
		}
		return e
	}
	if !slices.Contains(keyctlScopes(), c.KeyctlScope) {
		return backend.Errorf(backend.CodeInvalidConfig, "keyctl_scope %q is unknown; known: %s", c.KeyctlScope, strings.Join(keyctlScopes(), ", "))
	}
	for _, setting := range []struct{ name, value string }{
		{"service", c.Service}, {"collection", c.Collection}, {"path", c.Path},
		{"pass_dir", c.PassDir}, {"pass_prefix", c.PassPrefix}, {"wincred_prefix", c.WincredPrefix},
	} {
		if strings.ContainsFunc(setting.value, isControl) {
			return backend.Errorf(backend.CodeInvalidConfig, "%s holds a control character", setting.name)
		}
	}
	if c.Backend == passName || c.Backend == auto {
		if err := passPath(strings.Trim(c.PassPrefix, "/")); err != nil && c.PassPrefix != "/" {
			return backend.Errorf(backend.CodeInvalidConfig, "pass_prefix is not a path inside of the password store")
		}
	}
	if c.Backend == fileName {
		switch {
		case c.Path == "":
			return backend.Errorf(backend.CodeInvalidConfig, "backend file needs a path, the directory of its files")
		case c.Password.IsZero():
			return backend.Errorf(backend.CodeInvalidConfig, "backend file needs a password, best a ref to where it is kept")
		}
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
