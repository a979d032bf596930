package conformance

import (
	"context"
	"fmt"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

func listCases() []Case {
	const capList = "list"
	return []Case{
		{
			Name: "list/all", Capability: capList, Rule: "List names every secret once", Needs: []string{"get/value"},
			run: func(t *trial) {
				l, prefix, ids := t.listing(3)
				t.wantListed(t.list(l, prefix), ids)
			},
		},
		{
			Name: "list/prefix", Capability: capList, Rule: "List names only ids that start with the prefix, and none where there is none", Needs: []string{"list/all"},
			run: func(t *trial) {
				l, prefix, _ := t.listing(0)
				ids := []string{t.named("a"), t.named("ab"), t.named("b")}
				for _, id := range ids {
					t.put(id, t.canary())
				}
				t.wantListed(t.list(l, ids[0]), ids[:2])
				t.wantListed(t.list(l, ids[1]), ids[1:2])
				t.wantListed(t.list(l, prefix+"nothing-starts-so"), nil)
			},
		},
		{
			Name: "list/pages", Capability: capList, Rule: "List goes on over all pages of the store", Needs: []string{"list/all"},
			run: func(t *trial) {
				l, prefix, ids := t.listing(2*t.h.Limits.page() + 1)
				t.wantListed(t.list(l, prefix), ids)
			},
		},
		{
			Name: "list/gettable", Capability: capList, Rule: "Get takes the ids that List names", Needs: []string{"list/all"},
			run: func(t *trial) {
				l, prefix, _ := t.listing(2)
				for _, e := range t.list(l, prefix) {
					if c, err := t.get(l, request(e.ID)); err != nil {
						t.Errorf("Get of an id that List named: expected a credential, saw %s", t.saw(c, err))
					} else if e.Version != "" && e.Version != c.Version {
						t.Errorf("Entry.Version: expected Credential.Version or none, saw another")
					}
				}
			},
		},
		{
			Name: "list/break", Capability: capList, Rule: "List ends when its caller has enough", Needs: []string{"list/all"},
			run: func(t *trial) {
				l, prefix, _ := t.listing(3)
				n, after := 0, 0
				t.at("in List")
				l.List(t.ctx, prefix)(func(backend.Entry, error) bool {
					if n++; n > 1 {
						after++
					}
					return false
				})
				if after > 0 {
					t.Errorf("List after its caller had enough: expected nothing, saw %d more", after)
				}
			},
		},
		{
			Name: "list/stable", Capability: capList, Rule: "a secret that is there all the time is listed once, whatever is written meanwhile", Needs: []string{"list/pages", "list/break"},
			run: func(t *trial) {
				l, prefix, ids := t.listing(t.h.Limits.page() + 2)
				t.need(t.h.Delete != nil, "a way to remove a secret", "set Harness.Delete")
				seen := make(map[string]int)
				goes, ids := ids[0], ids[1:]
				writes := 0
				t.at("in List, with writes between")
				for e, err := range l.List(t.ctx, prefix) {
					if err != nil {
						t.Fatalf("List: expected an entry, saw %s", t.sawErr(err))
					}
					seen[e.ID]++
					t.alive()
					if writes++; writes <= 3 {
						t.put(t.id("new"), t.canary())
					}
					if e.ID == goes {
						t.h.Delete(t, goes)
					}
					if writes > mostEntries {
						t.Fatalf("List: expected an end, saw more than %d entries", mostEntries)
					}
				}
				for _, id := range ids {
					if seen[id] != 1 {
						t.Errorf("a secret that was there all the time: expected it once, saw it %d times", seen[id])
					}
				}
			},
		},
		{
			Name: "list/error", Capability: capList, Rule: "List ends with one error, that of the store", Needs: []string{"list/all", "fault/unavailable"},
			run: func(t *trial) {
				l, prefix, _ := t.listing(1)
				t.fault(Fault{Kind: FaultDisappear})
				var errs []error
				t.at("in List")
				for _, err := range l.List(t.ctx, prefix) {
					if errs = append(errs, err); len(errs) > 3 {
						break
					}
				}
				if len(errs) != 1 {
					t.Fatalf("List of a store that is gone: expected one error and the end, saw %d entries and errors", len(errs))
				}
				t.wantErr("List of a store that is gone", errs[0], backend.CodeUnavailable)
			},
		},
	}
}

// listing gives a lister and n secrets under a prefix of their own, or skips the case.
func (t *trial) listing(n int) (l backend.Lister, prefix string, ids []string) {
	l = capability[backend.Lister](t, t.open(), "list")
	for i := range n {
		id := t.id(fmt.Sprintf("listed-%03d", i))
		t.put(id, t.canary())
		ids = append(ids, id)
	}
	return l, t.storeID(t.tag + "-"), ids
}

// mostEntries is more than the suite stores by far: a listing with more has no end.
const mostEntries = 10_000

// drain lists for the sake of listing, and stops where there is no end.
func (t *trial) drain(ctx context.Context, l backend.Lister, prefix string) error {
	n := 0
	for _, err := range l.List(ctx, prefix) {
		t.alive()
		if n++; err != nil || n > mostEntries {
			return err
		}
	}
	return nil
}

func (t *trial) list(l backend.Lister, prefix string) []backend.Entry {
	t.at("in List")
	var entries []backend.Entry
	for e, err := range l.List(t.ctx, prefix) {
		t.supported(err, "list")
		if err != nil {
			t.Fatalf("List: expected an entry, saw %s", t.sawErr(err))
		}
		if entries = append(entries, e); len(entries) > mostEntries {
			t.Fatalf("List: expected an end, saw more than %d entries", mostEntries)
		}
	}
	return entries
}

func (t *trial) wantListed(entries []backend.Entry, ids []string) {
	seen := make(map[string]int)
	for _, e := range entries {
		seen[e.ID]++
	}
	missing, twice := 0, 0
	for _, id := range ids {
		switch seen[id] {
		case 0:
			missing++
		case 1:
		default:
			twice++
		}
		delete(seen, id)
	}
	if missing+twice+len(seen) > 0 {
		var others []string
		for id := range seen {
			others = append(others, t.canaries.hide(id))
		}
		t.Errorf("List: expected the %d secrets under the prefix, each once, saw %d missing, %d more than once, and %d others %s",
			len(ids), missing, twice, len(others), strings.Join(others[:min(3, len(others))], ", "))
	}
}
