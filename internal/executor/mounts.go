package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// oldRoot is where the host's files are while the room is made.
const oldRoot = "/.host"

// deviceNodes are the devices a program may expect. None of them leads out.
var deviceNodes = []string{"null", "zero", "full", "random", "urandom", "tty"}

// build makes the room of namespaces mode: an empty file system in memory, into
// which only the mounts of the box are brought; then the host's is let go.
// It needs Linux 5.12, where mount_setattr can make a whole subtree read-only.
func (b box) build() error {
	if err := unix.Sethostname([]byte("job")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	// Nothing that happens here must be seen by the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := newRoot("/tmp"); err != nil {
		return err
	}
	for _, m := range b.Mounts {
		if err := m.mount(); err != nil {
			return fmt.Errorf("mount %s: %w", m.To, err)
		}
	}
	forbidNestingIn(b)
	if err := unix.Unmount(oldRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	if err := os.Remove(oldRoot); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/"} { // themselves, not what is mounted in them
		if err := setAttr(dir, 0, unix.MOUNT_ATTR_RDONLY); err != nil {
			return fmt.Errorf("make %s read-only: %w", dir, err)
		}
	}
	return nil
}

func forbidNestingIn(b box) {
	if b.Kind.UserNS {
		forbidNesting()
	}
}

// newRoot makes an empty root. at is only the place where it starts its life:
// what the host has there can be seen again below oldRoot.
func newRoot(at string) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=755"); err != nil {
		return fmt.Errorf("mount an empty root: %w", err)
	}
	if err := os.Mkdir(at+oldRoot, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(at, at+oldRoot); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return os.Chdir("/")
}

func (m mount) mount() error {
	switch m.Kind {
	case link:
		return os.Symlink(m.From, m.To)
	case emptyDir:
		return os.MkdirAll(m.To, 0o755)
	case memory:
		if err := os.MkdirAll(m.To, 0o755); err != nil {
			return err
		}
		return unix.Mount("tmpfs", m.To, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV,
			fmt.Sprintf("size=%d,nr_inodes=100k,mode=1777", m.Size))
	case procFS:
		if err := os.MkdirAll(m.To, 0o755); err != nil {
			return err
		}
		return unix.Mount("proc", m.To, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	case devFS:
		return devices(m.To)
	case readWrite:
		return bind(m.From, m.To, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	case readOnly:
		return bind(m.From, m.To, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_RDONLY)
	case device:
		return bind(m.From, m.To, unix.MOUNT_ATTR_NOSUID)
	}
	return fmt.Errorf("unknown kind %q", m.Kind)
}

// bind shows a file or folder of the host, with everything mounted below it.
func bind(from, to string, attr uint64) error {
	from = oldRoot + from
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else {
		err = emptyFile(to)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return setAttr(to, unix.AT_RECURSIVE, attr)
}

func setAttr(path string, flags uint, attr uint64) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, flags, &unix.MountAttr{Attr_set: attr})
}

func emptyFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if errors.Is(err, fs.ErrExist) {
		return nil // part of something shown before
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// devices makes a /dev of a handful of nodes, which are the host's own: a user
// namespace cannot make any.
func devices(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, "size=64k,mode=755"); err != nil {
		return err
	}
	for _, name := range deviceNodes {
		if err := bind("/dev/"+name, filepath.Join(dir, name), unix.MOUNT_ATTR_NOSUID); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
