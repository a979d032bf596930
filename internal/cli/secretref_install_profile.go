package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/internal/openclawexec"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/secretref"
)

// profileFlags are the flags of secretref install that are about an auth profile.
type profileFlags struct {
	profile, ref, kind, agent, planOut string
	writeThrough, remove, unchecked    bool
}

func (f *profileFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.profile, "profile", "", "auth profile, by its `id`, that takes its secret from here")
	flags.StringVar(&f.ref, "ref", "", "`reference` to the secret of --profile")
	flags.StringVar(&f.agent, "agent", "", "`id` of the agent that --profile belongs to; default: main")
	flags.StringVar(&f.planOut, "plan-out", "", "write a plan for openclaw secrets apply to this `file`, for profiles in a database")
	flags.BoolVar(&f.writeThrough, "write-through", false, "write the secret itself into --profile, until it is revoked")
	flags.BoolVar(&f.remove, "remove", false, "remove the secret that --write-through wrote into --profile")
	flags.BoolVar(&f.unchecked, "unchecked", false, "do not resolve the reference through OpenClaw's provider first")
	choiceFlag(cmd, &f.kind, "type", "type of the profile; default: what it is, of a new one by the secret", authstore.TypeAPIKey, authstore.TypeToken)
	_ = cmd.MarkFlagFilename("plan-out", "json")
	_ = cmd.RegisterFlagCompletionFunc("ref", cobra.NoFileCompletions)
}

// asked reports whether cmd is about a profile. Flags that say nothing of one are refused beside it, and its own without it.
func (f *profileFlags) asked(cmd *cobra.Command) (bool, error) {
	own := []string{"profile", "ref", "agent", "plan-out", "write-through", "remove", "unchecked", "type"}
	shared := []string{"for", "provider", "dry-run", "output"}
	var err error
	mine := cmd.LocalNonPersistentFlags()
	cmd.Flags().Visit(func(set *pflag.Flag) {
		switch is := slices.Contains(own, set.Name); {
		case mine.Lookup(set.Name) == nil: // of every command
		case f.profile == "" && is:
			err = backend.Errorf(backend.CodeUsage, "--%s is about a profile: name it by --profile", set.Name)
		case f.profile != "" && !is && !slices.Contains(shared, set.Name):
			err = backend.Errorf(backend.CodeUsage, "--profile and --%s exclude each other", set.Name)
		}
	})
	return f.profile != "", err
}

// profileAnswer is the answer of secretref install --profile.
type profileAnswer struct {
	Profile string `json:"profile"`
	Store   string `json:"store"`
	// Way is delegated, planned, written or removed.
	Way string `json:"way"`
	Ref string `json:"ref,omitempty"`
	// Plan is the file with the plan, Next the command that carries it out.
	Plan string `json:"plan,omitempty"`
	Next string `json:"next,omitempty"`
	// DryRun: nothing was written.
	DryRun bool `json:"dry_run,omitempty"`
}

// installProfile lets an auth profile of the OpenClaw home at path, empty for that of the environment, take its secret from
// here: from the exec provider of that name in OpenClaw's configuration. A path may also be an auth-profiles.json.
func (a *app) installProfile(ctx context.Context, f profileFlags, args []string, provider string, dryRun bool, output string) error {
	switch {
	case f.writeThrough && f.remove:
		return backend.Errorf(backend.CodeUsage, "--write-through and --remove exclude each other")
	case (f.ref == "") != f.remove:
		return &backend.Error{Code: backend.CodeUsage, Reason: "--profile needs --ref, or --remove alone", Remedy: "such as --ref cred://app/kv/app/openai#key"}
	case f.planOut != "" && (f.writeThrough || f.remove):
		return backend.Errorf(backend.CodeUsage, "--plan-out is for a profile that points here, which is without --write-through and --remove")
	}
	path := ""
	if len(args) > 0 {
		path = args[0]
	}
	h, doc, err := a.profileHome(path, f.agent)
	if err != nil {
		return err
	}
	var answer *profileAnswer
	switch {
	case f.remove:
		answer, err = a.removeCopy(ctx, f, h, dryRun)
	case f.writeThrough:
		answer, err = a.writeCopy(ctx, f, h, dryRun)
	default:
		answer, err = a.delegate(ctx, f, h, doc, provider, dryRun)
	}
	if err != nil {
		if stop := stopped(ctx); stop != nil {
			return stop
		}
		return fmt.Errorf("auth profile %s: %w", f.profile, late(ctx, err))
	}
	answer.DryRun = dryRun
	if output == outputJSON {
		return a.writeJSON(answer)
	}
	text := answer.Way + " " + answer.Profile + "\n"
	if dryRun {
		text = "would be " + text
	}
	if answer.Next != "" {
		text += answer.Next + "\n"
	}
	return a.write([]byte(text))
}

