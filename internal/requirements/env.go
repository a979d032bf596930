package requirements

import (
	"fmt"
	"strings"
)

// CheckEnv refuses what is no name of a variable, and the variables that decide what code programs load and run, whom they
// trust and where they send things. The error tells which rule it is, and repeats no name that is malformed.
func CheckEnv(name string) error {
	for i, c := range name {
		letter := c == '_' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("the name of a variable has letters, digits and underscores alone, and begins with no digit")
		}
	}
	if name == "" || len(name) > maxName {
		return fmt.Errorf("the name of a variable has 1 to %d letters", maxName)
	}
	upper := strings.ToUpper(name) // some programs take both, and so does Windows
	refused := ""
	for _, s := range strings.Fields(refusedNames) {
		if upper == s {
			refused = s
		}
	}
	for _, s := range strings.Fields(refusedPrefixes) {
		if strings.HasPrefix(upper, s) {
			refused = s + "*"
		}
	}
	for _, s := range strings.Fields(refusedSuffixes) {
		if strings.HasSuffix(upper, s) {
			refused = "*" + s
		}
	}
	if refused == "" || allowedAnyway(upper) {
		return nil
	}
	return fmt.Errorf("the variable %s may not be set by requirements: it can change what programs do (rule %s)", name, refused)
}

const maxName = 128

// allowedAnyway reports whether name is that of a credential, whose words end it, of a program that is refused otherwise.
func allowedAnyway(name string) bool {
	for _, s := range strings.Fields(refusedAlways) {
		if strings.HasPrefix(name, s) {
			return false
		}
	}
	for _, s := range strings.Fields("_TOKEN _PASSWORD _SECRET _API_KEY _USERNAME") {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

// The rules, in upper case. docs/requirements.md lists them; a test compares.
const (
	refusedNames = `PATH HOME SHELL USER LOGNAME PWD OLDPWD TMPDIR TMP TEMP IFS ENV CDPATH GLOBIGNORE SHELLOPTS BASHOPTS PS1 PS2 PS4
		PROMPT_COMMAND FPATH ZDOTDIR VISUAL BROWSER DISPLAY TERM TERMINFO TERMCAP VIMINIT EXINIT LESS LESSOPEN LESSCLOSE
		GCONV_PATH GLIBC_TUNABLES LOCPATH NLSPATH HOSTALIASES PERL5DB PERL5LIB PERL5OPT PERLLIB RUBYOPT RUBYLIB CLASSPATH PHPRC PHP_INI_SCAN_DIR
		R_PROFILE R_PROFILE_USER R_ENVIRON R_ENVIRON_USER TCLLIBPATH GTK_MODULES ELECTRON_RUN_AS_NODE RUSTC CC CXX CPP LD AR MAKE SSL_CERT_FILE
		SSL_CERT_DIR CURL_CA_BUNDLE REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED SSLKEYLOGFILE OPENSSL_CONF
		OPENSSL_ENGINES OPENSSL_MODULES KUBECONFIG DOCKER_HOST DOCKER_CONTEXT AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE GOENV GOROOT
		GOTOOLCHAIN COMSPEC PATHEXT SYSTEMROOT WINDIR APPDATA LOCALAPPDATA USERPROFILE PROGRAMFILES PROGRAMDATA PSMODULEPATH`
	refusedPrefixes = `LD_ DYLD_ BASH_ XDG_ GIT_ SSH_ NPM_CONFIG_ YARN_ PIP_ UV_ PYTHON LUA_ ERL_ ELIXIR_ERL_ JULIA_ NODE_ BUN_ DENO_ DOTNET_ COR_
		CORECLR_ COMPLUS_ CARGO_ DOCKER_ CREDRESOLVE_ DBUS_ QT_ MALLOC_`
	refusedSuffixes = `_OPTIONS _OPTS _OPT _FLAGS _ASKPASS _PRELOAD _PATH _HOME _WRAPPER PAGER EDITOR _SHELL _COMMAND _HOOKS _PROXY _LIBRARIES FLAGS`
	// refusedAlways are prefixes after which no word makes a credential of it.
	refusedAlways = `LD_ DYLD_ BASH_ CREDRESOLVE_`
)
