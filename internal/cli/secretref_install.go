package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/internal/openclawexec"
	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/staged"
	"github.com/credresolve/credresolve/secretref"
)

type installFlags struct {
	client, provider, command, id string
	copies, replace, dryRun       bool
	vaultEnv                      bool
	passEnv                       []string
	timeoutMS                     int
	output, compat                *string
}

// installed is the answer of secretref install, for a program.
type installed struct {
	Config   string    `json:"config"`
	Provider string    `json:"provider"`
	Entry    execEntry `json:"entry"`
	Changed  bool      `json:"changed"` // the configuration was another before
	DryRun   bool      `json:"dry_run,omitempty"`
	Copied   string    `json:"copied,omitempty"` // where the program was copied to
	Proof    proof     `json:"proof"`
}

// execEntry is a provider as OpenClaw's configuration has it: keys that every release takes.
type execEntry struct {
	Source    string   `json:"source"`
	Command   string   `json:"command"`
	Args      []string `json:"args"`
	PassEnv   []string `json:"passEnv"`
	TimeoutMS int      `json:"timeoutMs"`
}

// proof is what one resolve through the entry gave.
type proof struct {
	ID string `json:"id,omitempty"`
	// Result is "resolved"; "answered" where the program gave another outcome than a value for an id that is only a try; or
	// "skipped", as a dry run must where the copy does not exist yet.
	Result string `json:"result"`
}

func (a *app) secretrefInstall() *cobra.Command {
	var f installFlags
	var p profileFlags
	cmd := &cobra.Command{
		Use:   "install [HOME]",
		Short: "Make this program a secret provider of OpenClaw",
		Long: `Write a provider with source "exec" into the configuration of OpenClaw, secrets.providers.credresolve unless --provider
names another, which starts this program as credresolve openclaw-exec. HOME is a state directory or a configuration file
of OpenClaw; the one that OpenClaw itself would use is the default. Comments and the order of keys stay.

OpenClaw starts a program only if it is a regular file, no link, of the user whom OpenClaw runs as, and not writable by
others. One that belongs to root, as in /usr/local/bin, is refused: --copy puts a copy into ~/.local/libexec/credresolve. Run it
as the user whom OpenClaw runs as, and again after an update.

Before anything is written, the new entry resolves one id by OpenClaw's rules: that of --prove, else one that the
configuration of OpenClaw refers to, else an alias. Where there is none of these, the program must answer at all.

With --profile an auth profile takes its secret from here: the SecretRef of --ref stands in the profile afterwards, and its
plain secret is gone, once OpenClaw's provider was seen to resolve it. Profiles in a database are OpenClaw's to write:
--plan-out gives a plan for that. With --write-through the secret itself is written, into an auth-profiles.json alone,
marked, and removed again when it is revoked through the sidecar, deleted by rm, or by --remove.`,
		Example: `  credresolve secretref install --for openclaw
  credresolve secretref install --for openclaw --copy --prove app/kv/app/db#password
  credresolve secretref install --for openclaw --dry-run --output json ~/.openclaw
  credresolve secretref install --profile openai:default --ref cred://app/kv/app/openai#key
  credresolve secretref install --profile openai:shared --ref cred://app/kv/app/openai#key --write-through`,
		Args:              between(0, 1, "one state directory or configuration file at most"),
		ValidArgsFunction: completeHome,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			a.timeout = 0
			about, err := p.asked(cmd)
			switch {
			case err != nil:
			case about:
				err = a.installProfile(ctx, p, args, f.provider, f.dryRun, *f.output)
			default:
				err = a.install(ctx, f, args)
			}
			var own *exit
			if err != nil && !errors.As(err, &own) && stopped(ctx) == nil {
				return &exit{1, err} // as the commands of OpenClaw that write
			}
			return err
		},
	}
	choiceFlag(cmd, &f.client, "for", "who is to start this program; needed", "openclaw")
	cmd.Flags().StringVar(&f.provider, "provider", "credresolve", "`name` of the provider in OpenClaw's configuration")
	cmd.Flags().StringVar(&f.command, "command", "", "`path` of the program to start; default: this one")
	cmd.Flags().BoolVar(&f.copies, "copy", false, "copy this program to where this user owns it, and have that started; with --command: copy it there")
	cmd.Flags().BoolVar(&f.vaultEnv, "vault-env", false, "take the place of OpenClaw's resolver for Vault, by its variables and without a configuration")
	cmd.Flags().StringArrayVar(&f.passEnv, "pass-env", nil, "`name` of a variable that OpenClaw is to pass on; may be repeated")
	cmd.Flags().IntVar(&f.timeoutMS, "timeout-ms", 5000, "`milliseconds` after which OpenClaw ends the program, which answers by a fifth less")
	cmd.Flags().StringVar(&f.id, "prove", "", "`id` that must resolve through the new entry")
	cmd.Flags().BoolVar(&f.replace, "replace", false, "replace another provider of that name")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "tell what would be written, and write nothing")
	for _, name := range []string{"provider", "pass-env", "timeout-ms", "prove"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	f.output, f.compat = outputFlag(cmd), compatFlag(cmd)
	p.add(cmd)
	return cmd
}

