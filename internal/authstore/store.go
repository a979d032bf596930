package authstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/sqliteread"
)

// Names of the files.
const (
	FileName     = "auth-profiles.json"
	DatabaseName = "openclaw-agent.sqlite"
	sharedName   = "openclaw.sqlite"
)

// MainAgent is the agent whose store is the base of the others.
const MainAgent = "main"

// Home says whose profiles are meant.
type Home struct {
	// StateDir is OpenClaw's state directory, absolute. Empty: Path counts.
	StateDir string
	// Agent is the id of an agent in StateDir. Empty: MainAgent.
	Agent string
	// Path is one store, absolute, which has no base: an auth-profiles.json, or a database if the name ends in .sqlite.
	Path string
	// MaxBytes is the greatest size of a store's JSON. Zero: 4 MiB.
	MaxBytes int64
}

// Store is one place of profiles as it was read.
type Store struct {
	Path   string
	SQLite bool
	// Profiles are by id; nil where there is no store yet.
	Profiles map[string]*Profile
	version  string
}

// Stores is what an agent has: its own store, and the base of what it does not have itself, nil where there is none.
type Stores struct {
	Own, Base *Store
	// Version changes when any of the profiles does; opaque.
	Version string
}

// Profile finds a profile: the agent's own before that of the base, as OpenClaw does.
func (s *Stores) Profile(id string) (*Profile, *Store) {
	for _, store := range []*Store{s.Own, s.Base} {
		if store == nil {
			continue
		}
		if p := store.Profiles[id]; p != nil {
			return p, store
		}
	}
	return nil, nil
}

// Read reads all of h's profiles. What does not exist has no profiles; a store that others could read or have written is
// denied; one that is not whole is unavailable, since its owner may just be writing it.
func (h Home) Read(ctx context.Context) (*Stores, error) { return h.read(ctx, true) }

// Version gives what Read would give as Stores.Version, and reads no secret for it but where a database keeps the two in one
// row.
func (h Home) Version(ctx context.Context) (string, error) {
	s, err := h.read(ctx, false)
	if err != nil {
		return "", err
	}
	return s.Version, nil
}

func (h Home) maxBytes() int64 {
	if h.MaxBytes > 0 {
		return h.MaxBytes
	}
	return 4 << 20
}

func (h Home) policy() safefile.Policy {
	return safefile.Policy{Owners: []int{os.Geteuid(), 0}, Deny: 0o077, MaxBytes: h.maxBytes()}
}

func (h Home) agent() string {
	if h.Agent == "" {
		return MainAgent
	}
	return h.Agent
}

func (h Home) agentDir(agent string) string {
	return filepath.Join(h.StateDir, "agents", agent, "agent")
}

// FilePath is where the agent's auth-profiles.json is, or would be; empty where h names a database.
func (h Home) FilePath() string {
	switch {
	case h.Path == "":
		return filepath.Join(h.agentDir(h.agent()), FileName)
	case isDatabase(h.Path):
		return ""
	}
	return h.Path
}

func isDatabase(path string) bool { return strings.EqualFold(filepath.Ext(path), ".sqlite") }

