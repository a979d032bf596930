package backend

// Describer is a Backend that tells what it takes and can do in its configuration. It does no I/O.
type Describer interface {
	Backend
	Describe() Description
}

// Description tells what a backend takes and can do.
type Description struct {
	// Detail is one line for a person: the address, the store chosen and why. It is not secret.
	Detail string
	// Versions: Request.Version may be set.
	Versions bool
	// Fields: credentials may have fields.
	Fields bool
	// MaxValue is the greatest size of a value in bytes that the store holds; zero: no limit known.
	MaxValue int64
	// MaxBatch is the most requests that one batch call of the store carries; zero: no limit.
	MaxBatch int
	// CallerBound: what Get gives depends on the environment or working directory of the calling process, so that
	// another process must not answer in its place.
	CallerBound bool
}

// Describe gives b's Description, the zero one when b does not tell.
func Describe(b Backend) Description {
	if d, ok := b.(Describer); ok {
		return d.Describe()
	}
	return Description{}
}

// Capabilities names what b can do beyond Get, in a fixed order: batch, probe, check, refresh, renew, revoke,
// write, list, watch, login, parse.
func Capabilities(b Backend) []string {
	var names []string
	add := func(ok bool, name string) {
		if ok {
			names = append(names, name)
		}
	}
	_, ok := b.(BatchGetter)
	add(ok, "batch")
	_, ok = b.(Prober)
	add(ok, "probe")
	_, ok = b.(Checker)
	add(ok, "check")
	_, ok = b.(Refresher)
	add(ok, "refresh")
	_, ok = b.(Renewer)
	add(ok, "renew")
	_, ok = b.(Revoker)
	add(ok, "revoke")
	_, ok = b.(Writer)
	add(ok, "write")
	_, ok = b.(Lister)
	add(ok, "list")
	_, ok = b.(Watcher)
	add(ok, "watch")
	_, ok = b.(Login)
	add(ok, "login")
	_, ok = b.(Parser)
	add(ok, "parse")
	return names
}
