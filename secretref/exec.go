package secretref

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/execproto"
	"github.com/credresolve/credresolve/internal/process"
	"github.com/credresolve/credresolve/internal/safefile"
)

// ExecProvider asks a program, once a pass, by the exec protocol, version 1. The program's environment is PassEnv and Env
// alone, and OPENCLAW_CLI=1, by which programs know OpenClaw; its working directory is the one of Command.
type ExecProvider struct {
	// Command is the absolute path of the program's file.
	Command string
	Args    []string
	// Env wins over PassEnv. Its values are as good as secrets.
	Env     map[string]backend.Secret
	PassEnv []string      // a variable that is not set is left out
	Timeout time.Duration // zero: 5 s
	// NoOutputTimeout bounds the time in which the program writes nothing, neither to standard output nor to standard error.
	// Zero: Timeout.
	NoOutputTimeout time.Duration
	// MaxOutputBytes bounds standard output and standard error together. Zero: 1 MiB.
	MaxOutputBytes int64
	// AllowText takes an answer that is no JSON for the value, where one id is asked for: "jsonOnly": false.
	AllowText bool
	// TrustedDirs are the directories one of which Command must lie in. Empty: anywhere.
	TrustedDirs []string
	// AllowSymlinkCommand accepts a link, and looks at what it leads to. Under V2026_3_2 alone.
	AllowSymlinkCommand bool
	// AllowInsecurePath accepts every owner and mode. Under V2026_3_2 alone.
	AllowInsecurePath bool
	// Plugin is set, and all else empty, where a plugin of OpenClaw provides the program, which this package cannot start.
	Plugin *PluginIntegration
}

// marker is how OpenClaw tells a program who starts it.
const marker = "OPENCLAW_CLI"

// tie is by how much the time-out of release 2026.3.2 comes after a silence of the same length.
const tie = 50 * time.Millisecond

var dialect = execproto.Dialect{
	Codes:     []string{"NOT_FOUND", "AMBIGUOUS_DUPLICATE_KEY"},
	NullFails: true,
}

func (p *ExecProvider) resolve(ctx context.Context, g *group, c Config, h Host) ([]answer, error) {
	if p.Plugin != nil {
		return nil, g.failf(ProviderUnavailable, "Secret provider %q plugin integration is unavailable: only OpenClaw can start plugin %q; name the program with an exec provider of its own.",
			g.provider, visible(p.Plugin.PluginID))
	}
	program, err := p.open(ctx, g, c, h)
	if err != nil {
		return nil, err
	}
	defer func() { _ = program.Close() }()
	request, err := dialect.EncodeRequest(g.provider, g.ids)
	if err != nil {
		return nil, g.failf(ProviderInvalid, "Exec provider %q request cannot be written.", g.provider)
	}
	if limit := c.Limits.batchBytes(); len(request) > limit {
		return nil, g.failf(ProviderInvalid, "Exec provider %q request exceeded maxBatchBytes (%d).", g.provider, limit)
	}
	timeout := orDefault(p.Timeout, defaultTimeout)
	silence := orDefault(p.NoOutputTimeout, timeout)
	command := process.Command{
		Path: program.path, Args: append([]string{program.path}, p.Args...), Env: p.environment(c, h), Dir: filepath.Dir(program.path),
		Stdin: request, Timeout: timeout, MaxOutput: orDefault(p.MaxOutputBytes, defaultMaxBytes),
	}
	if silence < timeout { // else the time-out, which starts before it, always comes first
		command.Silence = silence
	}
	if c.Compat == V2026_3_2 {
		command.Grace = time.Nanosecond // that release asks no program to end
		if silence == timeout {         // and blames its silence when both have passed
			command.Silence, command.Timeout = silence, timeout+tie
		}
	}
	if err := program.Unchanged(); err != nil {
		return nil, program.check.explain(g, program.path, err)
	}
	printed, err := process.Run(ctx, command)
	var failed *process.Error
	if errors.As(err, &failed) && failed.Failure == process.NotAProgram && runtime.GOOS != "windows" {
		// execvp(3), by which OpenClaw starts programs, takes such a file for a shell script.
		command.Path, command.Args = "/bin/sh", append([]string{"/bin/sh", program.path}, p.Args...)
		printed, err = process.Run(ctx, command)
	}
	defer clear(printed)
	if err != nil {
		return nil, p.failure(g, c, program.path, err, timeout, silence)
	}
	return p.read(g, c, printed)
}

// program is the open file of a program that the rules accept.
type program struct {
	*safefile.File
	path  string
	check pathCheck
}

