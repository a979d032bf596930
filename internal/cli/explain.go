package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/policy"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

// explained is all that is known of a ref, for a program. It holds no value.
type explained struct {
	Ref      credref.Ref      `json:"ref"`
	Provider explainedOwner   `json:"provider"`
	AnswerBy string           `json:"answered_by"` // sidecar, or process
	Places   []client.Place   `json:"places"`
	Breaker  *explainedGuard  `json:"breaker,omitempty"`
	Login    *loginInfo       `json:"login,omitempty"`
	Policy   *allowed         `json:"policy,omitempty"`
	Outcome  *explainedResult `json:"outcome,omitempty"`
	Problem  *client.Error    `json:"problem,omitempty"`
	// Chain are the refs of the provider's settings, which are resolved first where it has to log in.
	Chain []explained `json:"chain,omitempty"`
}

type explainedOwner struct {
	Name       string           `json:"name"`
	Kind       string           `json:"kind"`
	Detail     string           `json:"detail,omitempty"`
	Config     string           `json:"config"`
	Line       int              `json:"line"`
	Trusted    bool             `json:"trusted"`
	Reaches    []explainedReach `json:"reaches"`
	Scope      []string         `json:"scope,omitempty"`
	IDTemplate string           `json:"id_template,omitempty"`
}

type explainedReach struct {
	What  backend.ReachType `json:"what"`
	Value string            `json:"value"`
}

type explainedGuard struct {
	State    string       `json:"state"`
	Failures int          `json:"failures,omitempty"`
	RetryAt  *time.Time   `json:"retry_at,omitempty"`
	Code     backend.Code `json:"code,omitempty"`
	Reason   string       `json:"reason,omitempty"`
}

type explainedResult struct {
	OK    bool          `json:"ok"`
	Error *client.Error `json:"error,omitempty"`
}

func (a *app) explain() *cobra.Command {
	var resolve bool
	var consumer string
	var output *string
	cmd := &cobra.Command{
		Use:   "explain REF",
		Short: "Tell how a reference resolves: the whole chain, ages, logins and the next refresh",
		Long: `Tell how a reference resolves: which provider of which kind answers, in this process or in the sidecar, what that touches, where
it looks and in which order, what is cached since when and until when, when a successor is fetched, whether the store is
left alone after failures, who is logged in, and whether the policy of the sidecar allows it; then the same of the
references in the provider's own settings. No value is shown.

Nothing is resolved, and no store is asked, without --resolve. What this process would resolve itself is not cached
before that.`,
		Example: `  credresolve explain cred://app/kv/app/db#password
  credresolve explain --resolve cred://github/default
  credresolve explain --consumer web --output json cred://app/kv/app/db`,
		Args:              exactly(1, "one reference"),
		ValidArgsFunction: a.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			x := &explainer{s: s}
			if x.policyFor, err = s.consumer(consumer); err != nil {
				return err
			}
			if x.logins, err = a.knownLogins(); err != nil {
				x.unlisted = true
				a.complain(err)
			}
			var failed error
			if resolve {
				o := s.resolve(ctx, []credref.Ref{ref})[0]
				if failed = o.Err; backend.CodeOf(failed) == backend.CodeFieldRequired {
					failed = nil // it resolved
				}
				if stop := stopped(ctx); stop != nil {
					return stop
				}
			}
			out, err := x.explain(ctx, ref)
			if err != nil {
				return err
			}
			if resolve {
				out.Outcome = &explainedResult{OK: failed == nil, Error: client.NewError(failed)}
			}
			if *output == outputJSON {
				err = a.writeJSON(out)
			} else {
				var text bytes.Buffer
				out.text(&text, "", "", time.Now())
				err = a.write(text.Bytes())
			}
			if err != nil {
				return err
			}
			return a.failed([]error{failed}, *output != outputJSON)
		},
	}
	cmd.Flags().BoolVar(&resolve, "resolve", false, "resolve the reference first, and tell how that went")
	cmd.Flags().StringVar(&consumer, "consumer", config.OwnerName, "`name` of the consumer of whom the policy is told")
	output = outputFlag(cmd)
	return cmd
}

// consumer gives who is asked about in the policy.
func (s *session) consumer(name string) (*policy.Consumer, error) {
	var providers []string
	for _, p := range s.file.Providers() {
		providers = append(providers, p.Name)
	}
	p, err := policy.New(s.file.Serve(), providers, os.Geteuid())
	if err != nil {
		return nil, err
	}
	if c := p.Named(name); c != nil {
		return c, nil
	}
	return nil, unknownName("consumer", name, append(p.Names(), config.OwnerName))
}

type explainer struct {
	s         *session
	policyFor *policy.Consumer
	logins    []grants.Entry
	unlisted  bool // logins could not be read
}

