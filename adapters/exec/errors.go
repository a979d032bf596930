package exec

import (
	"errors"
	"fmt"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/execproto"
	"github.com/credresolve/credresolve/internal/process"
	"github.com/credresolve/credresolve/internal/safefile"
)

// The errors of this adapter: these, and those of the tables below.
var (
	errNoCommand = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "command is missing", Remedy: "name the program by its absolute path"}
	errRelative  = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "command is not an absolute path", Remedy: "write it out; neither PATH nor ~ is looked at"}
	errBatchFile = backend.Errorf(backend.CodeInvalidConfig, "command is a batch file, which only a shell can run")
	errNUL       = backend.Errorf(backend.CodeInvalidConfig, "command or args hold a NUL byte")
	errNegative  = backend.Errorf(backend.CodeInvalidConfig, "timeout, no_output_timeout and max_output must not be negative")
	errOutput    = backend.Errorf(backend.CodeInvalidConfig, "output must be protocol or plain")
	errSHA256    = backend.Errorf(backend.CodeInvalidConfig, "sha256 must have 64 hexadecimal digits")
	errEnvName   = backend.Errorf(backend.CodeInvalidConfig, "env has a name that is empty or holds = or a NUL byte")

	errVersion  = backend.Errorf(backend.CodeUnsupported, "programs know no versions")
	errOneByOne = backend.Errorf(backend.CodeUnsupported, "a program with output: plain answers for one id at a time")
	errNotAsked = backend.Errorf(backend.CodeUnsupported, "the program may be run; whether it answers shows when a secret is asked for")
	errNoID     = backend.Errorf(backend.CodeInvalidID, "the id is empty or holds a NUL byte")
	errOption   = &backend.Error{Code: backend.CodeInvalidID, Reason: `the id starts with "-" and the program would take it for an option`, Remedy: `put "--" before {id} in args if the program knows that`}
	errNothing  = backend.Errorf(backend.CodeUnavailable, "the program printed nothing")
	errNoAnswer = backend.Errorf(backend.CodeInternal, "the program answered without this id")
)

func errAllowDir(i int) error {
	return backend.Errorf(backend.CodeInvalidConfig, "allow_dirs[%d] is not an absolute path", i)
}

func errPassEnv(i int) error {
	return backend.Errorf(backend.CodeInvalidConfig, "pass_env[%d] is empty or holds = or a NUL byte", i)
}

// answers is what the codes of a program's answer for one id mean. Another code is an internal error.
var answers = map[string]backend.Error{
	"NOT_FOUND":     {Code: backend.CodeNotFound, Reason: "the program has no such secret"},
	"DENIED":        {Code: backend.CodeDenied, Reason: "the program says that access is denied"},
	"INVALID_ID":    {Code: backend.CodeInvalidID, Reason: "the program says that the id is invalid"},
	"LOCKED":        {Code: backend.CodeLocked, Reason: "the program says that its store is locked", Remedy: "unlock the store that the program reads"},
	"UNAVAILABLE":   {Code: backend.CodeUnavailable, Reason: "the program says that its store is unavailable"},
	"AUTH_REQUIRED": {Code: backend.CodeAuthRequired, Reason: "the program says that it is not logged in", Remedy: "log in with the program"},
	"EXPIRED":       {Code: backend.CodeExpired, Reason: "the program says that the credential has expired"},
	"":              {Code: backend.CodeInternal, Reason: "the program failed for this id and gave no code that is known"},
}

// runs is what the failure of a whole run means; process has the texts.
var runs = map[process.Failure]backend.Code{
	process.NotFound:    backend.CodeUnavailable,
	process.NoAccess:    backend.CodeDenied,
	process.NotAProgram: backend.CodeInvalidConfig,
	process.NoStart:     backend.CodeUnavailable,
	process.Exit:        backend.CodeUnavailable,
	process.Signal:      backend.CodeUnavailable,
	process.Timeout:     backend.CodeUnavailable,
	process.Silence:     backend.CodeUnavailable,
	process.Flood:       backend.CodeUnavailable,
	process.Broken:      backend.CodeUnavailable,
}

// remedies says what to do about some failures of a run.
var remedies = map[process.Failure]string{
	process.Exit:    "run it by hand to see its messages, which are not shown here",
	process.Timeout: "raise timeout if it needs longer",
	process.Silence: "raise no_output_timeout if it needs longer",
	process.Flood:   "raise max_output if it has that much to say",
}

// translate makes an error of a run of command a *backend.Error. It lets the context's errors, and those that are translated
// already, through.
func translate(command string, err error) error {
	var file *safefile.Error
	var run *process.Error
	var answer *execproto.Error
	switch {
	case errors.As(err, &file):
		code := file.Problem.Code()
		if code == backend.CodeNotFound { // a program that is not there is not a secret that is not there
			code = backend.CodeUnavailable
		}
		return &backend.Error{Code: code, Reason: "the program " + file.Path + " " + file.Reason, Remedy: file.Remedy}
	case errors.As(err, &run):
		return &backend.Error{Code: codeIn(runs, run.Failure), Reason: fmt.Sprintf("%s: %v", command, run), Remedy: remedies[run.Failure]}
	case errors.As(err, &answer) && answer.Problem == execproto.TooBig:
		return &backend.Error{Code: backend.CodeUnsupported, Reason: answer.Error(), Remedy: "ask for fewer ids at once"}
	case errors.As(err, &answer):
		return backend.Errorf(backend.CodeUnavailable, "%s: %v", command, answer)
	}
	return err
}

func codeIn[K comparable](table map[K]backend.Code, key K) backend.Code {
	if code, ok := table[key]; ok {
		return code
	}
	return backend.CodeInternal
}

// errEnv tells that the value of an environment variable could not be had. That it is not found is a fault of the
// configuration: the secret that is asked for may well exist.
func errEnv(name string, err error) error {
	code := backend.CodeOf(err)
	switch code {
	case backend.CodeTimeout, backend.CodeCanceled:
		return err
	case backend.CodeNotFound, backend.CodeFieldRequired, backend.CodeInvalidID:
		code = backend.CodeInvalidConfig
	}
	return &backend.Error{Code: code, Reason: fmt.Sprintf("env.%s: %v", name, err), RetryAfter: backend.RetryAfter(err)}
}
