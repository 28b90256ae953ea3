package executor_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hostileCommand makes this test binary the submitted program: it tries to get
// out, and prints BROKE OUT for everything that worked.
const hostileCommand = "hostile"

// keyCommand makes this test binary a program that leaves a secret in the
// keyring of its uid ("keep") and waits, or looks for one there ("seek").
const keyCommand = "key"

const keyName, keyText = "gradegate-neighbour", "a neighbour's secret"

func key(role string) int {
	if role == "keep" {
		_, err := unix.AddKey("user", keyName, []byte(keyText), unix.KEY_SPEC_USER_KEYRING)
		fmt.Println("kept:", err)
		time.Sleep(time.Minute) // the test ends it
		return 0
	}
	got := make([]byte, 100)
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", keyName, 0)
	if err == nil {
		var n int
		if n, err = unix.KeyctlBuffer(unix.KEYCTL_READ, id, got, 0); err == nil {
			fmt.Printf("found: %s\n", got[:n])
		}
	}
	fmt.Println("sought:", err)
	return 0
}

// targets are what the program is told of the host, so that it need not guess.
type targets struct {
	files    []string // that it must not read
	socket   string   // of the administrator
	abstract string   // likewise, without a path
	tcp      string
	pid      int // of the server
}

func (t targets) args() []string {
	return append([]string{hostileCommand, t.socket, t.abstract, t.tcp, strconv.Itoa(t.pid)}, t.files...)
}

// attempt returns what it got hold of; empty is a failure, as it should be.
type attempt struct {
	name string
	try  func(t targets) string
}

func hostile(args []string) int {
	pid, _ := strconv.Atoi(args[3]) // the test wrote a number
	t := targets{socket: args[0], abstract: args[1], tcp: args[2], pid: pid, files: args[4:]}
	for _, a := range attempts {
		got := a.try(t)
		if got != "" {
			fmt.Printf("BROKE OUT %s: %.200q\n", a.name, got)
		}
	}
	fmt.Printf("tried %d\n", len(attempts))
	return 0
}

func did(err error) string {
	if err == nil {
		return "done"
	}
	return ""
}

func readAny(paths ...string) string {
	for _, p := range paths {
		if text, err := os.ReadFile(p); err == nil && len(text) > 0 {
			return p + ": " + string(text)
		}
	}
	return ""
}

func dial(network, address string) string {
	c, err := net.DialTimeout(network, address, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return did(err)
}

func writeTo(path string) string {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return ""
	}
	_, err = f.WriteString("0\n")
	_ = f.Close()
	if err == nil {
		return path
	}
	return ""
}

