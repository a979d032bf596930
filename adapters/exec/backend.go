package exec

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/execproto"
	"github.com/credresolve/credresolve/internal/process"
	"github.com/credresolve/credresolve/internal/safefile"
)

var (
	_ backend.BatchGetter = (*Backend)(nil)
	_ backend.Prober      = (*Backend)(nil)
	_ backend.Describer   = (*Backend)(nil)
)

// Backend asks one program. It is safe for concurrent use: each call runs a process of its own.
type Backend struct {
	config   Config
	policy   safefile.Policy
	dialect  execproto.Dialect
	provider string
	lookup   func(string) (string, bool)
}

// New gives a Backend that asks the program of c, which it does not look at yet. The program is told host.Provider, and
// pass_env is taken from host.LookupEnv.
func New(c Config, host backend.Host) (*Backend, error) {
	c.Args, c.PassEnv, c.AllowDirs, c.Env = slices.Clone(c.Args), slices.Clone(c.PassEnv), slices.Clone(c.AllowDirs), maps.Clone(c.Env)
	if err := c.check(); err != nil {
		return nil, err
	}
	b := &Backend{config: c, policy: c.policy(), provider: host.Provider, lookup: host.LookupEnv}
	if b.lookup == nil {
		b.lookup = os.LookupEnv
	}
	b.dialect = execproto.Dialect{Codes: slices.Sorted(maps.Keys(answers)), MaxRequest: maxRequest}
	return b, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	d := backend.Description{
		Detail:      fmt.Sprintf("%s, output %s", b.config.Command, b.config.Output),
		Fields:      true,
		MaxValue:    b.config.MaxOutput,
		CallerBound: len(b.config.PassEnv) > 0,
	}
	if b.config.Output == outputPlain {
		d.MaxBatch = 1
	}
	return d
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.config.Output == outputPlain {
		return b.plain(ctx, req)
	}
	results, err := b.GetBatch(ctx, []backend.Request{req})
	if err != nil {
		return nil, err
	}
	return results[0].Credential, results[0].Err
}

// GetBatch implements backend.BatchGetter. It runs one process, which is asked for each id once.
func (b *Backend) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.config.Output == outputPlain {
		return nil, errOneByOne
	}
	results := make([]backend.Result, len(reqs))
	ids := make([]string, 0, len(reqs))
	asked := make([]int, 0, len(reqs)) // by the place in ids, the place in reqs
	for i, req := range reqs {
		if results[i].Err = check(req); results[i].Err == nil {
			ids, asked = append(ids, req.ID), append(asked, i)
		}
	}
	if len(ids) == 0 {
		return results, nil
	}
	found, err := b.ask(ctx, ids)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i, at := range asked {
		if err != nil {
			results[at].Err = err
			continue
		}
		results[at].Credential, results[at].Err = credential(found[i])
	}
	return results, nil
}

func check(req backend.Request) error {
	switch {
	case req.Version != "":
		return errVersion
	case req.ID == "" || strings.ContainsRune(req.ID, 0):
		return errNoID
	}
	return nil
}

func (b *Backend) ask(ctx context.Context, ids []string) ([]execproto.Answer, error) {
	request, err := b.dialect.EncodeRequest(b.provider, ids)
	if err != nil {
		return nil, translate(b.config.Command, err)
	}
	response, err := b.run(ctx, b.config.Args, request)
	defer clear(response)
	if err != nil {
		return nil, err
	}
	found, err := b.dialect.DecodeResponse(response, ids)
	return found, translate(b.config.Command, err)
}

func credential(a execproto.Answer) (*backend.Credential, error) {
	switch {
	case a.Failed:
		e := answers[a.Code]
		e.RetryAfter = a.RetryAfter
		if e.Code != backend.CodeUnavailable {
			e.RetryAfter = 0
		}
		return nil, &e
	case a.Value.IsZero(), a.Null:
		return nil, errNoAnswer
	}
	c := &backend.Credential{Secret: a.Value, Fields: a.Fields}
	if c.Fields == nil {
		_ = c.Secret.Use(func(text []byte) error {
			c.Fields, _ = backend.FieldsFromJSON(text)
			return nil
		})
	}
	return c, nil
}

