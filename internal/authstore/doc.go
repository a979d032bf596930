// Package authstore knows where an OpenClaw agent keeps its auth profiles, reads them, and edits them where they are a file.
//
// Older releases keep an agent's profiles in agents/ID/agent/auth-profiles.json of the state directory, newer ones in the
// row "primary" of the table auth_profile_store of openclaw-agent.sqlite beside it, with the same JSON. What an agent does
// not have itself it takes from a base: the store of the agent main, or, where the row auth.sharedStore of
// config_machine_state in state/openclaw.sqlite says so, the row authProfiles.store there.
//
// A database is read alone, as package sqliteread does it. The file is edited as those releases do it, under the lock
// auth-profiles.json.lock beside it, and, as they do not, by exchanging it as a whole, if nobody changed it meanwhile; all
// that is not edited stays as it is.
package authstore
