package secretref

// form is a text of one first character and some others, as a regular expression of the contract says. It is matched by hand:
// expressions that count to 255 take longer to compile than a program that resolves one ref takes to run.
type form struct {
	pattern     string
	first, rest class
	most        int // bytes
}

// class is a set of ASCII characters: letters and digits as it says, and the others by name.
type class struct {
	upper, lower, digits bool
	others               string
}

var (
	aliasForm   = form{`^[a-z][a-z0-9_-]{0,63}$`, class{lower: true}, class{lower: true, digits: true, others: "_-"}, 64}
	nameForm    = form{`^[A-Z][A-Z0-9_]{0,127}$`, class{upper: true}, class{upper: true, digits: true, others: "_"}, 128}
	execForm    = form{`^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}$`, alphanumeric(""), alphanumeric("._:/#-"), 256}
	oldExecForm = form{`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}$`, alphanumeric(""), alphanumeric("._:/-"), 256}
)

func alphanumeric(others string) class { return class{true, true, true, others} }

// String is the regular expression, as messages quote it.
func (f form) String() string { return f.pattern }

func (f form) matches(s string) bool {
	if s == "" || len(s) > f.most || !f.first.has(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !f.rest.has(s[i]) {
			return false
		}
	}
	return true
}

func (c class) has(b byte) bool {
	switch {
	case 'A' <= b && b <= 'Z':
		return c.upper
	case 'a' <= b && b <= 'z':
		return c.lower
	case '0' <= b && b <= '9':
		return c.digits
	}
	for i := range len(c.others) {
		if c.others[i] == b {
			return true
		}
	}
	return false
}
