package journal

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

var errInjected = errors.New("injected fault")

// scratch is a folder for tests that need no real disk: in memory if the machine
// has that, because they make thousands of files.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "journal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// How an operation fails.
type fault int

const (
	failBefore fault = iota // nothing happens
	failAfter               // it happens, but reports an error
	failShort               // half of a write happens
)

// faultDisk fails the operations from number at on, count of them. It syncs
// nothing, but remembers what each file held at its last successful fsync.
type faultDisk struct {
	real  osDisk
	mode  fault
	at    int // 1 is the first operation; 0 fails none
	count int
	// duringSync, if set, is called once, while an fsync is under way.
	duringSync func()

	mu     sync.Mutex
	n      int
	hit    bool
	log    []string
	synced map[string][]byte
}

func newFaultDisk() *faultDisk { return &faultDisk{count: 1, synced: map[string][]byte{}} }

// do counts an operation and runs it, or fails it.
func (d *faultDisk) do(op string, effect func(short bool) error) error {
	d.mu.Lock()
	d.n++
	d.log = append(d.log, op)
	fails := d.at > 0 && d.n >= d.at && d.n < d.at+d.count
	d.hit = d.hit || fails
	d.mu.Unlock()
	if !fails {
		return effect(false)
	}
	switch {
	case d.mode == failAfter:
		_ = effect(false)
	case d.mode == failShort && op == "write":
		_ = effect(true)
	}
	return errInjected
}

func (d *faultDisk) create(path string) (f file, err error) {
	err = d.do("create", func(bool) error {
		inner, err := d.real.create(path)
		f = &faultFile{file: inner, disk: d, path: path}
		return err
	})
	if err != nil && f != nil {
		_ = f.Close()
	}
	return f, err
}

func (d *faultDisk) open(path string) (file, error) {
	inner, err := d.real.open(path)
	return &faultFile{file: inner, disk: d, path: path}, err
}

func (d *faultDisk) trim(path string, size int64) error {
	return d.do("trim", func(bool) error {
		err := os.Truncate(path, size)
		d.remember(path)
		return err
	})
}

func (d *faultDisk) rename(from, to string) error {
	return d.do("rename", func(bool) error {
		d.mu.Lock()
		d.synced[to] = d.synced[from]
		d.mu.Unlock()
		return d.real.rename(from, to)
	})
}

func (d *faultDisk) remove(path string) error {
	return d.do("remove", func(bool) error { return d.real.remove(path) })
}

func (d *faultDisk) syncDir(dir string) error {
	return d.do("syncdir", func(bool) error { _, err := os.Stat(dir); return err })
}

func (d *faultDisk) remember(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	d.mu.Lock()
	d.synced[path] = b
	d.mu.Unlock()
}

type faultFile struct {
	file
	disk *faultDisk
	path string
}

// name follows the rename of a new segment.
func (f *faultFile) name() string {
	if _, err := os.Stat(f.path); err != nil {
		return f.path[:len(f.path)-len(".tmp")]
	}
	return f.path
}

func (f *faultFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.disk.do("write", func(short bool) error {
		if short {
			n, _ = f.file.WriteAt(b[:len(b)/2], off)
			return io.ErrShortWrite
		}
		n, err = f.file.WriteAt(b, off)
		return err
	})
	return n, err
}

func (f *faultFile) Datasync() error {
	return f.disk.do("fsync", func(bool) error {
		f.disk.remember(f.name())
		if hook := f.disk.duringSync; hook != nil {
			f.disk.duringSync = nil
			hook()
		}
		return nil
	})
}

// powerCut turns the files in dir into what a disk may hold after a power cut:
// of everything since the last fsync, an arbitrary choice of sectors.
func (d *faultDisk) powerCut(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		now, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		old := d.synced[path]
		size := len(old)
		if len(now) > size {
			size += r.IntN(len(now) - size + 1)
		}
		out := make([]byte, size)
		copy(out, old)
		for at := 0; at < size; at += sector {
			if end := min(at+sector, size, len(now)); at < end && r.IntN(2) == 0 {
				copy(out[at:end], now[at:end])
			}
		}
		// What was synced never changes: an append-only file rewrites only what
		// follows it in the same sector.
		if err := os.WriteFile(path, out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
