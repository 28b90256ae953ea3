package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Init is the hidden sub-command InitCommand: the way from our own binary to
// the program, through the walls that separate them. args are os.Args[2:]; the
// result is the exit code. What it does comes from the files that start left
// open, never from args alone.
//
//	enter   become bwrap, which makes the room and comes back as "inside"
//	root    in new namespaces, make the room, go on as "inside"
//	inside  be the first process of the room, start "launch", wait for its end
//	launch  give up every power, set the limits, become the program
func Init(args []string) int {
	runtime.LockOSThread() // capabilities, priority and no_new_privs belong to a thread
	b, err := readBox()
	if err == nil && len(args) != 1 {
		err = errors.New("this command is started by gradegate itself")
	}
	if err == nil {
		switch args[0] {
		case "enter":
			err = b.enter()
		case "root":
			if err = b.room(); err == nil {
				return b.first()
			}
		case "inside":
			return b.first()
		case "launch":
			err = b.launch()
		default:
			err = fmt.Errorf("unknown step %q", args[0])
		}
	}
	say(status{Error: err.Error()})
	return 1
}

func readBox() (b box, err error) {
	var info unix.Stat_t
	if err := unix.Fstat(boxFD, &info); err != nil {
		return b, errors.New("this command is started by gradegate itself")
	}
	// Read in place: the next step has the same open file, and needs it unread.
	text := make([]byte, info.Size)
	if _, err := unix.Pread(boxFD, text, 0); err != nil {
		return b, fmt.Errorf("read the box: %w", err)
	}
	return b, json.Unmarshal(text, &b)
}

// say tells the supervisor. Nobody may be listening any more.
func say(s status) {
	text, err := json.Marshal(s)
	if err == nil {
		_, _ = unix.Write(statusFD, append(text, '\n'))
	}
}

// wait waits for the supervisor's word. End of file means that it is dead.
func wait() error {
	one := make([]byte, 1)
	for {
		n, err := unix.Read(gateFD, one)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n != 1:
			return errors.New("the supervisor is gone")
		}
		return unix.Close(gateFD)
	}
}

// enter becomes bwrap.
func (b box) enter() error {
	if err := wait(); err != nil {
		return err
	}
	if b.Root && b.Kind.UserNS {
		forbidNesting()
	}
	for _, fd := range []int{boxFD, statusFD, exeFD} { // inside needs them
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	return fmt.Errorf("start bwrap: %w", syscall.Exec(b.Kind.Bwrap, b.bwrapArgs(), []string{"PATH=/usr/bin:/bin"}))
}

// forbidNesting allows no further user namespace inside ours: inside one, a
// program has capabilities again, and a large part of the kernel to attack.
// Where the kernel refuses, the program is still without power over us.
func forbidNesting() {
	_ = os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
}

func (b box) bwrapArgs() []string {
	args := []string{
		"bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
		"--hostname", "job", "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv", "--setenv", "GOMAXPROCS", "1",
		"--cap-drop", "ALL",
	}
	if b.Root {
		// Without a user namespace of bwrap's own: it would map nobody to our
		// root. launch needs these to become nobody, and then has none.
		args = append(args, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP")
	} else {
		args = append(args, "--unshare-user", "--uid", strconv.Itoa(jobUID), "--gid", strconv.Itoa(jobUID))
	}
	if b.Kind.NoNest {
		args = append(args, "--disable-userns")
	}
	for _, m := range b.Mounts {
		args = append(args, m.bwrap()...)
	}
	args = append(args, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--", fmt.Sprintf("/proc/self/fd/%d", exeFD))
	return append(append(args, b.Self[1:]...), InitCommand, "inside")
}

func (m mount) bwrap() []string {
	switch m.Kind {
	case readOnly:
		return []string{"--ro-bind", m.From, m.To}
	case readWrite:
		return []string{"--bind", m.From, m.To}
	case device:
		return []string{"--dev-bind", m.From, m.To}
	case link:
		return []string{"--symlink", m.From, m.To}
	case memory:
		return []string{"--perms", "1777", "--size", strconv.FormatInt(m.Size, 10), "--tmpfs", m.To}
	case procFS:
		return []string{"--proc", m.To}
	case devFS:
		return []string{"--dev", m.To}
	}
	return []string{"--dir", m.To}
}

// room makes the room of namespaces mode, in the new namespaces.
func (b box) room() error {
	if err := wait(); err != nil {
		return err
	}
	return b.build()
}

// first is the first process of the room: it starts the program, buries
// orphans, and tells how the program ended. With its end, the kernel ends
// everything in the room.
func (b box) first() int {
	// As first process it is immune to signals that it does not handle; Go
	// handles these, so they are taken and dropped.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	// The program may have the same uid, and must not look into this process.
	// Its child becomes another program, and with that an open one again.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		say(status{Error: "hide from the program: " + err.Error()})
		return 1
	}
	cmd := exec.Command("/proc/self/exe", append(append([]string{}, b.Self[1:]...), InitCommand, "launch")...)
	cmd.Args[0], cmd.Dir, cmd.Env = "gradegate", "/", []string{"GOMAXPROCS=1"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(boxFD, "box"), os.NewFile(statusFD, "status")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, AmbientCaps: b.attributes().AmbientCaps}
	if err := cmd.Start(); err != nil {
		say(status{Error: "start the program: " + err.Error()})
		return 1
	}
	_ = os.Stdout.Close() // the log ends with the program
	_ = os.Stderr.Close() // likewise
	return bury(cmd.Process.Pid)
}

// bury waits for pid, and for everything that is orphaned meanwhile.
func bury(pid int) int {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) || err == nil && got != pid {
			continue
		}
		if err != nil {
			say(status{Error: "wait for the program: " + err.Error()})
			return 1
		}
		if ws.Signaled() {
			say(status{Signal: int(ws.Signal())})
			return 1
		}
		code := ws.ExitStatus()
		say(status{ExitCode: &code})
		return 0
	}
}