// profileHome gives the agent whose profiles are meant, and OpenClaw's configuration, nil where only a store is known.
func (a *app) profileHome(path, agent string) (authstore.Home, *openclaw.Document, error) {
	if info, err := os.Stat(path); path != "" && (err != nil || !info.IsDir()) {
		if agent != "" {
			return authstore.Home{}, nil, backend.Errorf(backend.CodeUsage, "--agent is for a state directory, and %s is none", path)
		}
		if path, err = filepath.Abs(path); err != nil {
			return authstore.Home{}, nil, backend.Errorf(backend.CodeUsage, "there is no working directory: %s", reason(err))
		}
		return authstore.Home{Path: path}, nil, nil
	}
	home, err := a.openclawHome(path, "")
	if err != nil {
		return authstore.Home{}, nil, err
	}
	doc, err := home.Load()
	if err != nil {
		return authstore.Home{}, nil, backend.Errorf(backend.CodeUnavailable, "OpenClaw's configuration cannot be read: %v", err)
	}
	h := authstore.Home{StateDir: home.State, Agent: agent}
	for _, known := range doc.Agents {
		if known.ID != cmp.Or(agent, authstore.MainAgent) {
			continue
		}
		if known.Dir != filepath.Join(home.State, "agents", known.ID, "agent") {
			h = authstore.Home{Path: filepath.Join(known.Dir, authstore.FileName), Agent: agent}
			if database := filepath.Join(known.Dir, authstore.DatabaseName); exists(database) {
				h.Path = database
			}
		}
		return h, doc, nil
	}
	if agent != "" {
		return authstore.Home{}, nil, backend.Errorf(backend.CodeNotFound, "there is no agent %s in %s", agent, home.State)
	}
	return h, doc, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// delegate lets a profile take its secret from the exec provider, once that was seen to give one.
func (a *app) delegate(ctx context.Context, f profileFlags, h authstore.Home, doc *openclaw.Document, provider string, dryRun bool) (*profileAnswer, error) {
	ref := secretref.Ref{Source: secretref.Exec, Provider: provider, ID: f.ref}
	if strings.HasPrefix(f.ref, "cred://") {
		parsed, err := parseRef(f.ref)
		if err != nil {
			return nil, err
		}
		if ref.ID, err = openclawexec.ID(parsed); err != nil {
			return nil, err
		}
	}
	d := openclaw.Delegation{Home: h, Profile: f.profile, Type: f.kind, Ref: ref}
	had, err := d.Check(ctx, doc)
	if err != nil {
		return nil, err
	}
	if err := a.refuseLoop(ctx, provider, ref.ID, f.profile); err != nil {
		return nil, err
	}
	if !f.unchecked {
		if err := proveDelegation(ctx, a, ref, doc, had); err != nil {
			return nil, err
		}
	}
	answer := &profileAnswer{Profile: f.profile, Store: h.FilePath(), Way: "delegated", Ref: ref.Key()}
	if f.planOut == "" {
		database, err := h.KeptInDatabase(ctx)
		switch {
		case err != nil:
			return nil, err
		case database == "" && dryRun:
			return answer, nil
		case database == "":
			if d.Shared {
				a.warn("the plain secret stays in the profile of the agent %s, for every agent that inherits it", authstore.MainAgent)
			}
			return answer, d.Write(ctx)
		}
		return nil, &backend.Error{
			Code:   backend.CodeUnsupported,
			Reason: "OpenClaw keeps its auth profiles in the database " + database + ", which OpenClaw alone writes",
			Remedy: "write a plan with --plan-out plan.json, and run: openclaw secrets apply --from plan.json --allow-exec",
		}
	}
	plan, err := d.Plan(time.Now())
	if err != nil {
		return nil, err
	}
	out, err := newOutFile(f.planOut, "")
	if err != nil {
		return nil, err
	}
	if !dryRun {
		if err := out.write(ctx, plan); err != nil {
			return nil, err
		}
	}
	answer.Way, answer.Plan = "planned", f.planOut
	if answer.Store = h.Path; answer.Store == "" {
		answer.Store = h.StateDir
	}
	answer.Next = "openclaw secrets apply --from " + f.planOut + " --allow-exec"
	if d.Shared {
		answer.Next = "openclaw models auth logout " + f.profile + " --yes && " + answer.Next
		a.warn("the plain secret is in the store that all agents share: the first command removes it there, for all of them")
	}
	return answer, nil
}

// refuseLoop refuses a profile that would take its secret from itself, through a provider of kind authprofiles.
func (a *app) refuseLoop(ctx context.Context, provider, id, profile string) error {
	file, _, err := a.load(ctx)
	if err != nil {
		return nil // nothing is known of where the id leads
	}
	ref, err := openClawNames(file, provider).Ref(id)
	if err != nil || ref.ID != profile {
		return nil // the proof tells
	}
	if p := file.Provider(ref.Provider); p != nil && p.Kind == authprofilesKind {
		return &backend.Error{
			Code:   backend.CodeUnsupported,
			Reason: fmt.Sprintf("%s is read from an auth profile of that name itself: it would be a loop", ref),
			Remedy: "put the secret into another store first: credresolve put",
		}
	}
	return nil
}

// authprofilesKind is the kind of store that reads auth profiles.
const authprofilesKind = "authprofiles"

// proveDelegation resolves ref as OpenClaw would, before a secret beside it is taken away.
func proveDelegation(ctx context.Context, a *app, ref secretref.Ref, doc *openclaw.Document, had backend.Secret) error {
	if doc == nil {
		return &backend.Error{
			Code: backend.CodeUsage, Reason: "a store by itself does not say which providers OpenClaw has",
			Remedy: "name the state directory instead, or add --unchecked",
		}
	}
	if p, ok := doc.Secrets.Providers[ref.Provider]; !ok || p.Source != secretref.Exec {
		return &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: fmt.Sprintf("OpenClaw's configuration has no exec provider %s", ref.Provider),
			Remedy: "run first: credresolve secretref install --for openclaw",
		}
	}
	o := secretref.Resolve(ctx, doc.Secrets, doc.Host(), []secretref.Ref{ref})[0]
	err := o.Err
	if err == nil {
		err = secretref.CheckValue(ref.Key(), o.Value, secretref.String)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &backend.Error{Code: proofCode(err), Reason: fmt.Sprintf("OpenClaw would not resolve it, and nothing was changed: %v", err), Remedy: "see: credresolve get"}
	}
	if !had.IsZero() && !had.Equal(o.Value) {
		a.warn("the profile held another secret than it gets now")
	}
	return nil
}