var attempts = []attempt{
	{"read the server's files", func(t targets) string { return readAny(t.files...) }},
	{"read them through the host's root", func(t targets) string {
		for _, root := range []string{"/proc/1/root", "/proc/1/cwd", "/.host", "/oldroot", "/proc/self/root/..", "../../../../.."} {
			for _, f := range t.files {
				if got := readAny(root + f); got != "" {
					return got
				}
			}
		}
		return ""
	}},
	{"read the host's accounts", func(targets) string {
		return readAny("/etc/shadow", "/etc/gshadow", "/etc/ssh/ssh_host_ed25519_key", "/root/.bashrc", "/root/.ssh/id_rsa")
	}},
	{"connect to the admin socket", func(t targets) string { return dial("unix", t.socket) }},
	{"connect to an abstract socket", func(t targets) string { return dial("unix", t.abstract) }},
	{"connect to the host", func(t targets) string { return dial("tcp", t.tcp) }},
	{"connect to the world", func(targets) string {
		interfaces, err := net.Interfaces()
		for _, i := range interfaces {
			if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
				return i.Name
			}
		}
		_ = err // none can be listed: none can be used
		return dial("udp", "8.8.8.8:53")
	}},
	{"see the host's processes", func(t targets) string {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", t.pid)); err == nil && bytes.Contains(text, []byte("-test.")) {
			return string(text)
		}
		all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
		if len(all) > 5 {
			return strings.Join(all, " ")
		}
		return ""
	}},
	{"read the first process", func(targets) string {
		return readAny("/proc/1/environ", "/proc/1/mem", "/proc/1/auxv", "/proc/1/fd/3", "/proc/1/fd/4", "/proc/1/maps")
	}},
	{"trace the first process", func(targets) string { return did(syscall.PtraceAttach(1)) }},
	{"signal the server", func(t targets) string { return did(syscall.Kill(t.pid, 0)) }},
	{"kill the first process", func(targets) string {
		for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGUSR1} {
			_ = syscall.Kill(1, s) // to be refused or ignored: we are asked for "tried" after it
		}
		return ""
	}},
	{"mount", func(targets) string {
		return did(unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "")) + did(unix.Mount("/", "/tmp", "", unix.MS_BIND, "")) +
			did(unix.Mount("proc", "/tmp", "proc", 0, ""))
	}},
	{"remount what is read-only", func(targets) string {
		return did(unix.Mount("", "/usr", "", unix.MS_REMOUNT|unix.MS_BIND, "")) + did(unix.Unmount("/data", unix.MNT_DETACH)) +
			did(unix.MountSetattr(unix.AT_FDCWD, "/usr", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}))
	}},
	{"chroot", func(targets) string { return did(unix.Chroot("/tmp")) + did(unix.PivotRoot("/tmp", "/tmp")) }},
	{"new namespaces", func(targets) string {
		return did(unix.Unshare(unix.CLONE_NEWNS)) + did(unix.Unshare(unix.CLONE_NEWNET)) + did(unix.Unshare(unix.CLONE_NEWUTS))
	}},
	{"a new user namespace", func(targets) string {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}})
		if err != nil {
			return ""
		}
		_, _ = p.Wait() // that it started is enough
		return "done"
	}},
	{"join another namespace", func(targets) string {
		fd, err := unix.Open("/proc/1/ns/mnt", unix.O_RDONLY, 0)
		if err != nil {
			return ""
		}
		return did(unix.Setns(fd, 0))
	}},
	{"write where it may not", func(targets) string {
		for _, dir := range []string{"/", "/usr", "/usr/bin", "/etc", "/data", "/dev", "/run", "/proc", "/sys"} {
			if os.WriteFile(filepath.Join(dir, "broke_out"), []byte("x"), 0o600) == nil {
				return dir
			}
		}
		return writeTo("/etc/passwd") + writeTo("/run/token") + writeTo("/usr/bin/env")
	}},
	{"settings of the kernel", func(targets) string {
		got := ""
		for _, p := range []string{"kernel/core_pattern", "kernel/hostname", "user/max_user_namespaces", "vm/overcommit_memory", "kernel/modprobe"} {
			got += writeTo("/proc/sys/" + p)
		}
		return got + writeTo("/proc/sysrq-trigger") + writeTo("/proc/self/uid_map")
	}},
	{"devices", func(targets) string {
		got := readAny("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/proc/kcore", "/proc/kmsg")
		if unix.Mknod("/tmp/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0))) == nil {
			got += "mknod"
		}
		return got
	}},
	{"become root", func(targets) string {
		return did(syscall.Setresuid(0, 0, 0)) + did(syscall.Setresgid(0, 0, 0)) + did(syscall.Setgroups([]int{0}))
	}},
	{"powers", func(targets) string {
		text, _ := os.ReadFile("/proc/self/status") // empty fails below
		for _, want := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000",
			"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65534\t65534\t65534\t65534"} {
			if !strings.Contains(string(text), want) && (want[:6] != "CapBnd" || !strings.Contains(string(text), "CapBnd:\t000001fffffeffff")) {
				return "no " + want + " in " + string(text)
			}
		}
		return ""
	}},
	{"loosen its limits", func(targets) string {
		much := syscall.Rlimit{Cur: 1 << 40, Max: 1 << 40}
		got := did(syscall.Setrlimit(unix.RLIMIT_FSIZE, &much)) + did(syscall.Setrlimit(unix.RLIMIT_CORE, &much)) +
			did(syscall.Setrlimit(unix.RLIMIT_CPU, &much)) + did(unix.Setpriority(unix.PRIO_PROCESS, 0, -10))
		if os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0) == nil {
			got += "oom"
		}
		return got
	}},
	{"touch the machine", func(targets) string {
		return did(unix.Sethostname([]byte("x"))) + did(unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)) +
			did(unix.Settimeofday(&unix.Timeval{Sec: 1})) + did(unix.DeleteModule("x", 0))
	}},
	{"keys of the uid", func(targets) string {
		_, err := unix.AddKey("user", "gradegate-test", []byte("broke out"), unix.KEY_SPEC_USER_KEYRING)
		_, err2 := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
		return did(err) + did(err2)
	}},
	{"sockets that no namespace covers", func(targets) string {
		got := ""
		for _, family := range []int{unix.AF_VSOCK, unix.AF_ALG, unix.AF_PACKET, unix.AF_BLUETOOTH} {
			if fd, err := unix.Socket(family, unix.SOCK_STREAM, 0); err == nil {
				got += strconv.Itoa(family) + " "
				_ = unix.Close(fd)
			}
			if fd, err := unix.Socket(family, unix.SOCK_SEQPACKET, 0); err == nil {
				got += strconv.Itoa(family) + " "
				_ = unix.Close(fd)
			}
		}
		return got
	}},
	{"io_uring", func(targets) string {
		params := make([]byte, 120) // struct io_uring_params
		_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
		if e == unix.ENOSYS {
			return ""
		}
		return "not even absent: " + e.Error()
	}},
	{"large parts of the kernel", func(targets) string {
		got := ""
		for name, call := range map[string]uintptr{"bpf": unix.SYS_BPF, "perf": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD, "syslog": unix.SYS_SYSLOG} {
			if _, _, e := unix.Syscall(call, 3, 0, 0); e != unix.EPERM {
				got += name + ": " + e.Error() + " "
			}
		}
		return got
	}},
	{"open by handle", func(targets) string {
		h, id, err := unix.NameToHandleAt(unix.AT_FDCWD, "/usr", 0)
		if err != nil {
			return ""
		}
		_ = id // there is but one /usr
		fd, err := unix.Open("/usr", unix.O_RDONLY, 0)
		if err != nil {
			return ""
		}
		defer unix.Close(fd)
		_, err = unix.OpenByHandleAt(fd, h, unix.O_RDONLY)
		return did(err)
	}},
	{"inherited files", func(targets) string {
		got := ""
		for fd := 3; fd < 100; fd++ { // 3 and up are ours: epoll and its event
			link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err == nil && !strings.HasPrefix(link, "anon_inode:") && !strings.HasPrefix(link, "/proc/") {
				got += link + " "
			}
		}
		return got
	}},
	{"control groups", func(targets) string {
		list, err := os.ReadDir("/sys/fs/cgroup")
		if err == nil && len(list) > 0 {
			return list[0].Name()
		}
		return ""
	}},
	{"type for the terminal", func(targets) string {
		f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return ""
		}
		return "opened " + f.Name()
	}},
	{"kill everything", func(targets) string {
		_ = syscall.Kill(-1, syscall.SIGKILL) // what it hits is its own; the test looks after its victim
		return ""
	}},
}