func (a *app) install(ctx context.Context, f installFlags, args []string) error {
	switch {
	case f.client == "":
		return &backend.Error{Code: backend.CodeUsage, Reason: "who is to start the program is not said", Remedy: "add --for openclaw"}
	case !secretref.ValidAlias(f.provider):
		return backend.Errorf(backend.CodeUsage, "--provider must match ^[a-z][a-z0-9_-]{0,63}$")
	case f.timeoutMS < 500 || f.timeoutMS > 120_000:
		return backend.Errorf(backend.CodeUsage, "--timeout-ms must be from 500 to 120000")
	}
	home, err := a.openclawHome(strings.Join(args, ""), *f.compat)
	if err != nil {
		return err
	}
	doc, err := home.Load()
	if err != nil {
		return err
	}
	owner := ownerOfHome(doc)
	if uid := os.Getuid(); owner >= 0 && owner != uid {
		// What resolves for root need not resolve for OpenClaw, and root should start no program that is another's.
		return &backend.Error{
			Code:   backend.CodeDenied,
			Reason: fmt.Sprintf("OpenClaw runs as uid %d, whose %s is, and this is uid %d", owner, doc.Config, uid),
			Remedy: fmt.Sprintf("run it as that user, such as by: sudo -u '#%d'", owner),
		}
	}
	command, copyTo, err := a.program(f)
	if err != nil {
		return err
	}
	entry, err := a.entry(ctx, f, command)
	if err != nil {
		return err
	}
	before, err := fileText(doc)
	if err != nil {
		return err
	}
	path := []string{"secrets", "providers", f.provider}
	after, err := edited(before, path, entry, f.replace)
	if err != nil {
		return fmt.Errorf("%s: %w", doc.Config, err)
	}
	out := installed{Config: doc.Config, Provider: f.provider, Entry: entry, Changed: !bytes.Equal(before, after), DryRun: f.dryRun, Copied: copyTo}
	if copyTo != "" && !f.dryRun {
		if err := copyProgram(f.source(), copyTo); err != nil {
			return err
		}
	}
	if copyTo != "" && f.dryRun {
		out.Proof.Result = "skipped"
	} else {
		if err := checkProgram(command, owner); err != nil {
			return err
		}
		if out.Proof, err = a.prove(ctx, f, doc, after, owner); err != nil {
			return err
		}
	}
	if out.Changed && !f.dryRun {
		if err := replaceConfig(ctx, doc.Config, before, after); err != nil {
			return err
		}
	}
	return a.tellInstalled(f, out)
}

func (a *app) tellInstalled(f installFlags, out installed) error {
	if *f.output == outputJSON {
		return a.writeJSON(out)
	}
	var b strings.Builder
	is := "is"
	switch {
	case f.dryRun && out.Changed:
		is = "would be"
	case !out.Changed:
		is = "is already"
	}
	fmt.Fprintf(&b, "%s: secrets.providers.%s %s: %s %s\n", out.Config, f.provider, is, out.Entry.Command, strings.Join(out.Entry.Args, " "))
	if out.Copied != "" {
		fmt.Fprintf(&b, "the program %s copied to %s\n", map[bool]string{true: "would be", false: "was"}[f.dryRun], out.Copied)
	}
	switch out.Proof.Result {
	case "resolved":
		fmt.Fprintf(&b, "%s resolves through it\n", out.Proof.ID)
	case "answered":
		b.WriteString("it answers; nothing refers to it yet: {source: \"exec\", provider: \"" + f.provider + "\", id: …}\n")
	}
	return a.write([]byte(printable(b.String())))
}

