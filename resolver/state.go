package resolver

// State is where a credential is in its life.
type State string

// The states of a credential.
const (
	StateConfigured   State = "configured"    // nothing is known of it, or it could not be fetched: the next who asks has it fetched
	StateResolving    State = "resolving"     // it is being fetched
	StateActive       State = "active"        // it is served
	StateExpiring     State = "expiring"      // it is served, and the time has come for a successor, which nobody has asked for yet
	StateRefreshing   State = "refreshing"    // it is served, and its successor is being fetched, or its lease renewed
	StateStale        State = "stale"         // it is served past its time, since its store is unavailable
	StateAuthRequired State = "auth_required" // its store wants a login; an Event that has a Revision tells that it is served until its end
	StateRevoked      State = "revoked"       // it was ended before its time
)
