package harden

import (
	"fmt"
	"os"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"golang.org/x/sys/unix"
)

func hide() (r Report, err error) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return r, notHidden("RLIMIT_CORE", err)
	}
	r.NoCores = true
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return r, notHidden("PR_SET_DUMPABLE", err)
	}
	r.NotDumpable = true
	return r, nil
}

func notHidden(what string, err error) error {
	return &backend.Error{
		Code: backend.CodeUnavailable, Reason: fmt.Sprintf("core dumps cannot be turned off: %s: %v", what, err),
		Remedy: "allow setrlimit and prctl in the seccomp filter of this process",
	}
}

// lock locks all memory. why says why it did not, empty if it did.
func lock() (why, remedy string) {
	const unlimited = "set LimitMEMLOCK=infinity in the unit, or start after ulimit -l unlimited; or " + setAuto
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Sprintf("RLIMIT_MEMLOCK is not known: %v", err), setAuto
	}
	if why := forbidden(limit, lockCapable()); why != "" {
		return why, unlimited
	}
	if limit.Cur != limit.Max && limit.Max == unix.RLIM_INFINITY {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit.Max, Max: limit.Max}); err != nil {
			return fmt.Sprintf("RLIMIT_MEMLOCK cannot be raised: %v", err), unlimited
		}
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Sprintf("mlockall: %v", err), "allow mlockall in the seccomp filter of this process, which needs Linux 4.4; or " + setAuto
	}
	return "", ""
}

// forbidden says why memory must not be locked, empty if it may.
func forbidden(limit unix.Rlimit, capable bool) string {
	if capable || limit.Max == unix.RLIM_INFINITY {
		return ""
	}
	return fmt.Sprintf("RLIMIT_MEMLOCK is %d KiB and CAP_IPC_LOCK is missing", limit.Cur>>10)
}

// lockCapable reports whether the limit does not count for this process. A capability in a user namespace of its own, as root
// has in a rootless container, is not looked at by mlockall.
func lockCapable() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil || data[0].Effective&(1<<unix.CAP_IPC_LOCK) == 0 {
		return false
	}
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(ids)), " ") == "0 0 4294967295"
}
