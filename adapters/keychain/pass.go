package keychain

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/process"
)

// passStore keeps items as entries of pass, the standard Unix password manager, by running it. It writes what pass itself
// writes, the value and a line feed, and reads the envelopes of the keyring library too.
type passStore struct {
	env         env
	dir         string
	prefix      string // empty: the top of the store
	firstLine   bool
	shared      bool // dir was not configured but found in the environment
	interactive bool
}

func newPass(c Config, base string, env env, interactive bool) *passStore {
	p := &passStore{env: env, prefix: strings.Trim(c.PassPrefix, "/"), firstLine: c.PassFirstLine, interactive: interactive}
	switch dir := c.PassDir; {
	case dir != "":
		p.dir = env.path(base, dir)
	case env("PASSWORD_STORE_DIR") != "":
		p.dir, p.shared = env.path("", env("PASSWORD_STORE_DIR")), true
	default:
		p.dir, p.shared = filepath.Join(env.home(), ".password-store"), true
	}
	return p
}

func (p *passStore) name() string { return passName }

func (p *passStore) describe() backend.Description {
	return backend.Description{Detail: "folder /" + p.prefix + " of " + p.dir, CallerBound: p.shared, MaxValue: maxValue}
}

func (p *passStore) close() {}

func (p *passStore) works(context.Context) (string, error) {
	if _, err := p.find("pass"); err != nil {
		return "", err
	}
	if err := p.initialised(); err != nil {
		return "", err
	}
	return "pass is installed and has a store", nil
}

// find gives the path of the first of the programs that there is.
func (p *passStore) find(names ...string) (string, error) {
	for _, name := range names {
		for _, dir := range filepath.SplitList(p.env("PATH")) {
			if !filepath.IsAbs(dir) {
				continue
			}
			if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return file, nil
			}
		}
	}
	return "", backend.Errorf(backend.CodeUnavailable, "the program %s is not in $PATH", names[len(names)-1])
}

// file is where the entry of that name is.
func (p *passStore) file(name string) string {
	return filepath.Join(p.dir, filepath.FromSlash(name)+".gpg")
}

func (p *passStore) initialised() error {
	_, err := os.Stat(filepath.Join(p.dir, ".gpg-id"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &backend.Error{Code: backend.CodeUnavailable, Reason: "there is no password store in " + p.dir, Remedy: "run: pass init GPG-ID"}
	case err != nil:
		return osError("look at the password store", err)
	}
	return nil
}

// passPath checks the path of an entry, or of a part of one.
func passPath(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") {
			return errName
		}
	}
	return nil
}

// entry gives the name of the entry of id, and whether it is there.
func (p *passStore) entry(id string) (name string, exists bool, err error) {
	if isQuery(id) {
		return "", false, errQueryHere
	}
	if err := passPath(id); err != nil {
		return "", false, err
	}
	if err := p.initialised(); err != nil {
		return "", false, err
	}
	name = path.Join(p.prefix, id)
	st, err := os.Stat(p.file(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name, false, nil
	case err != nil:
		return "", false, osError("look for the entry", err)
	case !st.Mode().IsRegular():
		return "", false, errName
	}
	return name, true, nil
}

func (p *passStore) get(ctx context.Context, id string) ([]byte, error) {
	name, exists, err := p.entry(id)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, errNoItem
	}
	raw, err := p.run(ctx, nil, "show", name)
	if err != nil {
		clear(raw)
		return nil, err
	}
	if _, value, ok := p.envelope(id, raw); ok {
		clear(raw)
		return value, nil
	}
	value := bytes.TrimSuffix(raw, []byte("\n"))
	if line, _, several := bytes.Cut(value, []byte("\n")); p.firstLine && several {
		return line, nil
	}
	return value, nil
}

// envelope opens an envelope of the keyring library. That keeps the name of the entry below its own prefix as the key.
func (p *passStore) envelope(id string, raw []byte) (key string, value []byte, ok bool) {
	key, value, ok = openEnvelope(raw)
	return key, value, ok && (key == id || strings.HasSuffix(id, "/"+key))
}

func (p *passStore) put(ctx context.Context, id string, value []byte) error {
	name, exists, err := p.entry(id)
	if err != nil {
		return err
	}
	wrapped := append(append(make([]byte, 0, len(value)+1), value...), '\n')
	defer func() { clear(wrapped) }()
	if _, _, looks := p.envelope(id, value); looks {
		clear(wrapped)
		if wrapped, err = wrap(id, value); err != nil {
			return err
		}
	}
	if p.firstLine {
		if bytes.ContainsRune(value, '\n') {
			return errFirstLine
		}
		if exists {
			before, err := p.run(ctx, nil, "show", name)
			several := bytes.Count(bytes.TrimSuffix(before, []byte("\n")), []byte("\n")) > 0
			clear(before)
			switch {
			case err != nil:
				return err
			case several:
				return errFirstLine
			}
		}
	}
	out, err := p.run(ctx, wrapped, "insert", "--multiline", "--force", name)
	clear(out)
	return err
}

func (p *passStore) remove(ctx context.Context, id string) error {
	name, exists, err := p.entry(id)
	if err != nil {
		return err
	}
	if !exists {
		return errNoItem
	}
	_, err = p.run(ctx, nil, "rm", "--force", name)
	return err
}

