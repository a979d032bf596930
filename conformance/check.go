package conformance

import "github.com/credresolve/credresolve/backend"

func checkCases() []Case {
	return []Case{
		{
			Name: "check/version", Capability: "check", Rule: "CurrentVersion is what Get gives as Credential.Version, before and after a change", Needs: []string{"get/fresh", "get/identity"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				before := t.currentVersion(b, id)
				if c := t.mustGet(b, request(id)); c.Version != before || before == "" {
					t.Errorf("CurrentVersion: expected Credential.Version, saw another or none")
				}
				t.put(id, t.canary())
				after := t.currentVersion(b, id)
				if c := t.mustGet(b, request(id)); c.Version != after || after == before {
					t.Errorf("CurrentVersion after a change: expected the new Credential.Version, saw another")
				}
			},
		},
		{
			Name: "check/missing", Capability: "check", Rule: "CurrentVersion of a secret that does not exist is not_found, as from Get", Needs: []string{"get/missing"},
			run: func(t *trial) {
				b := t.open()
				c := capability[backend.Checker](t, b, "check")
				t.stored()
				t.at("in CurrentVersion")
				_, err := c.CurrentVersion(t.ctx, request(t.id("missing")))
				t.supported(err, "check")
				t.wantErr("CurrentVersion of a secret that does not exist", err, backend.CodeNotFound)
			},
		},
		{
			Name: "check/reads-nothing", Capability: "check", Rule: "CurrentVersion reads no secret", Needs: []string{"check/version"},
			run: func(t *trial) {
				b := t.open()
				id, _ := t.stored()
				t.readsNothing("CurrentVersion", func() { t.currentVersion(b, id) })
			},
		},
	}
}

func probeCases() []Case {
	const capProbe = "probe"
	return []Case{
		{
			Name: "probe/ok", Capability: capProbe, Rule: "Probe says yes when Get would succeed", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				if err := t.probe(b); err != nil {
					t.Errorf("Probe of a store that answers: expected no error, saw %s", t.sawErr(err))
				}
				if err := t.probe(t.open()); err != nil {
					t.Errorf("Probe as the first call of a backend: expected no error, saw %s", t.sawErr(err))
				}
			},
		},
		{
			Name: "probe/fails", Capability: capProbe, Rule: "Probe says no when Get would fail for every secret, and with the same error", Needs: []string{"probe/ok", "fault/recovers", "fault/unavailable", "fault/locked", "fault/auth-required"},
			run: func(t *trial) {
				b := t.open()
				id, _ := t.stored()
				caused := false
				for _, kind := range []FaultKind{FaultDisappear, FaultLock, FaultLogout} {
					undo, ok := t.tryFault(Fault{Kind: kind})
					if !ok {
						continue
					}
					caused = true
					_, want := t.get(b, request(id))
					err := t.probe(b)
					if err == nil || backend.CodeOf(err) != backend.CodeOf(want) {
						t.Errorf("Probe under the fault %s: expected %s as from Get, saw %s", kind, backend.CodeOf(want), t.sawErr(err))
					}
					undo()
				}
				t.need(caused, "a fault", "let Harness.Fault cause disappear, lock or logout")
			},
		},
		{
			Name: "probe/reads-nothing", Capability: capProbe, Rule: "Probe reads no secret", Needs: []string{"probe/ok"},
			run: func(t *trial) {
				b := t.open()
				t.stored()
				t.readsNothing("Probe", func() { _ = t.probe(b) })
			},
		},
	}
}

func (t *trial) currentVersion(b backend.Backend, id string) string {
	c := capability[backend.Checker](t, b, "check")
	t.at("in CurrentVersion")
	version, err := c.CurrentVersion(t.ctx, request(id))
	t.supported(err, "check")
	if err != nil {
		t.Fatalf("CurrentVersion of a secret that exists: expected a version, saw %s", t.sawErr(err))
	}
	return version
}

func (t *trial) probe(b backend.Backend) error {
	p := capability[backend.Prober](t, b, "probe")
	t.at("in Probe")
	err := p.Probe(t.ctx)
	t.supported(err, "probe")
	return err
}

func (t *trial) readsNothing(what string, f func()) {
	t.need(t.h.Reads != nil, "a count of the secrets that the store gave out", "set Harness.Reads")
	before := t.h.Reads(t)
	f()
	if n := t.h.Reads(t) - before; n != 0 {
		t.Errorf("%s: expected that it reads no secret, saw it read %d", what, n)
	}
}

// openShared opens a further backend onto the same store, or where there is none skips the case.
func (t *trial) openShared() backend.Backend {
	t.need(!t.h.Private, "two backends onto one store", "Harness.Private says that each has a store of its own")
	return t.open()
}