// ownerOfHome gives the user as whom OpenClaw runs: who owns its state or its configuration, else we. It is negative where
// files have no such owner.
func ownerOfHome(doc *openclaw.Document) int {
	for _, path := range []string{doc.State, doc.Config, filepath.Dir(doc.Config)} {
		if st, err := os.Stat(path); path != "" && err == nil {
			return ownerOf(st)
		}
	}
	return os.Getuid()
}

// source is the program to copy.
func (f installFlags) source() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	return self
}

// program gives the path of the program to start, and where this one must be copied to for that; empty: nowhere.
func (a *app) program(f installFlags) (command, copyTo string, err error) {
	self := f.source()
	if f.command != "" {
		if command, err = filepath.Abs(f.command); err != nil {
			return "", "", backend.Errorf(backend.CodeUsage, "--command: %s", reason(err))
		}
	}
	switch {
	case self == "" && (f.copies || command == ""):
		return "", "", backend.Errorf(backend.CodeInternal, "the system does not tell where this program is; name it with --command")
	case command == "" && !f.copies:
		return self, "", nil
	case !f.copies:
		return command, "", nil
	case command == "":
		dir, _ := a.lookupEnv("HOME")
		if u, err := user.Current(); !filepath.IsAbs(dir) && err == nil {
			dir = u.HomeDir
		}
		if !filepath.IsAbs(dir) {
			return "", "", &backend.Error{Code: backend.CodeUsage, Reason: "there is no home directory to copy the program to", Remedy: "name a place with --command"}
		}
		command = filepath.Join(dir, ".local", "libexec", "credresolve", filepath.Base(self))
	}
	one, err := os.Stat(self)
	if err == nil {
		if other, err := os.Lstat(command); err == nil && os.SameFile(one, other) {
			return command, "", nil
		}
	}
	return command, command, nil
}

// checkProgram holds the program to OpenClaw's rules, and says what to do about a fault.
func checkProgram(path string, owner int) error {
	policy := safefile.Policy{Links: safefile.LinksAbove, HardLinks: true, OpenParents: true, Executable: true, Deny: 0o022}
	if owner >= 0 {
		policy.Owners = []int{owner}
	}
	file, err := safefile.Open(path, policy)
	if err == nil {
		return file.Close()
	}
	e := &backend.Error{Code: backend.CodeDenied, Reason: "OpenClaw would not start " + path, Remedy: "add --copy, or name another file with --command"}
	var refused *safefile.Error
	if errors.As(err, &refused) {
		e.Reason += ": it " + refused.Reason
		switch refused.Problem {
		case safefile.NotFound:
			e.Remedy = "name another file with --command"
		case safefile.Owner:
			e.Reason += fmt.Sprintf(", and OpenClaw runs as uid %d", owner)
		case safefile.Mode:
			e.Remedy = "run: chmod go-w " + path + ", or add --copy"
		}
	}
	return e
}

// passed are variables that say where things of a user are; OpenClaw leaves out those that are not set.
var passed = []string{"CREDRESOLVE_SOCKET", "HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"}

// vaultVariables are what OpenClaw's resolver for Vault reads, and what the method approle reads beside them.
var vaultVariables = []string{
	"NODE_EXTRA_CA_CERTS", "OPENCLAW_VAULT_AUTH_METHOD", "OPENCLAW_VAULT_AUTH_MOUNT", "OPENCLAW_VAULT_AUTH_ROLE", "OPENCLAW_VAULT_JWT_FILE",
	"OPENCLAW_VAULT_KV_MOUNT", "OPENCLAW_VAULT_KV_VERSION", "VAULT_ADDR", "VAULT_CACERT", "VAULT_NAMESPACE", "VAULT_ROLE_ID", "VAULT_SECRET_ID",
	"VAULT_SECRET_ID_FILE", "VAULT_TOKEN", "VAULT_TOKEN_FILE",
}

