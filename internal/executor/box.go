package executor

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// jobUID is the uid and gid of every program: nobody, who owns nothing else.
const jobUID = 65534

// box is everything that is needed to start a program in a room of its own.
// It travels to Init through a file in memory, so nothing of it is in argv.
type box struct {
	Kind   boxKind  `json:"kind"`
	Root   bool     `json:"root"` // the server is root
	Self   []string `json:"self"`
	Mounts []mount  `json:"mounts"`
	Argv   []string `json:"argv"`
	Env    []string `json:"env"`
	Dir    string   `json:"dir"` // where the program starts
	Limits limits   `json:"limits"`
}

// limits are the rlimits of every process of the job; zero sets none.
type limits struct {
	FileBytes  uint64 `json:"file_bytes"`
	CPUSeconds uint64 `json:"cpu_seconds"`
	DataBytes  uint64 `json:"data_bytes"`
	Tasks      uint64 `json:"tasks"`
}

// The files that Init finds open. They are numbers, not names, because a room
// has no way to our folders.
const (
	boxFD    = 3 // the box, as JSON
	statusFD = 4 // what Init has to say: lines of status
	gateFD   = 5 // one byte means go
	exeFD    = 6 // this binary
)

// status is one line on statusFD.
type status struct {
	ExitCode *int   `json:"exit_code,omitempty"`
	Signal   int    `json:"signal,omitempty"`
	Error    string `json:"error,omitempty"`
	// Launched says that the room was ready and the program is next.
	Launched bool `json:"launched,omitempty"`
}

// child is a started room.
type child struct {
	cmd    *exec.Cmd
	direct bool
	done   chan struct{} // closed when the first process has ended
	said   chan status   // one value, when nobody can say more
}

// steps are the ways into a room: the argument of InitCommand.
var steps = map[string]string{Bwrap: "enter", Namespaces: "root", None: "launch"}

// start starts the room with out as the program's stdout and stderr. gate is
// called with the pid of the first process while it still waits; only if it
// returns nil does anything happen. The calling goroutine must be locked to
// its thread, which must live as long as the room: the room dies with it.
func (b box) start(out *os.File, gate func(pid int) error) (*child, error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close() // the room has its own copy
		}
	}()
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	sheet, err := memoryFile(text)
	if err != nil {
		return nil, err
	}
	open = append(open, sheet)
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	open = append(open, statusW)
	gateR, gateW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, statusR.Close())
	}
	open = append(open, gateR, gateW)
	exe, err := os.Open(b.Self[0])
	if err != nil {
		return nil, errors.Join(err, statusR.Close())
	}
	open = append(open, exe)

	args := append(append([]string{}, b.Self[1:]...), InitCommand, steps[b.Kind.Name])
	cmd := exec.Command(b.Self[0], args...)
	cmd.Args[0], cmd.Dir = "gradegate", "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "GOMAXPROCS=1"} // few threads: they count as the job's
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{sheet, statusW, gateR, exe}
	cmd.SysProcAttr = b.attributes()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, statusR.Close())
	}
	c := &child{cmd: cmd, direct: b.Kind.Name == None, done: make(chan struct{}), said: make(chan status, 1)}
	go func() { _ = cmd.Wait(); close(c.done) }() // the end is in ProcessState
	go c.listen(statusR)
	if err := gate(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill() // it still waits
		<-c.done
		return nil, err
	}
	_, err = gateW.Write([]byte("g"))
	if errors.Is(err, unix.EPIPE) {
		err = nil // it is dead; its end tells why
	}
	return c, err
}

// ownUserNS reports whether the program gets a user namespace: of our making, or
// of bwrap's, which needs one unless it is root.
func (b box) ownUserNS() bool { return b.Kind.UserNS || b.Kind.Name == Bwrap && !b.Root }

// uid is the program's uid, as the host sees it.
func (b box) uid() int {
	if b.Root {
		return jobUID
	}
	return os.Geteuid()
}

// attributes are the namespaces that the kernel makes with the first process.
func (b box) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if b.Kind.Name == Namespaces {
		a.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	}
	if !b.Kind.UserNS {
		return a
	}
	a.Cloneflags |= unix.CLONE_NEWUSER
	if b.Root {
		// All ids stay what they are, but every capability is worth nothing
		// outside.
		same := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}}
		a.UidMappings, a.GidMappings, a.GidMappingsEnableSetgroups = same, same, true
		return a
	}
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: jobUID, HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: jobUID, HostID: os.Getegid(), Size: 1}}
	// Whoever is not root in a namespace loses its capabilities at exec, except
	// the ambient ones. Init gives them up before the program starts.
	a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_RESOURCE, unix.CAP_SETPCAP}
	return a
}

// listen keeps the last word of everything said on the status pipe.
func (c *child) listen(r *os.File) {
	var all status
	for dec := json.NewDecoder(io.LimitReader(r, 64<<10)); ; {
		var s status
		if dec.Decode(&s) != nil {
			break
		}
		if s.ExitCode != nil {
			all.ExitCode = s.ExitCode
		}
		if s.Error != "" {
			all.Error = s.Error
		}
		all.Signal = max(all.Signal, s.Signal)
		all.Launched = all.Launched || s.Launched
	}
	_ = r.Close() // read only
	c.said <- all
}

// end is how the program ended. It must be called once, after done.
func (c *child) end() status {
	s := <-c.said
	ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch code := ws.ExitStatus(); {
	case s.Error != "" || !ok:
		return s
	case ws.Signaled() && s.ExitCode == nil && s.Signal == 0: // the first process was the program, or was killed
		return status{Signal: int(ws.Signal())}
	case !s.Launched:
		s.Error = "the sandbox could not be set up; the log says why"
		return s
	case s.ExitCode == nil && s.Signal == 0:
		return status{ExitCode: &code}
	}
	return s
}

// memoryFile is a file without a name that holds text.
func memoryFile(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("gradegate", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "box")
	if _, err := f.Write(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
