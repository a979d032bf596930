package resolver

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/credresolve/credresolve/backend"
)

// FailureMemory is a file in which processes tell each other which stores are failing and how many calls were made, so
// that a program which is started again and again does not try a refused login each time. It holds counts and times by
// the digest of a provider's definition, and no value.
//
// It is safe for concurrent use by goroutines and processes. It never stands in the way: a file that cannot be read,
// written or understood counts as empty.
type FailureMemory struct{ path string }

// OpenFailureMemory gives the memory kept in the file at path, mode 0600, whose directory exists; it does no I/O. Beside
// it stands path+".lock". An error is ErrInvalidConfig: the path is not absolute.
func OpenFailureMemory(path string) (*FailureMemory, error) {
	if !filepath.IsAbs(path) {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "the path of the failure memory must be absolute")
	}
	return &FailureMemory{path}, nil
}

// failureRecord is what is remembered of one provider.
type failureRecord struct {
	Failures int          `json:"failures,omitempty"` // in a row
	Code     backend.Code `json:"code,omitempty"`     // of the last
	Reason   string       `json:"reason,omitempty"`   // of the last, which holds no secret, as that of every backend.Error
	Until    time.Time    `json:"open_until,omitzero"`
	Spent    float64      `json:"spent,omitempty"` // of the call budget, at At
	At       time.Time    `json:"at,omitzero"`
}

type failureFile struct {
	Version   int                      `json:"version"`
	Providers map[string]failureRecord `json:"providers"`
}

const (
	failureFileVersion = 1
	maxFailureFile     = 1 << 20
	forgetFailures     = 24 * time.Hour
	failureLockWait    = 2 * time.Second
)

// load gives what is remembered under digest.
func (m *FailureMemory) load(digest string) failureRecord {
	return m.readFile().Providers[digest]
}

// update changes what is remembered under digest, and gives the result. change may be called without effect.
func (m *FailureMemory) update(digest string, change func(*failureRecord)) failureRecord {
	lock := flock.New(m.path+".lock", flock.SetPermissions(0o600))
	locked := false
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		var err error
		if locked, err = lock.TryLock(); locked || err != nil || time.Since(start) > failureLockWait {
			break
		}
	}
	defer func() { _ = lock.Close() }()
	file := m.readFile()
	record := file.Providers[digest]
	change(&record)
	if !locked {
		return record // without the lock another's change would be lost
	}
	record.At = time.Now()
	file.Providers[digest] = record
	m.writeFile(file)
	return record
}

// readFile gives what the file says, but for what is too old, or from a time to come, to mean anything.
func (m *FailureMemory) readFile() failureFile {
	empty := failureFile{Version: failureFileVersion, Providers: map[string]failureRecord{}}
	info, err := os.Lstat(m.path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxFailureFile {
		return empty
	}
	b, err := os.ReadFile(m.path)
	if err != nil {
		return empty
	}
	var file failureFile
	if json.Unmarshal(b, &file) != nil || file.Version != failureFileVersion || file.Providers == nil {
		return empty
	}
	now := time.Now()
	for d, r := range file.Providers {
		if now.Sub(r.At) > forgetFailures || r.At.Sub(now) > forgetFailures {
			delete(file.Providers, d)
		}
	}
	return file
}

// writeFile replaces the file as a whole, so that who reads without the lock finds the old or the new one.
func (m *FailureMemory) writeFile(file failureFile) {
	b, err := json.Marshal(file)
	if err != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(m.path), ".failures-*") // mode 0600
	if err != nil {
		return
	}
	_, err = tmp.Write(b)
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), m.path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
}
