package conformance

import "slices"

// Case is one rule that a backend keeps, and the way to see whether it does.
type Case struct {
	// Name tells the case from the others: the subject, a slash, and what about it.
	Name string
	// Rule is what a backend owes, in one sentence.
	Rule string
	// Capability is what the case shows beside Get, in the words of backend.Capabilities and a few more: version, fields,
	// lease, network, http, tls. Empty: what every backend owes.
	Capability string
	// Needs names the cases without which this one shows nothing: when one of them fails, this one is blocked.
	Needs []string

	run func(t *trial)
}

// Cases gives every case, in the order in which they run: after those that they need.
func Cases() []Case {
	return slices.Concat(
		getCases(), valueCases(), faultCases(), fieldCases(), versionCases(), describeCases(), batchCases(), leaseCases(),
		checkCases(), probeCases(), writeCases(), listCases(), watchCases(), contextCases(), concurrencyCases(), closeCases(),
		secrecyCases(), networkCases(), tlsCases(),
	)
}
