package server

import (
	"net/http"

	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/resolver"
)

// explain tells how a ref stands. It reveals no value, but ages and metadata, which are for who may resolve the ref.
func (s *Server) explain(req *request) {
	var body client.ExplainRequest
	if !req.readRef(&body, &body.Ref) {
		return
	}
	if err := allow(req.caller.limiter, 1); err != nil {
		req.fail(err)
		return
	}
	if d := req.caller.consumer.Resolve(body.Ref); !d.Allowed {
		err := denial(req.caller.consumer.Name(), d.Reason)
		_ = s.auditOne(req, audit.EventDenial, &body.Ref, d.Rule, err)
		s.metrics.Denied(req.caller.consumer.Name())
		req.fail(err)
		return
	}
	out, err := req.caller.view.Inspect(body.Ref)
	if err != nil {
		if e, ok := err.(*resolver.RefError); ok {
			err = e.Err
		}
		req.fail(err)
		return
	}
	answer := client.Explanation{Ref: body.Ref, Places: []client.Place{}}
	for _, p := range out.Places {
		answer.Places = append(answer.Places, client.NewPlace(p))
	}
	for _, p := range s.providerStates(req.state, req.caller.consumer) {
		if p.Name == body.Ref.Provider {
			answer.Provider = p
		}
	}
	req.json(http.StatusOK, answer)
}