func (p *passStore) list(ctx context.Context, prefix string) ([]backend.Entry, error) {
	if err := p.initialised(); err != nil {
		return nil, err
	}
	top := filepath.Join(p.dir, filepath.FromSlash(p.prefix))
	var entries []backend.Entry
	err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // no entry yet, or deleted since
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != top:
			return fs.SkipDir
		}
		rel, err := filepath.Rel(top, file)
		if err != nil {
			return err
		}
		id, isEntry := strings.CutSuffix(filepath.ToSlash(rel), ".gpg")
		if d.IsDir() || !isEntry || !strings.HasPrefix(id, prefix) || checkID(id) != nil || passPath(id) != nil {
			return nil
		}
		e := backend.Entry{ID: id}
		if info, err := d.Info(); err == nil {
			e.Modified = info.ModTime()
		}
		entries = append(entries, e)
		return nil
	})
	return entries, osError("list the password store", err)
}

// probe checks that the program and its store are there. Whether gpg would ask for a passphrase shows only when an entry
// is decrypted.
func (p *passStore) probe(ctx context.Context) error {
	if _, err := p.works(ctx); err != nil {
		return err
	}
	return ctx.Err()
}

// passEnvironment is what pass, and gpg and git below it, may see of the environment.
func passEnvironment() []string {
	return []string{
		"HOME", "PATH", "USER", "LOGNAME", "TMPDIR", "GNUPGHOME", "GPG_AGENT_INFO", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
		"PASSWORD_STORE_KEY", "PASSWORD_STORE_SIGNING_KEY", "PASSWORD_STORE_UMASK",
		"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL",
	}
}

// passPrompts is what a program needs of the environment to ask the user.
func passPrompts() []string {
	return []string{"GPG_TTY", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS"}
}

// gpgOptions are the options of gpg. Without leave to ask, it answers its agent's wish for a passphrase with "cancelled".
func (p *passStore) gpgOptions() []string {
	options := strings.Fields(p.env("PASSWORD_STORE_GPG_OPTS"))
	if !p.interactive {
		options = append(options, "--pinentry-mode=cancel")
	}
	return options
}

func (p *passStore) environ() []string {
	names := passEnvironment()
	if p.interactive {
		names = append(names, passPrompts()...)
	}
	environ := []string{"PASSWORD_STORE_DIR=" + p.dir, "PASSWORD_STORE_GPG_OPTS=" + strings.Join(p.gpgOptions(), " "), "LC_ALL=C"}
	for _, name := range names {
		if value := p.env(name); value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// run runs pass and gives what it wrote to its standard output, which the caller zeroes.
func (p *passStore) run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	program, err := p.find("pass")
	if err != nil {
		return nil, err
	}
	out, err := process.Run(ctx, process.Command{
		Path: program, Args: append([]string{"pass"}, args...), Env: p.environ(), Dir: p.dir, Stdin: stdin, MaxOutput: maxOutput,
	})
	var failed *process.Error
	switch {
	case err == nil:
		return out, nil
	case !errors.As(err, &failed):
		return nil, err
	case failed.Failure == process.Flood:
		return nil, errTooLarge(auto, maxValue)
	case failed.Failure != process.Exit:
		return nil, backend.Errorf(backend.CodeUnavailable, "run pass: %s", failed)
	}
	return nil, p.diagnose(ctx, args[len(args)-1], failed)
}

// maxOutput is room for a value, and for what gpg and git say.
const maxOutput = maxValue + 1<<20

// gpgCodes are the error codes of GnuPG (libgpg-error, err-codes.h.in) where the passphrase of a key was not to be had.
var gpgCodes = map[int]bool{
	11: true, 87: true, // bad passphrase, bad PIN
	85: true, 86: true, // no pinentry, pinentry failed
	99: true, 198: true, // cancelled, fully cancelled
}

// diagnose asks gpg why pass failed with an entry, which pass tells in words alone: gpg decrypts the entry to nowhere, and
// gives its status lines (GnuPG, doc/DETAILS).
func (p *passStore) diagnose(ctx context.Context, name string, failed *process.Error) error {
	unknown := backend.Errorf(backend.CodeUnavailable, "pass failed: %s", failed)
	gpg, err := p.find("gpg2", "gpg")
	if err != nil {
		return err
	}
	// With -v gpg says how the decryption failed. It ends with a status other than 0, whose output would not be kept,
	// hence the shell's "|| :".
	args := []string{"sh", "-c", `"$0" "$@" || :`, gpg}
	args = append(args, p.gpgOptions()...)
	args = append(args, "-v", "--batch", "--yes", "--status-fd=1", "--output=/dev/null", "--decrypt", p.file(name))
	status, err := process.Run(ctx, process.Command{Path: "/bin/sh", Args: args, Env: p.environ(), Dir: p.dir, MaxOutput: 1 << 20})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return unknown
	}
	if err := gpgError(status); err != nil {
		return err
	}
	return unknown
}

// gpgError tells from gpg's status lines why a decryption failed; nil when they do not say.
func gpgError(status []byte) error {
	var failed error
	for line := range strings.Lines(string(status)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "[GNUPG:]" {
			continue
		}
		switch words[1] {
		case "ERROR":
			if len(words) < 4 || words[2] != "pkdecrypt_failed" {
				continue
			}
			if code, err := strconv.Atoi(words[3]); err == nil && gpgCodes[code&0xffff] {
				return errLocked("the gpg key of the password store", "run pass show for any entry, so that gpg's agent has the passphrase, or use --interactive")
			}
		case "NODATA":
			return errDamaged
		case "NO_SECKEY", "DECRYPTION_FAILED":
			failed = backend.Errorf(backend.CodeAuthRequired, "gpg has no secret key for the entry, or its agent does not answer")
		}
	}
	return failed
}
