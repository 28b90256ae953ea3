package executor

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Namespaces do not cover all of the kernel: keyrings belong to a uid, and all
// programs have the same one; a virtual socket reaches the machine below; and
// what programs hardly ever need is where the kernel is broken into. A filter of
// system calls, set just before the program starts, refuses these.

// refusedCalls are refused whatever their arguments are.
var refusedCalls = map[unix.Errno][]uint32{
	unix.EPERM: {
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_SYSLOG,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOUNT_SETATTR, unix.SYS_MOVE_MOUNT,
		unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
		unix.SYS_SETNS, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_ACCT,
		unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	},
	// Programs try these and do without. The flags of clone3 are in memory, where
	// a filter cannot look; every C library goes back to clone.
	unix.ENOSYS: {unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_CLONE3},
}

// families are the sockets there may be. The network namespace covers them.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// newNamespaces are the flags that make namespaces. A clone's lowest byte is a
// signal, so that CLONE_NEWTIME is a flag of unshare only.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in struct seccomp_data. Both machines that have a filter keep the
// lower half of an argument first.
const (
	callOffset  = 0
	archOffset  = 4
	firstOffset = 16 // of the first argument
)

const (
	load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	anyOf   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	answer  = unix.BPF_RET | unix.BPF_K
)

func deny(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// callFilter is the program that the kernel runs on every system call.
func callFilter() []unix.SockFilter {
	p := []unix.SockFilter{
		{Code: load, K: archOffset},
		{Code: equal, K: filterArch, Jt: 1},
		{Code: answer, K: unix.SECCOMP_RET_KILL_PROCESS}, // calls have other numbers there
		{Code: load, K: callOffset},
		// The x32 calls of an amd64 kernel; no machine has as many others.
		{Code: atLeast, K: 1 << 30, Jf: 1},
		{Code: answer, K: deny(unix.ENOSYS)},
	}
	for e, calls := range refusedCalls {
		for _, call := range calls {
			p = append(p, unix.SockFilter{Code: equal, K: call, Jf: 1}, unix.SockFilter{Code: answer, K: deny(e)})
		}
	}
	allow := unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW}
	// These look at the first argument, and so answer by all means.
	for _, call := range []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		p = append(p, unix.SockFilter{Code: equal, K: call, Jf: uint8(len(families) + 3)}, unix.SockFilter{Code: load, K: firstOffset})
		for i, family := range families {
			p = append(p, unix.SockFilter{Code: equal, K: family, Jt: uint8(len(families) - i)})
		}
		p = append(p, unix.SockFilter{Code: answer, K: deny(unix.EAFNOSUPPORT)}, allow)
	}
	for call, flags := range map[uint32]uint32{unix.SYS_CLONE: newNamespaces, unix.SYS_UNSHARE: newNamespaces | unix.CLONE_NEWTIME} {
		p = append(p, unix.SockFilter{Code: equal, K: call, Jf: 4}, unix.SockFilter{Code: load, K: firstOffset},
			unix.SockFilter{Code: anyOf, K: flags, Jf: 1}, unix.SockFilter{Code: answer, K: deny(unix.EPERM)}, allow)
	}
	return append(p, allow)
}

// filters reports whether this machine can filter system calls.
func filters() bool {
	if filterArch == 0 {
		return false
	}
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))) //nolint:gosec // how a call gets a pointer
	return e == 0
}

// filterCalls sets the filter for the calling thread and what it becomes, for
// good. It needs no_new_privs. A machine that cannot filter goes without, and
// says so in its Isolation.
func filterCalls() error {
	if !filters() {
		return nil
	}
	p := callFilter()
	if len(p) > unix.BPF_MAXINSNS {
		return errors.New("the filter is too long")
	}
	f := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}                                                 //nolint:gosec // it was just bounded
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&f))) //nolint:gosec // how a call gets a pointer
	runtime.KeepAlive(p)
	if e != 0 {
		return fmt.Errorf("filter system calls: %w", e)
	}
	return nil
}
