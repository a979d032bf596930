// Package harden keeps the memory of this process from others, and off the disk, as far as the system lets it.
package harden

import (
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// The values of Settings.Lock.
const (
	LockAuto    = "auto"
	LockRequire = "require"
	LockOff     = "off"
)

// Settings say what to do.
type Settings struct {
	// Lock keeps the memory out of swap: auto (where it is safe), require (else Apply fails) or off. Empty: auto.
	Lock string
}

// Report says what is on.
type Report struct {
	NoCores     bool // no core dump is written of the process, nor of the programs that it starts
	NotDumpable bool // no other process of the same user may read the memory
	Locked      bool // no memory goes to swap
	// Unlocked is why memory is not locked, in lower case; empty if it is.
	Unlocked string
}

// String is one line for the log.
func (r Report) String() string {
	var on []string
	if r.NoCores {
		on = append(on, "no core dumps")
	}
	if r.NotDumpable {
		on = append(on, "not readable by other processes of this user")
	}
	switch {
	case r.Locked:
		on = append(on, "memory kept out of swap")
	case r.Unlocked != "":
		on = append(on, "memory may go to swap: "+r.Unlocked)
	}
	return strings.Join(on, ", ")
}

// Apply protects this process for the rest of its life, and reports what it could do; where it fails, what it did before stays.
// It may be called again. Call it before the first secret is there.
//
// Core dumps are off by RLIMIT_CORE, which programs that this process starts inherit. On Linux the process is not dumpable
// either (PR_SET_DUMPABLE): other processes of its user cannot read its memory nor trace it, and no core goes to a program that
// takes cores, for which the limit does not count. The price: files of it in /proc that are not for everybody belong to root,
// so that it cannot open /proc/self/environ or /proc/self/io itself.
//
// Memory is locked on Linux (mlockall, also for what is mapped later, each page when it is first used), but only where
// RLIMIT_MEMLOCK is unlimited or can be made so, or CAP_IPC_LOCK lifts it. With a finite limit it would count every page that
// is mapped, used or not, of which Go reserves far more than it uses: once the limit is reached mmap fails, and a Go program
// that cannot map memory dies. Locking a part is no way out either: the collector and growing stacks put copies elsewhere.
// That a page is locked does not keep it from hibernation images, nor a hypervisor from swapping.
func Apply(s Settings) (Report, error) {
	switch s.Lock {
	case "", LockAuto, LockRequire, LockOff:
	default:
		return Report{}, &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: "serve.memory.lock is none of auto, require and off", Remedy: "write one of them",
		}
	}
	r, err := hide()
	if err != nil {
		return r, err
	}
	if s.Lock == LockOff {
		r.Unlocked = "serve.memory.lock is off"
		return r, nil
	}
	var remedy string
	if r.Unlocked, remedy = lock(); r.Unlocked == "" {
		r.Locked = true
		return r, nil
	}
	if s.Lock == LockRequire {
		return r, &backend.Error{Code: backend.CodeUnavailable, Reason: "the memory cannot be kept out of swap: " + r.Unlocked, Remedy: remedy}
	}
	return r, nil
}

const setAuto = "set serve.memory.lock to auto to start without"
