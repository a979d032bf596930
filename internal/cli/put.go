package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// maxValue is the size of the largest value that put takes, in bytes; stores have lower limits of their own.
const maxValue = 64 << 20

func (a *app) put() *cobra.Command {
	var replace, raw, asJSON bool
	var ifVersion string
	cmd := &cobra.Command{
		Use:   "put REF",
		Short: "Store a secret, read from standard input or a hidden prompt",
		Long: `Store a secret. Its value is asked for twice on a terminal, without being shown, and is otherwise all of standard input,
less one line feed at its end; --raw keeps that too. The version that the store gives is printed, if it gives one.

A secret that exists is not touched, unless --replace says so, or --if-version names the version that is replaced. With
a field in the reference that field is set and the others stay.`,
		Example: `  credresolve put cred://desk/github-token
  openssl rand -hex 32 | credresolve put cred://app/kv/app/db#password
  credresolve put --if-version 3 --json cred://app/kv/app/db < db.json`,
		Args:              exactly(1, "one reference; the value comes from standard input"),
		ValidArgsFunction: a.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if replace && cmd.Flags().Changed("if-version") {
				return backend.Errorf(backend.CodeUsage, "--replace and --if-version exclude each other")
			}
			if cmd.Flags().Changed("if-version") && ifVersion == "" {
				return backend.Errorf(backend.CodeUsage, "--if-version needs a version; without it put creates only")
			}
			ref, field, err := writableRef(args[0])
			if err != nil {
				return err
			}
			if asJSON && field != "" {
				return backend.Errorf(backend.CodeUsage, "--json stores all fields of a secret, and the reference names one")
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			w, err := s.writer(ref)
			if err != nil {
				return err
			}
			cond := backend.Condition{Absent: !replace && ifVersion == "", Version: ifVersion}
			if !replace && w.Strength() == backend.StrengthNone {
				return &backend.Error{
					Code:   backend.CodeUnsupported,
					Reason: fmt.Sprintf("%s: the provider cannot tell whether it would replace a secret", ref),
					Remedy: "use --replace to store it whatever is there",
				}
			}
			value, err := a.readValue(ctx, ref, raw)
			if err != nil {
				return err
			}
			defer clear(value)
			version, err := store(ctx, w, ref, field, value, asJSON, cond)
			s.wrote(ctx, ref)
			if err != nil {
				if stop := stopped(ctx); stop != nil {
					return stop
				}
				return writeFailed(ref, late(ctx, err), cond)
			}
			a.log.Debug("stored", "ref", ref.String(), "strength", string(w.Strength()))
			if version == "" {
				return nil
			}
			return a.write([]byte(printable(version) + "\n"))
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "replace a secret that exists")
	cmd.Flags().StringVar(&ifVersion, "if-version", "", "replace the secret only if it is still at this `version`")
	cmd.Flags().BoolVar(&raw, "raw", false, "take standard input as it is, a line feed at its end too; it may be empty")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the value is a JSON object whose members are the fields of the secret")
	return cmd
}

// writableRef reads the ref of a write, and the key of the field that it names.
func writableRef(arg string) (ref credref.Ref, field string, err error) {
	if ref, err = parseRef(arg); err != nil {
		return ref, "", err
	}
	if ref.Version != "" {
		return ref, "", backend.Errorf(backend.CodeUsage, "%s: a version cannot be written; leave ?version= away", ref)
	}
	field = ref.Field
	if rest, ok := strings.CutPrefix(field, "/"); ok {
		if strings.Contains(rest, "/") {
			return ref, "", backend.Errorf(backend.CodeUnsupported, "%s: only a whole field can be written, not a part of one", ref)
		}
		field = strings.NewReplacer("~1", "/", "~0", "~").Replace(rest)
	}
	return ref, field, nil
}

// writer gives the store of ref's provider, if it can be written.
func (s *session) writer(ref credref.Ref) (backend.Writer, error) {
	b, err := s.Backend(ref.Provider)
	if err != nil {
		return nil, err
	}
	w, err := backend.AsWriter(b)
	if err == nil {
		return w, nil
	}
	if p, ok := b.(backend.Prober); ok && config.IsUntrusted(b) {
		err = p.Probe(context.Background()) // says what to do
	}
	return nil, fmt.Errorf("%s: %w", ref, err)
}

// readValue reads the value of ref from wherever it comes.
func (a *app) readValue(ctx context.Context, ref credref.Ref, raw bool) ([]byte, error) {
	if isTerminal(a.stdin) {
		return a.promptSecret(ctx, ref.String())
	}
	value, err := readAll(ctx, a.stdin, maxValue, "standard input")
	if err != nil || raw {
		return value, err
	}
	if len(value) == 0 { // rather the end of a pipe whose program failed than meant
		e := backend.Errorf(backend.CodeUsage, "standard input is empty; nothing was stored")
		e.Remedy = "use --raw if the value is to be empty"
		return nil, e
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r")), nil
}

func store(ctx context.Context, w backend.Writer, ref credref.Ref, field string, value []byte, asJSON bool, cond backend.Condition) (string, error) {
	req := backend.Request{ID: ref.ID}
	if field != "" {
		return backend.PutField(ctx, w, req, field, backend.NewSecret(value), cond)
	}
	v := backend.Value{Secret: backend.NewSecret(value)}
	if asJSON {
		fields, ok := backend.FieldsFromJSON(value)
		if !ok {
			return "", backend.Errorf(backend.CodeUsage, "the value is not one JSON object")
		}
		v = backend.Value{Fields: fields}
	}
	return w.Put(ctx, req, v, cond)
}

// writeFailed names the ref, and what to do about a conflict.
func writeFailed(ref credref.Ref, err error, cond backend.Condition) error {
	code := backend.CodeOf(err)
	if code == backend.CodeConflict && cond.Absent {
		return &backend.Error{Code: code, Reason: fmt.Sprintf("%s: %v", ref, err), Remedy: "use --replace, or --if-version with the version to be replaced"}
	}
	return fmt.Errorf("%s: %w", ref, err)
}