func proofCode(err error) backend.Code {
	var e *secretref.Error
	if errors.As(err, &e) && e.Code == secretref.RefNotFound {
		return backend.CodeNotFound
	}
	return backend.CodeUnavailable
}

// writeCopy writes the secret itself into a profile.
func (a *app) writeCopy(ctx context.Context, f profileFlags, h authstore.Home, dryRun bool) (*profileAnswer, error) {
	ref, err := parseRef(f.ref)
	if err != nil {
		return nil, err
	}
	provider, ok := authstore.ProviderOf(f.profile)
	if !ok {
		return nil, &backend.Error{Code: backend.CodeInvalidID, Reason: "the id of an auth profile is PROVIDER:NAME", Remedy: "such as openai:shared"}
	}
	switch database, err := h.KeptInDatabase(ctx); {
	case err != nil:
		return nil, err
	case database != "":
		return nil, errCopyInDatabase(database)
	}
	state, err := a.openStateDir()
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "what is written must be remembered, to end with the secret: %v", err)
	}
	ctx, s, done, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	o := s.resolve(ctx, []credref.Ref{ref})[0]
	if o.Err != nil {
		return nil, o.Err
	}
	e := copyOf(o.Value, f.kind)
	e.Provider = provider
	if e.Type == authstore.TypeAPIKey && !o.Value.Expires().IsZero() {
		a.warn("the secret ends at %s, which a profile of type api_key does not say", o.Value.Expires().UTC().Format(time.RFC3339))
	}
	answer := &profileAnswer{Profile: f.profile, Store: h.FilePath(), Way: "written", Ref: ref.String()}
	if dryRun {
		return answer, nil
	}
	err = openclaw.Copies{Dir: state}.Write(ctx, h, f.profile, e, ref, o.Value.Revision())
	if database, is := openclaw.InDatabase(err); is {
		return nil, errCopyInDatabase(database)
	} else if err != nil {
		return nil, err
	}
	return answer, nil
}