// launch becomes the program.
func (b box) launch() error {
	if b.Kind.Name == None {
		if err := wait(); err != nil {
			return err
		}
	}
	say(status{Launched: true})
	// A server's session keyring would be inherited; without one it is fine too.
	_, _ = unix.KeyctlJoinSessionKeyring("")
	// First to be killed when the host runs out of memory.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 5) // never refused
	unix.Umask(0o022)
	if err := b.Limits.set(); err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	if err := b.dropPowers(); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	if err := os.Chdir(b.Dir); err != nil {
		return fmt.Errorf("the job folder cannot be reached by uid %d: %w", jobUID, err)
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	if err := filterCalls(); err != nil { // after what it refuses
		return err
	}
	if n := b.Limits.DataBytes; n > 0 { // last: it binds this process too
		if err := syscall.Setrlimit(unix.RLIMIT_DATA, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	return fmt.Errorf("start %s: %w", b.Argv[0], syscall.Exec(b.Argv[0], b.Argv, b.Env))
}

func (l limits) set() error {
	for resource, n := range map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 1024, unix.RLIMIT_FSIZE: l.FileBytes, unix.RLIMIT_CPU: l.CPUSeconds,
		unix.RLIMIT_NPROC: l.Tasks,
	} {
		if n == 0 && resource != unix.RLIMIT_CORE {
			continue
		}
		// A stricter limit of ours stays: only root could raise it.
		var own syscall.Rlimit
		if err := syscall.Getrlimit(resource, &own); err != nil {
			return err
		}
		n = min(n, own.Max)
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	return nil
}

// dropPowers leaves no capability in any set, no supplementary group, and no
// way to get one back.
func (b box) dropPowers() error {
	for c := uintptr(0); c <= 63; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel knows no more of them
		}
		if err != nil && b.Root { // without root they mean nothing: see NO_NEW_PRIVS
			return err
		}
	}
	// Absent before Linux 4.3, and then there is nothing to clear.
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if b.Root {
		if err := errors.Join(syscall.Setgroups([]int{}), syscall.Setresgid(jobUID, jobUID, jobUID),
			syscall.Setresuid(jobUID, jobUID, jobUID)); err != nil {
			return err
		}
	}
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return err
	}
	// A change of uid forgets whose death is ours.
	return errors.Join(unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0),
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

// closeOnExec leaves the program nothing but stdin, stdout and stderr. If exec
// fails, the status pipe is still open to say so.
func closeOnExec() error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC) // the folder's own is closed
		}
	}
	return nil
}
