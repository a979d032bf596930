package document

import (
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// Site is a place of a document where a ref stands, with what the document says about it. It is immutable. The order in
// which to try is Ref, each of Fallback, Default, removal if Optional; each only when the one before was not found.
type Site struct {
	Ref credref.Ref
	// Foreign is what Options.Foreign made of a ref of its kind, which has neither fallback nor default and is not optional;
	// Ref is zero then. Nil for a CredentialRef.
	Foreign  any
	Fallback []credref.Ref
	// Default is a literal of the document: JSON when it stands there as a number, boolean or null. The zero Secret
	// means that there is none.
	Default backend.Secret
	// Optional says that the key or list item may be removed.
	Optional bool

	// File is the name that Parse was given.
	File string
	// Line and Column are where the ref begins, from 1; Column counts characters.
	Line, Column int
	// Path is for people: services[0].db.password; a dot alone is the whole document.
	Path string

	value   span   // the bytes to replace
	join    int    // where the indicator before a YAML block value ends; -1: the value is replaced where it stands
	tag     span   // the YAML tag of the value; empty when there is none
	isMap   bool   // written as a map
	flow    bool   // within a flow collection
	aliased bool   // an alias of YAML refers to it
	depth   int    // number of containers around it
	entry   *entry // set when Optional; nil for the root
	table   *place // where the value goes of a ref that is a TOML table; nil for any other
}

// Replacement is what Render puts in the place of a ref.
type Replacement struct {
	// Secret is written as a string that reads back as exactly this text, or as the JSON value it is if IsJSON.
	Secret backend.Secret
	// Remove removes the key or the list item; Secret is not looked at. The ref must be Optional. A ref that is a whole
	// document becomes null.
	Remove bool
	// Keep leaves the ref as it stands; nothing else is looked at.
	Keep bool
}

// Var is one variable that a document sets.
type Var struct {
	Name string
	// Value is the literal that the document holds; empty when Site is set. It may be a secret: it is not to be shown.
	Value string
	// Site is the ref whose value the variable takes, nil for a literal.
	Site *Site
}

// span is a range of bytes.
type span struct{ start, end int }

// entry is a key with its value, or a list item, in its container.
type entry struct {
	span
	box                     *box
	index                   int
	next                    int // start of the entry after it, -1 when it is the last
	commaBefore, commaAfter int // -1 where there is none
}

// box is a container that holds optional refs.
type box struct {
	layout layout
	isMap  bool
	count  int  // entries
	inner  span // what is between the brackets of layoutFlow
	join   int  // as of Site, for layoutBlock
	pad    bool // a list that is indented no more than its key
}

// layout is how the entries of a container are set apart.
type layout uint8

const (
	layoutFlow  layout = iota // brackets and commas
	layoutBlock               // the indentation of YAML
	layoutLines               // lines of .env and of a TOML table: may well be empty
	layoutPair                // the map of [key: value] in YAML: always one entry
)