// explain tells of ref and its chain, which has no circle.
func (x *explainer) explain(ctx context.Context, ref credref.Ref) (explained, error) {
	s := x.s
	b, err := s.Backend(ref.Provider)
	if err != nil {
		return explained{}, err
	}
	def := s.file.Provider(ref.Provider)
	out := explained{Ref: ref, AnswerBy: "process", Places: []client.Place{}, Provider: explainedOwner{
		Name: def.Name, Kind: def.Kind, Detail: backend.Describe(b).Detail, Config: s.file.Path(), Line: def.Line,
		Trusted: !config.IsUntrusted(b), Reaches: []explainedReach{}, Scope: def.Scope(), IDTemplate: def.Text("id_template"),
	}}
	for _, r := range def.Reach {
		out.Provider.Reaches = append(out.Provider.Reaches, explainedReach{r.What, r.Value})
	}
	if !def.Known {
		out.Provider.Reaches = append(out.Provider.Reaches, explainedReach{"anything", "this kind does not tell what it touches"})
	}
	x.stands(ctx, &out)
	if _, ok := grants.As(b); ok {
		login := loginInfo{Provider: ref.Provider, ID: ref.ID, Status: grants.StatusAuthRequired, Reason: "nobody has logged in", KeptIn: s.tokenStore()}
		if x.unlisted {
			login.Status, login.Reason = grants.StatusUnknown, "the list of logins cannot be read"
		}
		for _, e := range x.logins {
			if e.Provider == ref.Provider && e.ID == ref.ID && e.Subject == (backend.Subject{}) {
				login = s.newLoginInfo(e)
			}
		}
		out.Login = &login
	}
	d := x.policyFor.Resolve(ref)
	out.Policy = &allowed{ref, d.Allowed, d.Rule, d.Reason}
	for _, next := range def.Chain {
		link, err := x.explain(ctx, next)
		if err != nil {
			return out, err
		}
		out.Chain = append(out.Chain, link)
	}
	return out, nil
}

// stands adds where the ref is looked for, and what is cached of it: at the sidecar, where that answers, else here.
func (x *explainer) stands(ctx context.Context, out *explained) {
	s := x.s
	if with := s.answering(ctx); with.has(out.Ref) {
		ctx, cancel := context.WithTimeout(ctx, sidecarTime)
		defer cancel()
		theirs, err := with.Explain(ctx, out.Ref)
		if err == nil {
			out.AnswerBy, out.Places = "sidecar", theirs.Places
			p := theirs.Provider
			out.Breaker = &explainedGuard{p.Breaker, p.Failures, p.RetryAt, p.Code, p.Reason}
			return
		}
		s.app.log.Debug("the sidecar gives no answer", "ref", out.Ref.String(), "code", string(backend.CodeOf(err)))
	}
	ours, err := s.Inspect(ctx, out.Ref)
	if err != nil {
		out.Problem = client.NewError(err)
		return
	}
	for _, p := range ours.Places {
		out.Places = append(out.Places, client.NewPlace(p))
	}
	p := ours.Provider
	out.Breaker = &explainedGuard{p.Breaker, p.Failures, when(p.RetryAt), p.Code, p.Reason}
}

// text writes x as a part of a tree: first stands before its head, rest before all other lines.
func (x *explained) text(out *bytes.Buffer, first, rest string, now time.Time) {
	fmt.Fprintf(out, "%s%s\n", first, printable(x.Ref.String()))
	bar := "  "
	if len(x.Chain) > 0 {
		bar = "│ "
	}
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%s%s%-9s %s\n", rest, bar, name, cell(fmt.Sprintf(format, args...)))
	}
	p := x.Provider
	about := fmt.Sprintf("%s (%s), %s:%d", p.Name, p.Kind, shown(p.Config), p.Line)
	if p.Detail != "" {
		about += ": " + p.Detail
	}
	line("provider", "%s", about)
	for _, r := range p.Reaches {
		line("reaches", "%s %s", r.What, r.Value)
	}
	if x.AnswerBy == "sidecar" {
		line("answer by", "the sidecar of this user")
	} else {
		line("answer by", "this process")
	}
	if len(p.Scope) > 0 {
		line("scope", "%s", scopeText(p.Scope))
	}
	if p.IDTemplate != "" {
		line("template", "%s", p.IDTemplate)
	}
	if x.Problem != nil {
		line("problem", "%s: %s", x.Problem.Code, x.Problem.Message)
	}
	for _, place := range x.Places {
		line("looked for", "%s", placeText(place, len(x.Places) > 1 || place.ID != x.Ref.ID))
		for _, text := range knownText(place, now) {
			line("", "%s", text)
		}
	}
	if g := x.Breaker; g != nil && (g.State != resolver.BreakerClosed || g.Failures > 0) {
		text := fmt.Sprintf("%s after %d failures in a row", strings.ReplaceAll(g.State, "_", " "), g.Failures)
		if g.Code != "" {
			text += ", the last one " + string(g.Code)
		}
		if g.Reason != "" {
			text += ": " + g.Reason
		}
		if g.RetryAt != nil {
			text += "; the next try is " + ago(*g.RetryAt, now)
		}
		line("breaker", "%s", text)
	} else if g != nil {
		line("breaker", "closed")
	}
	if l := x.Login; l != nil {
		switch {
		case isLoggedIn(l.Status):
			line("login", "%s; kept in %s", l.present(), l.KeptIn)
		default:
			text := strings.ReplaceAll(string(l.Status), "_", " ")
			if l.Reason != "" {
				text += ": " + l.Reason
			}
			line("login", "%s; log in: %s", text, l.command())
		}
	}
	if d := x.Policy; d != nil {
		if d.Allowed {
			line("policy", "allowed: %s", d.Rule)
		} else {
			line("policy", "denied: %s: %s", d.Rule, d.Reason)
		}
	}
	if o := x.Outcome; o != nil {
		if o.OK {
			line("outcome", "it resolves")
		} else {
			line("outcome", "%s: %s", o.Error.Code, o.Error.Message)
		}
	}
	for i := range x.Chain {
		head, below := "├─ ", "│  "
		if i == len(x.Chain)-1 {
			head, below = "└─ ", "   "
		}
		x.Chain[i].text(out, rest+head, rest+below, now)
	}
}