// entry gives the provider to write.
func (a *app) entry(ctx context.Context, f installFlags, command string) (execEntry, error) {
	var none execEntry
	args := []string{"openclaw-exec"}
	pass := slices.Clone(passed)
	if f.vaultEnv {
		if _, _, err := openclawexec.VaultEnv(a.lookupEnv); err != nil {
			return none, err
		}
		args = append(args, "--vault-env")
		pass = append(pass, vaultVariables...)
	} else {
		file, project, err := a.load(ctx)
		if err != nil {
			return none, err
		}
		if project {
			e := backend.Errorf(backend.CodeUsage, "%s was found in the working directory, where it may be somebody else's", file.Path())
			e.Remedy = "to have OpenClaw use it, name it: --config " + shown(file.Path())
			return none, e
		}
		args = append(args, "--config", file.Path())
		pass = append(pass, variables(file)...)
	}
	if limit := time.Duration(f.timeoutMS) * time.Millisecond * 4 / 5; limit != openClawTime {
		args = append(args, "--timeout", limit.String())
	}
	for _, name := range f.passEnv {
		if err := (secretref.Grammar{}).Check(secretref.Ref{Source: secretref.Env, Provider: "default", ID: name}); err != nil {
			return none, backend.Errorf(backend.CodeUsage, "--pass-env must be the name of a variable that OpenClaw passes on: ^[A-Z][A-Z0-9_]{0,127}$")
		}
		pass = append(pass, name)
	}
	slices.Sort(pass)
	return execEntry{"exec", command, args, slices.Compact(pass), f.timeoutMS}, nil
}

