package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gradegate/internal/job"
)

// plan is the order that the server gives to a supervisor: the job and how it
// is to be run. It is written once, before the supervisor exists.
type plan struct {
	Spec     job.Spec      `json:"spec"`
	Box      boxKind       `json:"box"`
	GPUs     []string      `json:"gpus"`
	Self     []string      `json:"self"`
	ReadOnly []string      `json:"read_only"`
	Path     string        `json:"path"`
	Grace    time.Duration `json:"grace"`
}

// state is what a supervisor leaves in the job's folder for the server.
type state struct {
	Report     job.Report `json:"report"`
	Supervisor identity   `json:"supervisor"`
	Root       identity   `json:"root"` // the first process of the job
	Cgroups    []string   `json:"cgroups"`
}

// folder is a job's folder, as the executor uses it. The program reaches none
// of these files.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

func (f folder) work() string   { return f.path("work") }
func (f folder) data() string   { return f.path("data") }
func (f folder) output() string { return f.path("output") }
func (f folder) log() string    { return f.path("log") }
func (f folder) token() string  { return f.path("run_token") }

const (
	startedName = "started"         // exists: the one start was used up
	cancelName  = "cancel"          // exists: somebody wants the end
	stateName   = "state.json"      // what the supervisor knows
	lockName    = "supervisor.lock" // locked while the supervisor lives
	viewName    = "etc"             // the program's passwd and group
)

// claim uses up the job's one start. Exactly one caller ever gets true. The
// mark is on the disk when claim returns.
func (f folder) claim(by string) (bool, error) {
	file, err := os.OpenFile(f.path(startedName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = file.WriteString(by + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return false, err
	}
	return true, syncDir(string(f))
}

func (f folder) has(name string) bool {
	_, err := os.Lstat(f.path(name))
	return err == nil
}

// state reads what the supervisor wrote last; ok is false if it wrote nothing.
func (f folder) state() (s state, ok bool, err error) {
	ok, err = readJSON(f.path(stateName), &s)
	return s, ok, err
}

func (f folder) putState(s state) error { return writeJSON(f.path(stateName), s) }

// lock takes the supervisor's lock and holds it as long as this process lives.
// It returns nil if another process has it. The lock belongs to the open file,
// not to the process, so it can be asked for without being disturbed.
func (f folder) lock() (*os.File, error) {
	file, err := os.OpenFile(f.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &whole)
	if err == nil {
		return file, nil
	}
	_ = file.Close() // nothing was written
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
}

// supervised reports whether a living process holds the supervisor's lock.
func (f folder) supervised() (bool, error) {
	file, err := os.OpenFile(f.path(lockName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close() // read only use
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &whole); err != nil {
		return false, fmt.Errorf("ask for lock %s: %w", file.Name(), err)
	}
	return whole.Type != unix.F_UNLCK, nil
}

func readJSON(path string, v any) (bool, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, nil
}

// writeJSON replaces the file as a whole: a reader, or a crash, sees the old
// text or the new one.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