// copyOf is a profile of v: a token where it has an end or is one, else a key.
func copyOf(v *resolver.Value, kind string) authstore.Entry {
	e := authstore.Entry{Type: kind, Secret: v.Secret(), Expires: v.Expires()}
	if e.Type == "" {
		e.Type = authstore.TypeAPIKey
		if t := v.Type(); t == backend.TypeToken || t == backend.TypeOAuth2 || !e.Expires.IsZero() {
			e.Type = authstore.TypeToken
		}
	}
	return e
}

func errCopyInDatabase(path string) error {
	return &backend.Error{
		Code:   backend.CodeUnsupported,
		Reason: "OpenClaw keeps its auth profiles in the database " + path + ", which OpenClaw alone writes",
		Remedy: "let the profile point here: leave --write-through away",
	}
}

// removeCopy removes what writeCopy wrote.
func (a *app) removeCopy(ctx context.Context, f profileFlags, h authstore.Home, dryRun bool) (*profileAnswer, error) {
	state, err := a.openStateDir()
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "what was written is not remembered: %v", err)
	}
	answer := &profileAnswer{Profile: f.profile, Store: h.FilePath(), Way: "removed"}
	if dryRun {
		return answer, nil
	}
	err = openclaw.Copies{Dir: state}.Remove(ctx, h, f.profile)
	if database, is := openclaw.InDatabase(err); is {
		return nil, &backend.Error{
			Code:   backend.CodeUnsupported,
			Reason: "OpenClaw keeps its auth profiles in the database " + database + ", which OpenClaw alone writes",
			Remedy: "remove it there: openclaw models auth logout " + f.profile,
		}
	} else if err != nil {
		return nil, err
	}
	return answer, nil
}

// profileCopies are the auth profiles that hold copies of secrets, as a sidecar ends them.
type profileCopies struct {
	openclaw.Copies
	app *app
}

// refs are what there are copies of.
func (c profileCopies) refs() []credref.Ref {
	all, err := c.List()
	if err != nil {
		c.app.warn("%v", err)
	}
	var refs []credref.Ref
	for _, one := range all {
		if ref, err := credref.Parse(one.Ref); err == nil && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

func (c profileCopies) end(ctx context.Context, ref credref.Ref) error { return c.End(ctx, ref) }

// endCopies removes the copies of a secret that was deleted.
func (a *app) endCopies(ctx context.Context, ref credref.Ref) error {
	state := a.stateDir()
	if state == "" {
		return nil // nothing was remembered, nor written
	}
	if err := (openclaw.Copies{Dir: state}).End(ctx, ref); err != nil {
		return fmt.Errorf("%s is deleted, but: %w", ref, err)
	}
	return nil
}