func (h Home) read(ctx context.Context, whole bool) (*Stores, error) {
	s := new(Stores)
	var err error
	if h.Path != "" {
		if isDatabase(h.Path) {
			s.Own, err = h.database(ctx, h.Path, agentRow, whole)
			if s.Own == nil && err == nil {
				s.Own = &Store{Path: h.Path, SQLite: true}
			}
		} else {
			s.Own, err = h.file(ctx, h.Path, whole)
		}
	} else {
		err = h.readAgent(ctx, s, whole)
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	for _, store := range []*Store{s.Own, s.Base} {
		if store != nil {
			fmt.Fprintf(sum, "%q %q\n", store.Path, store.version)
		}
	}
	s.Version = hex.EncodeToString(sum.Sum(nil)[:16])
	return s, nil
}

// readAgent reads the store of h's agent, and what agents have in common where that is another.
func (h Home) readAgent(ctx context.Context, s *Stores, whole bool) error {
	shared, err := h.shared(ctx)
	if err != nil {
		return err
	}
	if s.Own, err = h.ofAgent(ctx, h.agent(), shared != "", whole); err != nil {
		return err
	}
	switch {
	case shared != "":
		s.Base, err = h.database(ctx, shared, sharedRow, whole)
	case h.agent() != MainAgent:
		s.Base, err = h.ofAgent(ctx, MainAgent, false, whole)
	}
	return err
}

// ofAgent reads the store of an agent: the database once its table is there, since the releases that made it do not look at
// the file any more, except that a table without a row does not hide a file that was not taken over yet. moved: OpenClaw said
// that it has left files behind.
func (h Home) ofAgent(ctx context.Context, agent string, moved, whole bool) (*Store, error) {
	dir := h.agentDir(agent)
	path := filepath.Join(dir, DatabaseName)
	database, err := h.database(ctx, path, agentRow, whole)
	if err != nil || database != nil && database.version != "" {
		return database, err
	}
	if moved {
		return &Store{Path: path, SQLite: true}, nil
	}
	file, err := h.file(ctx, filepath.Join(dir, FileName), whole)
	if err == nil && file.version == "" && database != nil {
		return database, nil
	}
	return file, err
}

// shared gives the database in which all agents' profiles are, empty where OpenClaw has not said so.
func (h Home) shared(ctx context.Context) (path string, err error) {
	path = filepath.Join(h.StateDir, "state", sharedName)
	cells, err := sqliteread.Read(ctx, path, h.policy(), sharedAt)
	switch {
	case missing(err):
		return "", nil
	case err != nil:
		return "", storeError(err)
	case cells[0].Found:
		if where, ok := backend.FieldsFromJSON(cells[0].Bytes); ok && text(where["location"]) == "state-db" {
			return path, nil
		}
	}
	return "", nil
}

// row is where a database has the JSON, and when it was written.
type row struct{ json, updated sqliteread.Query }

var (
	agentRow = row{
		sqliteread.Query{Table: "auth_profile_store", Key: "store_key", Is: "primary", Column: "store_json"},
		sqliteread.Query{Table: "auth_profile_store", Key: "store_key", Is: "primary", Column: "updated_at"},
	}
	sharedRow = row{
		sqliteread.Query{Table: "config_machine_state", Key: "state_key", Is: "authProfiles.store", Column: "value_json"},
		sqliteread.Query{Table: "config_machine_state", Key: "state_key", Is: "authProfiles.store", Column: "updated_at_ms"},
	}
	sharedAt = sqliteread.Query{Table: "config_machine_state", Key: "state_key", Is: "auth.sharedStore", Column: "value_json"}
)

// database reads a row; nil when there is no database, or no such table in it.
func (h Home) database(ctx context.Context, path string, r row, whole bool) (*Store, error) {
	queries := []sqliteread.Query{r.updated, r.json}
	if !whole {
		queries = queries[:1]
	}
	cells, err := sqliteread.Read(ctx, path, h.policy(), queries...)
	if missing(err) {
		return nil, nil
	} else if err != nil {
		return nil, storeError(err)
	}
	if !cells[0].Table {
		return nil, nil
	}
	s := &Store{Path: path, SQLite: true}
	if !cells[0].Found {
		return s, nil
	}
	s.version = fmt.Sprint(cells[0].Int)
	if whole {
		defer clear(cells[1].Bytes)
		s.Profiles, err = parse(path, cells[1].Bytes)
	}
	return s, err
}

// file reads an auth-profiles.json.
func (h Home) file(ctx context.Context, path string, whole bool) (*Store, error) {
	s := &Store{Path: path}
	if !whole {
		stamp, err := safefile.Await(ctx, func() (safefile.Stamp, error) {
			f, err := safefile.Open(path, h.policy())
			if err != nil {
				return safefile.Stamp{}, err
			}
			return f.Stamp(), f.Close()
		}, nil)
		if err == nil {
			s.version = stamp.Version()
		} else if !missing(err) {
			return nil, storeError(err)
		}
		return s, nil
	}
	content, stamp, err := safefile.Read(ctx, path, h.policy())
	defer clear(content)
	switch {
	case missing(err):
		return s, nil
	case err != nil:
		return nil, storeError(err)
	}
	s.version = stamp.Version()
	s.Profiles, err = parse(path, content)
	return s, err
}

// KeptInDatabase tells whether OpenClaw keeps h's agent's profiles in a database, and in which, so that a file beside it
// would not be looked at.
func (h Home) KeptInDatabase(ctx context.Context) (path string, err error) {
	path = filepath.Join(h.agentDir(h.agent()), DatabaseName)
	if h.Path != "" {
		if isDatabase(h.Path) {
			return h.Path, nil
		}
		dir := filepath.Dir(h.Path)
		path = filepath.Join(dir, DatabaseName)
		if agents := filepath.Dir(filepath.Dir(dir)); filepath.Base(dir) == "agent" && filepath.Base(agents) == "agents" {
			h.StateDir = filepath.Dir(agents)
		}
	}
	if h.StateDir != "" {
		if shared, err := h.shared(ctx); err != nil || shared != "" {
			return shared, err
		}
	}
	cells, err := sqliteread.Read(ctx, path, h.policy(), agentRow.updated)
	switch {
	case missing(err):
		return "", nil
	case err != nil:
		return "", storeError(err)
	case cells[0].Table:
		return path, nil
	}
	return "", nil
}

// DefaultStateDir is OpenClaw's state directory of a user: $OPENCLAW_STATE_DIR, else .openclaw in $OPENCLAW_HOME or in home.
func DefaultStateDir(lookupEnv func(string) (string, bool), home string) (string, error) {
	env := func(name string) string {
		v, _ := lookupEnv(name)
		return strings.TrimSpace(v)
	}
	if own := env("OPENCLAW_HOME"); own != "" {
		home = own
	}
	dir := env("OPENCLAW_STATE_DIR")
	if dir == "" {
		dir = filepath.Join(home, ".openclaw")
	} else if rest, below := strings.CutPrefix(dir, "~"); below && (rest == "" || os.IsPathSeparator(rest[0])) {
		dir = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(dir) {
		return "", errors.New("OpenClaw's state directory is not an absolute path; set OPENCLAW_STATE_DIR or HOME")
	}
	return filepath.Clean(dir), nil
}
