// Package conformance is the suite for authors of backends: it shows in one run what the users of a backend would
// otherwise find out in production. It imports the standard library and package backend alone, and knows no store: a
// Harness tells it how to open the backend, how to change its store behind the backend's back, and how to break it.
//
//	func TestConformance(t *testing.T) {
//		store := startStore(t)
//		conformance.Run(t, conformance.Harness{
//			Open: func(t conformance.T, dial *conformance.Dialer) backend.Backend {
//				b, err := mystore.New(mystore.Config{Address: dial.Through(store.Address)})
//				if err != nil {
//					t.Fatalf("opening: %v", err)
//				}
//				return b
//			},
//			Put:    func(t conformance.T, id string, v backend.Value) { store.Put(id, v) },
//			Delete: func(t conformance.T, id string) { store.Delete(id) },
//		})
//	}
//
// Run shows the cases as subtests; Check gives a Report to a program that is no test. Executables are held to the same rules by
// package execs, with the data of package vectors.
//
// # Outcomes
//
// A case passes, fails, is skipped or is blocked. It is skipped where the backend lacks the capability, or the Harness the
// means, which the reason names. It is blocked, not failed, where a case that it needs has failed: fix that one first.
// Every case stands alone otherwise, and uses ids of its own.
//
// # Hostile backends
//
// Each case runs in a goroutine of its own with a time limit. One that hangs is left behind and reported, one that
// panics is reported with the place, and the run goes on. What no suite in the same process can survive is a panic in a
// goroutine that the backend itself started, a fatal error of the Go runtime and os.Exit.
//
// # Texts
//
// A failure names the rule, what was expected and what was seen. It never holds a value that the suite stored: such bytes
// are withheld, in each of the encodings that the suite looks for.
package conformance