// scopeText tells in which order subjects are looked up.
func scopeText(scope []string) string {
	var order []string
	for _, one := range []string{"session", "end_user", "tenant"} {
		if slices.Contains(scope, one) {
			order = append(order, strings.ReplaceAll(one, "_", " "))
		}
	}
	text := strings.Join(append(order, "everybody"), ", then ")
	if slices.Contains(scope, "plugin") {
		text += "; each plugin apart"
	}
	return text
}

func placeText(p client.Place, full bool) string {
	text := "as " + p.ID
	if !full && p.Subject == nil {
		return "once, for everybody"
	}
	if s := p.Subject; s != nil {
		var parts []string
		for _, part := range []struct{ name, value string }{{"session", s.Session}, {"end user", s.EndUser}, {"tenant", s.Tenant}, {"plugin", s.Plugin}} {
			if part.value != "" {
				parts = append(parts, part.name+" "+part.value)
			}
		}
		return text + ", of " + strings.Join(parts, ", ")
	}
	return text + ", for everybody"
}

// knownText tells what is known of a place, in lines.
func knownText(p client.Place, now time.Time) []string {
	switch {
	case p.Missing:
		text := "the store has no such secret"
		if p.FreshUntil != nil {
			text += "; it is asked again " + ago(*p.FreshUntil, now)
		}
		return []string{text}
	case p.Revision == "":
		if p.Fetching {
			return []string{"it is being fetched"}
		}
		return []string{"not cached"}
	}
	lines := []string{fmt.Sprintf("%s, %s", strings.ReplaceAll(string(p.State), "_", " "), p.Type)}
	add := func(format string, at *time.Time) {
		if at != nil {
			lines[len(lines)-1] += fmt.Sprintf(format, ago(*at, now))
		}
	}
	add(", fetched %s", p.FetchedAt)
	add(", next refresh %s if it is used", p.NextRefresh)
	lines = append(lines, "revision "+p.Revision)
	if p.Version != "" {
		lines[1] += ", version " + p.Version
	}
	expires := "it does not expire"
	if p.ExpiresAt != nil {
		expires = "it expires " + ago(*p.ExpiresAt, now)
	}
	lines = append(lines, expires)
	if p.FreshUntil != nil && p.ServedUntil != nil {
		lines[len(lines)-1] += fmt.Sprintf("; fresh %s, served %s", lasts(*p.FreshUntil, now), lasts(*p.ServedUntil, now))
	}
	if p.Lease > 0 {
		lines[2] += fmt.Sprintf("; lease of %v", time.Duration(p.Lease))
	}
	if p.Failures > 0 {
		text := fmt.Sprintf("%d fetches of a successor failed, at last with %s", p.Failures, p.Code)
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		lines = append(lines, text)
		add(", %s", p.FailedAt)
	}
	return lines
}

// lasts tells how much longer than now until is.
func lasts(until, now time.Time) string {
	if in, ok := strings.CutPrefix(ago(until, now), "in "); ok {
		return "for " + in
	}
	return "no longer"
}

// ago gives t as people say it.
func ago(t, now time.Time) string {
	d := t.Sub(now)
	round := func(d time.Duration) string {
		switch {
		case d < time.Second:
			return "less than 1s"
		case d < time.Minute:
			return d.Round(time.Second).String()
		case d < 48*time.Hour:
			return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
		}
		return fmt.Sprintf("%d days", int(d.Hours()/24+0.5))
	}
	if d < 0 {
		return round(-d) + " ago"
	}
	return "in " + round(d)
}
