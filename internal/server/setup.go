package server

import (
	"context"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/internal/listen"
	"github.com/credresolve/credresolve/internal/sealed"
)

// auditSettings are those of st, for package audit.
func (s *Server) auditSettings(st *state) audit.Settings {
	return audit.Settings{
		AuditSettings: st.serve.Audit, Dir: s.options.Open.StateDir, Stdout: s.options.Stdout,
		Warn: func(text string) { s.log.Error(text) },
	}
}

// openKeeper gives what keeps values for an outage, nil where none are kept.
func (s *Server) openKeeper(st *state) *sealed.Keeper {
	settings := st.serve.Sealed
	if settings.Path == "" {
		return nil
	}
	key := func(ctx context.Context) (backend.Secret, error) {
		if settings.KeyFile == "" {
			v, err := s.resolver.Resolve(ctx, settings.Key)
			if err != nil {
				return backend.Secret{}, err
			}
			return v.Secret(), nil
		}
		text, err := listen.Token(settings.KeyFile)
		defer clear(text)
		return backend.NewSecret(text), err
	}
	return sealed.Open(sealed.Options{
		Path: settings.Path, MaxAge: settings.MaxAge, Key: key, KeyRef: settings.Key, Source: s.resolver,
		Warn: func(err error) { s.log.Warn("the sealed copy", "reason", err.Error()) },
	})
}
