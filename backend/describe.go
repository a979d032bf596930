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
	// Login: a person has to log in, once, before Get can give anything. What the login gives is for the caller to keep.
	Login bool
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
	for _, c := range []struct {
		name string
		has  bool
	}{
		{"batch", is[BatchGetter](b)},
		{"probe", is[Prober](b)},
		{"check", is[Checker](b)},
		{"refresh", is[Refresher](b)},
		{"renew", is[Renewer](b)},
		{"revoke", is[Revoker](b)},
		{"write", is[Writer](b)},
		{"list", is[Lister](b)},
		{"watch", is[Watcher](b)},
		{"login", is[Login](b)},
		{"parse", is[Parser](b)},
	} {
		if c.has {
			names = append(names, c.name)
		}
	}
	return names
}

func is[T Backend](b Backend) bool {
	_, ok := b.(T)
	return ok
}
