package conformance

import "github.com/credresolve/credresolve/backend"

func versionCases() []Case {
	return []Case{
		{
			Name: "version/refused", Rule: "a backend without versions refuses one, it never ignores it", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				t.need(!backend.Describe(b).Versions, "a backend without versions", "this one has them, see the cases about version")
				id, v := t.stored()
				t.check(b, id, v)
				c, err := t.get(b, backend.Request{ID: id, Version: "1"})
				if err == nil {
					t.Errorf("Get of a version: expected unsupported, saw %s", t.saw(c, err))
					return
				}
				t.wantErr("Get of a version", err, backend.CodeUnsupported)
			},
		},
		{
			Name: "version/current", Capability: "version", Rule: "without a version Get gives the newest, and names it so that it can be asked for", Needs: []string{"get/fresh"},
			run: func(t *trial) {
				b, id, _, current, names := t.versioned()
				c := t.mustGet(b, request(id))
				t.wantPlain("Get without a version", c, current)
				t.wantPlain("Get of the newest version", t.mustGet(b, backend.Request{ID: id, Version: names.Current}), current)
				if c.Version == "" {
					t.Errorf("Credential.Version: expected the name of the version, saw none")
					return
				}
				t.wantPlain("Get of Credential.Version", t.mustGet(b, backend.Request{ID: id, Version: c.Version}), current)
			},
		},
		{
			Name: "version/pinned", Capability: "version", Rule: "a version that is named gives that version for good", Needs: []string{"version/current"},
			run: func(t *trial) {
				b, id, previous, current, names := t.versioned()
				t.need(names.Previous != "", "a store that keeps versions", "name Versions.Previous in Harness.Advance")
				t.wantPlain("Get of the version before", t.mustGet(b, backend.Request{ID: id, Version: names.Previous}), previous)
				t.h.Advance(t, id, plainValue(t.canary()))
				t.wantPlain("Get of a version after another came", t.mustGet(b, backend.Request{ID: id, Version: names.Current}), current)
			},
		},
		{
			Name: "version/missing", Capability: "version", Rule: "a version that does not exist is not_found", Needs: []string{"version/current"},
			run: func(t *trial) {
				b, id, _, _, names := t.versioned()
				t.need(names.Missing != "", "the name of a version that does not exist", "name Versions.Missing in Harness.Advance")
				_, err := t.get(b, backend.Request{ID: id, Version: names.Missing})
				t.wantErr("Get of a version that does not exist", err, backend.CodeNotFound)
			},
		},
		{
			Name: "version/stage", Capability: "version", Rule: "a stage moves on with each version", Needs: []string{"version/current"},
			run: func(t *trial) {
				b, id, previous, current, names := t.versioned()
				t.need(names.CurrentStage != "", "a store with stages", "name Versions.CurrentStage in Harness.Advance")
				stage := func(what, name string, want []byte) {
					if name != "" {
						t.wantPlain("Get of the "+what+" stage", t.mustGet(b, backend.Request{ID: id, Version: name}), want)
					}
				}
				stage("current", names.CurrentStage, current)
				stage("previous", names.PreviousStage, previous)
				next := t.canary()
				t.h.Advance(t, id, plainValue(next))
				stage("current", names.CurrentStage, next)
				stage("previous", names.PreviousStage, current)
			},
		},
	}
}

// versioned gives a backend with versions and a secret that has two of them, or skips the case.
func (t *trial) versioned() (b backend.Backend, id string, previous, current []byte, names Versions) {
	b = t.open()
	t.need(backend.Describe(b).Versions, "the capability version", "set Description.Versions where a version may be asked for")
	t.need(t.h.Advance != nil, "a way to make a new version", "set Harness.Advance")
	id, previous = t.stored()
	t.check(b, id, previous)
	current = t.canary()
	t.at("making a new version through the harness")
	names = t.h.Advance(t, id, plainValue(current))
	return b, id, previous, current, names
}

func describeCases() []Case {
	return []Case{
		{
			Name: "describe/no-io", Rule: "Describe does no I/O and always says the same", Needs: []string{"open/no-io"},
			run: func(t *trial) {
				d := t.dialer()
				b := t.openThrough(d)
				describer := capability[backend.Describer](t, b, "describe")
				t.at("in Describe")
				before := describer.Describe()
				if n := d.accepted.Load(); n > 0 {
					t.Errorf("Describe: expected no connection to the store, saw %d", n)
				}
				if after := describer.Describe(); before != after {
					t.Errorf("a second Describe: expected the same Description, saw another")
				}
			},
		},
		{
			Name: "describe/limits", Rule: "Description gives limits that are the store's, and no secret",
			run: func(t *trial) {
				d := capability[backend.Describer](t, t.open(), "describe").Describe()
				switch most := t.h.Limits.MaxValue; {
				case d.MaxValue < 0 || d.MaxBatch < 0:
					t.Errorf("MaxValue and MaxBatch: expected no negative limit, saw %d and %d", d.MaxValue, d.MaxBatch)
				case d.MaxValue > 0 && (most == 0 || most > d.MaxValue):
					t.Errorf("Description.MaxValue: expected no less than Limits.MaxValue, %d with 0 for no limit, saw %d", most, d.MaxValue)
				}
				t.hides("Description.Detail", d.Detail)
			},
		},
	}
}
