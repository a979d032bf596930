package openclaw

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/credresolve/credresolve/secretref"
)

// Targets finds the references of the document and of its auth profiles, with their owners. A store of profiles that cannot
// be read is an error, since what it refers to is then not known.
func (d *Document) Targets(ctx context.Context) ([]secretref.Target, error) {
	targets, err := TargetsIn(d.Value, d.Grammar, d.LookupEnv)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Config, err)
	}
	var faults []error
	for _, s := range d.ProfileStores(ctx) {
		if s.Err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.Path, s.Err))
			continue
		}
		found, err := ProfileTargets(s.Root, s.Path, d.Value, d.Grammar, time.Now())
		if err != nil {
			faults = append(faults, err)
			continue
		}
		targets = append(targets, found...)
	}
	return targets, errors.Join(faults...)
}

// Activate resolves the references of the document as a gateway does when it starts, and keeps nothing of it.
func (d *Document) Activate(ctx context.Context, emit func(secretref.Event)) (secretref.Report, error) {
	targets, err := d.Targets(ctx)
	if err != nil {
		return secretref.Report{}, err
	}
	return secretref.NewRuntime(secretref.RuntimeConfig{Host: d.Host(), Emit: emit}).Activate(ctx, d.Secrets, targets)
}