func (p *ExecProvider) open(ctx context.Context, g *group, c Config, h Host) (*program, error) {
	old := c.Compat == V2026_3_2
	check := pathCheck{label: "secrets.providers." + g.provider + ".command", deny: 0o022, hardLinks: true, dirs: p.TrustedDirs, insecure: old && p.AllowInsecurePath}
	check.setOwners(h, os.Getuid(), "current")
	return safefile.Await(ctx, func() (*program, error) {
		path, err := h.expand(p.Command)
		if err != nil || trim(p.Command) == "" {
			return nil, g.failf(ProviderUnavailable, "%s must be an absolute path.", check.label)
		}
		if old && p.AllowSymlinkCommand {
			if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
				target, err := filepath.EvalSymlinks(path)
				if err != nil {
					return nil, g.failf(ProviderUnavailable, "%s symlink target is not readable: %s", check.label, visible(path))
				}
				path = target
			}
		}
		// OpenClaw looks at what it is, then at where it is, and at owner and mode last.
		f, err := safefile.Open(path, base)
		if err != nil {
			return nil, check.explain(g, path, err)
		}
		_ = f.Close()
		if !check.inside(h, path) {
			return nil, g.failf(ProviderUnavailable, "%s is outside trustedDirs: %s", check.label, visible(path))
		}
		if !verifiable && !check.insecure {
			return nil, check.unverifiable(g, path, "Use an env provider, or let OpenClaw itself resolve the ref.")
		}
		if f, err = safefile.Open(path, check.policy()); err != nil {
			return nil, check.explain(g, path, err)
		}
		return &program{f, path, check}, nil
	}, func(p *program) { _ = p.Close() })
}

func (p *ExecProvider) environment(c Config, h Host) []string {
	values := make(map[string]string, len(p.PassEnv)+len(p.Env)+1)
	for _, name := range p.PassEnv {
		if value, ok := h.lookup(name); ok {
			values[name] = value
		}
	}
	for name, value := range p.Env {
		_ = value.Use(func(text []byte) error { values[name] = string(text); return nil })
	}
	if c.Compat == Newest {
		values[marker] = "1"
	}
	env := make([]string, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env = append(env, name+"="+values[name])
	}
	return env
}

// failure puts why the program gave no answer in OpenClaw's words.
func (p *ExecProvider) failure(g *group, c Config, path string, err error, timeout, silence time.Duration) error {
	var failed *process.Error
	if !errors.As(err, &failed) {
		return err // the context's
	}
	var launch string
	switch failed.Failure {
	case process.Exit:
		return g.failf(ProviderUnavailable, "Exec provider %q exited with code %d.", g.provider, failed.Status)
	case process.Signal:
		return g.failf(ProviderUnavailable, "Exec provider %q exited with code null.", g.provider)
	case process.Timeout:
		return g.failf(ProviderUnavailable, "Exec provider %q timed out after %dms.", g.provider, timeout.Milliseconds())
	case process.Silence:
		return g.failf(ProviderUnavailable, "Exec provider %q produced no output for %dms.", g.provider, silence.Milliseconds())
	case process.Flood:
		return g.failf(ProviderUnavailable, "Exec provider output exceeded maxOutputBytes (%d).", failed.Max)
	case process.NotFound:
		launch = "ENOENT"
	case process.NoAccess:
		launch = "EACCES"
	case process.NotAProgram:
		launch = "ENOEXEC"
	default:
		launch = failed.Name
	}
	if c.Compat == V2026_3_2 {
		return g.failf(ProviderUnavailable, "spawn %s %s", visible(path), launch)
	}
	return g.failf(ProviderUnavailable, "Command failed during launch or output capture (%s)", launch)
}

// read gives what the program's answer says of each id.
func (p *ExecProvider) read(g *group, c Config, printed []byte) ([]answer, error) {
	valid := decode(printed)
	defer clear(valid)
	text := trimBytes(valid)
	if len(text) == 0 {
		return nil, g.failf(ProviderUnavailable, "Exec provider %q returned empty stdout.", g.provider)
	}
	if p.AllowText && len(g.ids) == 1 {
		if !json.Valid(text) {
			return []answer{{value: backend.NewSecret(text)}}, nil
		}
		if text[0] == '"' {
			return []answer{{value: backend.SecretFromJSON(text)}}, nil
		}
	}
	said, err := dialect.DecodeResponse(text, g.ids)
	if err != nil {
		var wrong *execproto.Error
		_ = errors.As(err, &wrong)
		return nil, g.failf(ProviderUnavailable, wordings[wrong.Problem], g.provider)
	}
	answers := make([]answer, len(g.ids))
	for i, id := range g.ids {
		switch a := said[i]; {
		case a.Failed:
			code, shown := RefProviderError, ""
			if a.Code == "NOT_FOUND" {
				code = RefNotFound
			}
			if a.Code != "" && c.Compat == Newest {
				shown = " (" + a.Code + ")"
			}
			answers[i].err = g.refuse(code, id, "Exec provider %q failed for id %q%s.", g.provider, id, shown)
		case a.Value.IsZero():
			answers[i].err = g.refuse(RefNotFound, id, "Exec provider %q response missing id %q.", g.provider, id)
		default:
			answers[i].value = a.Value
		}
	}
	return answers, nil
}

// wordings are OpenClaw's sentences about an answer that is worth nothing.
var wordings = map[execproto.Problem]string{
	execproto.Empty:        "Exec provider %q returned empty stdout.",
	execproto.InvalidJSON:  "Exec provider %q returned invalid JSON.",
	execproto.NotAnObject:  "Exec provider %q response must be an object.",
	execproto.WrongVersion: "Exec provider %q protocolVersion must be 1.",
	execproto.NoValues:     "Exec provider %q response missing \"values\".",
}
