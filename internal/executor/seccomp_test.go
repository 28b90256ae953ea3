package executor

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// ask runs the filter as the kernel does.
func ask(t *testing.T, arch, call uint32, first uint64) uint32 {
	t.Helper()
	data := make([]byte, 64) // struct seccomp_data
	binary.LittleEndian.PutUint32(data[0:], call)
	binary.LittleEndian.PutUint32(data[4:], arch)
	binary.LittleEndian.PutUint64(data[16:], first)
	var a uint32
	p := callFilter()
	for i := 0; i < len(p); i++ {
		in := p[i]
		var holds bool
		switch in.Code {
		case load:
			a = binary.LittleEndian.Uint32(data[in.K:])
			continue
		case answer:
			return in.K
		case equal:
			holds = a == in.K
		case atLeast:
			holds = a >= in.K
		case anyOf:
			holds = a&in.K != 0
		default:
			t.Fatalf("the kernel does not know %+v", in)
		}
		if holds {
			i += int(in.Jt)
		} else {
			i += int(in.Jf)
		}
	}
	t.Fatal("no answer")
	return 0
}

// TestCallFilter: what is refused, how, and what is not.
func TestCallFilter(t *testing.T) {
	if filterArch == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no filter for this machine")
		}
		t.Skip("no filter for this machine")
	}
	const allow, eperm, enosys, family = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM),
		unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS), unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
	for _, c := range []struct {
		name  string
		call  uint32
		first uint64
		want  uint32
	}{
		{"read", unix.SYS_READ, 0, allow}, {"execve", unix.SYS_EXECVE, 0, allow}, {"ptrace", unix.SYS_PTRACE, 0, allow},
		{"ioctl", unix.SYS_IOCTL, 1 << 31, allow},
		{"keyctl", unix.SYS_KEYCTL, 0, eperm}, {"add_key", unix.SYS_ADD_KEY, 0, eperm}, {"bpf", unix.SYS_BPF, 0, eperm},
		{"io_uring", unix.SYS_IO_URING_SETUP, 8, enosys}, {"clone3", unix.SYS_CLONE3, 0, enosys},
		{"AF_UNIX", unix.SYS_SOCKET, unix.AF_UNIX, allow}, {"AF_INET", unix.SYS_SOCKET, unix.AF_INET, allow},
		{"AF_INET6", unix.SYS_SOCKET, unix.AF_INET6, allow}, {"AF_NETLINK", unix.SYS_SOCKET, unix.AF_NETLINK, allow},
		{"AF_VSOCK", unix.SYS_SOCKET, unix.AF_VSOCK, family}, {"AF_ALG", unix.SYS_SOCKET, unix.AF_ALG, family},
		{"AF_VSOCK in a large number", unix.SYS_SOCKET, 1<<32 | unix.AF_VSOCK, family}, {"pair", unix.SYS_SOCKETPAIR, unix.AF_TIPC, family},
		// The kernel looks at a family's lower half alone, and so do we.
		{"AF_UNIX in a large number", unix.SYS_SOCKET, 1<<32 | unix.AF_UNIX, allow},
		{"fork", unix.SYS_CLONE, unix.CLONE_CHILD_SETTID | uint64(unix.SIGCHLD), allow},
		{"thread", unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD, allow},
		{"new user namespace", unix.SYS_CLONE, unix.CLONE_NEWUSER | uint64(unix.SIGCHLD), eperm},
		{"unshare files", unix.SYS_UNSHARE, unix.CLONE_FILES, allow}, {"unshare time", unix.SYS_UNSHARE, unix.CLONE_NEWTIME, eperm},
		{"unshare users", unix.SYS_UNSHARE, unix.CLONE_NEWUSER | unix.CLONE_FILES, eperm},
		{"x32", 1<<30 | unix.SYS_READ, 0, enosys}, {"no call", 1<<32 - 1, 0, enosys},
	} {
		if got := ask(t, filterArch, c.call, c.first); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	if got := ask(t, unix.AUDIT_ARCH_I386, 1, 0); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("another machine's call: %#x", got)
	}
	if n := len(callFilter()); n > 255 {
		t.Errorf("%d instructions", n)
	}
}

// TestUnfilteredIsSaid: whoever reads which isolation is in force reads this too.
func TestUnfilteredIsSaid(t *testing.T) {
	if got := (Isolation{Kind: Bwrap, Limits: "l", Unfiltered: true}).String(); got != "bwrap, l, system calls not filtered" {
		t.Error(got)
	}
	if got := (Isolation{Kind: Bwrap, Limits: "l"}).String(); got != "bwrap, l" {
		t.Error(got)
	}
}
