package file

import (
	"errors"
	"fmt"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

// The errors of this adapter: these, and those of the table below.
var (
	errNoPath   = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "path is missing", Remedy: "name the file that holds the secrets"}
	errHome     = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "path starts with ~, which only a shell expands", Remedy: "write the home directory out"}
	errPathNUL  = backend.Errorf(backend.CodeInvalidConfig, "path holds a NUL byte")
	errMaxBytes = backend.Errorf(backend.CodeInvalidConfig, "max_bytes is not within 0 and 268435456")

	errVersion = backend.Errorf(backend.CodeUnsupported, "files have no versions")
	errPointer = backend.Errorf(backend.CodeInvalidID, "the id is not a JSON Pointer: ~ must be written ~0, and / within a key ~1")
	errRawID   = &backend.Error{Code: backend.CodeInvalidID, Reason: `a file of mode raw has one secret, "value"`, Remedy: "use that id, or set mode: json, yaml or dotenv"}
	errName    = backend.Errorf(backend.CodeInvalidID, `the id is not the name of a file in the directory: it is empty, starts with "..", or holds a slash`)
	errNoKey   = backend.Errorf(backend.CodeNotFound, "the file has no such key")
	errNested  = &backend.Error{Code: backend.CodeNotFound, Reason: "the file has no such key at its top", Remedy: `for a key within another start the id with "/"`}
	errNoWatch = backend.Errorf(backend.CodeUnavailable, "the file's directory cannot be watched, or not any more")
	errKeys    = backend.Errorf(backend.CodeUnavailable, "the mounted files changed while they were read")
)

// fileError translates an error of safefile.
func (b *Backend) fileError(err error) error {
	var e *safefile.Error
	if err == nil || !errors.As(err, &e) {
		return err // nil, or the context's
	}
	remedy := e.Remedy
	switch e.Problem {
	case safefile.TooBig:
		remedy = "raise max_bytes"
	case safefile.Directory:
		remedy = "a directory needs mode: raw, and layout: docker or kubernetes"
	case safefile.Symlink:
		if b.config.Layout != layoutKubernetes && strings.Contains(remedy, "/..data/") {
			remedy = "where the kubelet mounted it set layout: kubernetes"
		}
	case safefile.Mode:
		if b.config.Layout == layoutStrict {
			remedy += ", or where a container's runtime mounted it set layout: docker or kubernetes"
		}
	}
	return &backend.Error{Code: e.Problem.Code(), Reason: e.Path + " " + e.Reason, Remedy: remedy}
}

func errUnknown(setting, value string, known []string) error {
	e := backend.Errorf(backend.CodeInvalidConfig, "%s must be one of %s", setting, strings.Join(known, ", "))
	if near := backend.Nearest(value, known); near != "" {
		e.Remedy = fmt.Sprintf("did you mean %q?", near)
	}
	return e
}

// syntaxError is a fault of a document. It holds nothing of the document but a place in it.
type syntaxError struct {
	line, column int // from 1; 0: unknown
	reason       string
}

func (e *syntaxError) Error() string {
	if e.line == 0 {
		return e.reason
	}
	return fmt.Sprintf("%s in line %d, column %d", e.reason, e.line, e.column)
}

func errSyntax(path, mode string, err error) error {
	return backend.Errorf(backend.CodeUnavailable, "%s is not valid as %s: %v", path, mode, err)
}