// plain runs the program for one id and takes what it prints.
func (b *Backend) plain(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	args, inArgs, err := b.argsFor(req.ID)
	if err != nil {
		return nil, err
	}
	var request []byte
	if !inArgs {
		if request, err = b.dialect.EncodeRequest(b.provider, []string{req.ID}); err != nil {
			return nil, translate(b.config.Command, err)
		}
	}
	printed, err := b.run(ctx, args, request)
	defer clear(printed)
	if err != nil {
		return nil, err
	}
	text := printed
	if rest, ok := bytes.CutSuffix(text, []byte("\n")); ok {
		text = bytes.TrimSuffix(rest, []byte("\r"))
	}
	if len(text) == 0 {
		return nil, errNothing
	}
	c := &backend.Credential{Secret: backend.NewSecret(text)}
	c.Fields, _ = backend.FieldsFromJSON(text)
	return c, nil
}

// argsFor puts id in its places in the arguments, and reports whether there are any.
func (b *Backend) argsFor(id string) (args []string, found bool, err error) {
	onlyOperands := false // after "--"
	for _, arg := range b.config.Args {
		if strings.Contains(arg, placeholder) {
			found = true
			if strings.HasPrefix(arg, placeholder) && strings.HasPrefix(id, "-") && !onlyOperands {
				return nil, false, errOption
			}
		}
		onlyOperands = onlyOperands || arg == "--"
		args = append(args, strings.ReplaceAll(arg, placeholder, id))
	}
	return args, found, nil
}

// run runs the program and gives what it wrote to standard output, which the caller zeroes.
func (b *Backend) run(ctx context.Context, args []string, stdin []byte) ([]byte, error) {
	program, err := b.open(ctx)
	if err != nil {
		return nil, translate(b.config.Command, err)
	}
	defer func() { _ = program.Close() }()
	env, err := b.environment(ctx)
	if err != nil {
		return nil, err
	}
	c := process.Command{
		Path: program.Path(), Args: append([]string{b.config.Command}, args...), Env: env, Dir: filepath.Dir(b.config.Command), Stdin: stdin,
		Timeout: b.config.Timeout, Silence: b.config.NoOutputTimeout, MaxOutput: b.config.MaxOutput,
	}
	pinned := b.config.SHA256 != ""
	if pinned && runtime.GOOS == "linux" && !isScript(program.Descriptor()) {
		c.Executable = program.Descriptor()
	}
	out, err := process.Run(ctx, c)
	if err == nil && pinned {
		if err = program.Unchanged(); err != nil {
			clear(out)
			out = nil
		}
	}
	return out, translate(b.config.Command, err)
}

// open opens the program's file if it may be run. It returns when ctx is done, even while the file system does not answer.
func (b *Backend) open(ctx context.Context) (*safefile.File, error) {
	return safefile.Await(ctx, func() (*safefile.File, error) { return b.check(ctx) }, func(f *safefile.File) { _ = f.Close() })
}

func (b *Backend) check(ctx context.Context) (*safefile.File, error) {
	f, err := safefile.Open(b.config.Command, b.policy)
	if err != nil || b.config.SHA256 == "" {
		return f, err
	}
	sum, err := f.SHA256(ctx)
	if err == nil && sum != b.config.SHA256 {
		err = &safefile.Error{Problem: safefile.Checksum, Path: f.Path(), Reason: "does not have the checksum sha256",
			Remedy: "find out who changed it before setting sha256 to " + sum}
	}
	if err == nil {
		err = f.Unchanged()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// isScript reports whether the kernel hands f to an interpreter, which opens it by its name.
func isScript(f *os.File) bool {
	start := make([]byte, 2)
	_, err := io.ReadFull(io.NewSectionReader(f, 0, 2), start)
	return err == nil && string(start) == "#!"
}

// environment gives the whole environment of the program.
func (b *Backend) environment(ctx context.Context) ([]string, error) {
	env := []string{}
	for _, name := range b.config.PassEnv {
		if _, own := b.config.Env[name]; own {
			continue
		}
		if value, ok := b.lookup(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.config.Env)) {
		value, _, err := b.config.Env[name].Get(ctx)
		if err == nil {
			err = value.Use(func(text []byte) error {
				if bytes.IndexByte(text, 0) >= 0 {
					return backend.Errorf(backend.CodeInvalidConfig, "the value holds a NUL byte")
				}
				env = append(env, name+"="+string(text))
				return nil
			})
		}
		if err != nil {
			return nil, errEnv(name, err)
		}
	}
	return env, nil
}

// Probe implements backend.Prober. It looks at the program, its checksum too, and does not run it: what is fine so far is
// ErrUnsupported, since the protocol has no question but for a secret.
func (b *Backend) Probe(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := b.open(ctx)
	if err != nil {
		return translate(b.config.Command, err)
	}
	_ = f.Close()
	return errNotAsked
}