// variables are those that the providers of file say they read, as far as OpenClaw can pass them on.
func variables(file *config.File) []string {
	var names []string
	for _, def := range file.Providers() {
		for _, r := range def.Reach {
			if r.What != backend.ReachEnvironment {
				continue
			}
			for name := range strings.SplitSeq(r.Value, ",") {
				name = strings.TrimSpace(name)
				if (secretref.Grammar{}).Check(secretref.Ref{Source: secretref.Env, Provider: "default", ID: name}) == nil {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// fileText gives the text of a home's configuration, of one that does not exist that of an empty one.
func fileText(doc *openclaw.Document) ([]byte, error) {
	if doc.File != nil {
		return []byte(doc.File.Text()), nil
	}
	return nil, nil
}

// edited gives text with the entry at path. Another entry that is there is replaced only if that is asked for.
func edited(text []byte, path []string, entry execEntry, replace bool) ([]byte, error) {
	src := text
	if len(bytes.TrimSpace(src)) == 0 {
		src = []byte("{}\n")
	}
	file, err := json5.Parse(src)
	if err != nil {
		return nil, err
	}
	if there := file.Root().Get(path...); there != nil {
		old, _ := there.Value().(map[string]any)
		if old != nil && sameEntry(old, entry) {
			return text, nil
		}
		if !replace && !ours(old) {
			return nil, &backend.Error{
				Code: backend.CodeConflict, Reason: "there is another provider " + path[len(path)-1], Remedy: "add --replace, or choose another name with --provider",
			}
		}
	}
	edits := []json5.Edit{}
	if there := file.Root().Get(path...); there != nil {
		edits = append(edits, json5.Edit{Path: path, Delete: true}) // a merge would keep keys that are not ours
	}
	return file.Apply(append(edits, json5.Edit{Path: path, Value: entry}))
}

// ours reports whether a provider starts this program as install writes it, so that writing it anew loses nothing of
// somebody else's: a setting that install does not write is one.
func ours(old map[string]any) bool {
	args, _ := old["args"].([]any)
	for key := range old {
		if !slices.Contains([]string{"source", "command", "args", "passEnv", "timeoutMs"}, key) {
			return false
		}
	}
	return old["source"] == "exec" && len(args) > 0 && args[0] == "openclaw-exec"
}

// sameEntry reports whether what stands there says what entry says.
func sameEntry(old map[string]any, entry execEntry) bool {
	text, err := json.Marshal(entry)
	var again map[string]any
	if err != nil || json.Unmarshal(text, &again) != nil {
		return false
	}
	one, err := json.Marshal(old)
	other, errToo := json.Marshal(again)
	return err == nil && errToo == nil && bytes.Equal(one, other)
}

// prove resolves one id through the entry as it stands in after.
func (a *app) prove(ctx context.Context, f installFlags, doc *openclaw.Document, after []byte, owner int) (proof, error) {
	file, err := json5.Parse(after)
	if err != nil {
		return proof{}, err
	}
	root, _ := file.Root().Value().(map[string]any)
	secrets, _ := root["secrets"].(map[string]any)
	providers, _ := secrets["providers"].(map[string]any)
	c, err := secretref.DecodeConfig(map[string]any{"providers": map[string]any{f.provider: providers[f.provider]}}, doc.Compat)
	if err != nil {
		return proof{}, fmt.Errorf("OpenClaw would not take the entry: %w", err)
	}
	id, must := a.provable(ctx, f, doc)
	host := secretref.Host{LookupEnv: a.lookupEnv}
	if owner >= 0 {
		host.Owners = []int{owner}
	}
	outcome := secretref.Resolve(ctx, c, host, []secretref.Ref{{Source: secretref.Exec, Provider: f.provider, ID: id}})[0]
	var failed *secretref.Error
	switch {
	case outcome.Err == nil:
		if err := secretref.CheckValue(id, outcome.Value, secretref.String); err != nil {
			return proof{}, err
		}
		if must {
			return proof{ID: id, Result: "resolved"}, nil
		}
		return proof{Result: "answered"}, nil
	case ctx.Err() != nil:
		return proof{}, context.Cause(ctx)
	case !must && errors.As(outcome.Err, &failed) && failed.Scope == secretref.ScopeRef:
		return proof{Result: "answered"}, nil
	}
	e := backend.Errorf(backend.CodeUnavailable, "nothing was written, since %s does not resolve through the entry: %v", id, outcome.Err)
	if !must {
		e.Reason = fmt.Sprintf("nothing was written, since the program does not answer: %v", outcome.Err)
	}
	e.Remedy = "to see why, run: echo '{\"protocolVersion\":1,\"provider\":\"" + f.provider + "\",\"ids\":[\"" + id + "\"]}' | credresolve openclaw-exec"
	if !f.vaultEnv {
		e.Remedy += " --config …"
	}
	return proof{}, e
}

// provable gives the id to resolve; must is false for one that need not be there.
func (a *app) provable(ctx context.Context, f installFlags, doc *openclaw.Document) (id string, must bool) {
	if f.id != "" {
		return f.id, true
	}
	if targets, err := openclaw.Targets(doc.Value, doc.Grammar); err == nil {
		for _, t := range targets {
			if t.Ref.Source == secretref.Exec && t.Ref.Provider == f.provider && !t.Inactive {
				return t.Ref.ID, true
			}
		}
	}
	if !f.vaultEnv {
		if file, _, err := a.load(ctx); err == nil {
			if aliases := slices.Sorted(maps.Keys(openClawNames(file, f.provider).Aliases)); len(aliases) > 0 {
				return aliases[0], true
			}
		}
	}
	return openclawexec.NoSuchID, false
}

// copyProgram puts a copy of the program at from to path, for its owner alone, whole or not at all.
func copyProgram(from, path string) error {
	failed := func(err error) error {
		return backend.Errorf(backend.CodeInternal, "the program cannot be copied to %s: %s", path, reason(err))
	}
	in, err := os.Open(from)
	if err != nil {
		return failed(err)
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return failed(err)
	}
	out, err := staged.New(path)
	if err != nil {
		return failed(err)
	}
	defer out.Drop()
	if _, err := io.Copy(out, in); err != nil {
		return failed(err)
	}
	if err := out.Chmod(0o700); err != nil {
		return failed(err)
	}
	if err := out.Place(); err != nil {
		return failed(err)
	}
	return nil
}

// replaceConfig puts after in the place of before, which the file must still hold, in one step and with its mode and owner. A
// link stays one.
func replaceConfig(ctx context.Context, path string, before, after []byte) error {
	failed := func(err error) error {
		return backend.Errorf(backend.CodeInternal, "%s cannot be written and is as it was: %s", path, reason(err))
	}
	real, err := filepath.EvalSymlinks(path)
	switch {
	case err == nil:
		path = real
	case exists(path):
		return backend.Errorf(backend.CodeUsage, "%s is a link that leads nowhere", path)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	case err == nil && !st.Mode().IsRegular():
		return backend.Errorf(backend.CodeUsage, "%s is no regular file", path)
	}
	if err != nil {
		return failed(err)
	}
	file, err := staged.New(path)
	if err != nil {
		return failed(err)
	}
	defer file.Drop()
	_, err = file.Write(after)
	if st != nil {
		err = errors.Join(err, file.Like(st))
	}
	if err = errors.Join(err, file.Sync()); err != nil {
		return failed(err)
	}
	now, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(err)
	}
	if !bytes.Equal(now, before) {
		return backend.Errorf(backend.CodeConflict, "%s has changed meanwhile; run the command again", path)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := file.Place(); err != nil {
		return failed(err)
	}
	return nil
}
