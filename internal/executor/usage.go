package executor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A job may leave this many files and folders, this deep: more than any
// submission needs, and few enough to be counted ten times a second.
const (
	maxEntries = 100_000
	maxDepth   = 100
)

// errUnmeasurable is a folder whose size cannot be told: itself a violation.
var errUnmeasurable = errors.New("it holds a folder that cannot be measured")

// tally is what lies in a folder.
type tally struct {
	bytes   int64 // on the disk
	entries int
}

// measure counts a folder that a hostile program may be changing. It follows
// no link. force makes unreadable folders readable first, which is safe only
// when the program is dead.
func measure(path string, force bool) (tally, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) && force {
		if err := os.Chmod(path, 0o700); err != nil {
			return tally{}, err
		}
		return measure(path, false)
	}
	if err != nil {
		return tally{}, fmt.Errorf("open %s: %w", path, err)
	}
	var t tally
	return t, t.add(fd, 0, force)
}

func (t *tally) add(fd, depth int, force bool) (err error) {
	dir := os.NewFile(uintptr(fd), "folder of a job")
	defer func() { err = errors.Join(err, dir.Close()) }()
	if force { // its files can be listed, but perhaps not looked at
		if err := unix.Fchmod(fd, 0o700); err != nil {
			return err
		}
	}
	for {
		names, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := t.addOne(fd, name, depth, force); err != nil {
				return err
			}
		}
	}
}

func (t *tally) addOne(parent int, name string, depth int, force bool) error {
	var info unix.Stat_t
	if err := unix.Fstatat(parent, name, &info, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.EACCES) {
		return errUnmeasurable
	} else if err != nil {
		return nil // deleted meanwhile
	}
	t.entries++
	t.bytes += info.Blocks * 512
	if t.entries > maxEntries || depth > maxDepth {
		return fmt.Errorf("it holds more than %d files, or more than %d folders in each other", maxEntries, maxDepth)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(parent, name, flags, 0)
	if errors.Is(err, unix.EACCES) && force {
		if err := unix.Fchmodat(parent, name, 0o700, 0); err != nil {
			return err
		}
		fd, err = unix.Openat(parent, name, flags, 0)
	}
	switch {
	case err == nil:
		return t.add(fd, depth+1, force)
	case errors.Is(err, unix.EACCES):
		return errUnmeasurable
	}
	return nil // deleted meanwhile
}

// written is how much the processes have written in all their life, to files
// of any kind. The kernel adds what ended children wrote to their parent's.
func written(pids []int) (n int64) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if err != nil {
			continue
		}
		var calls, disk int64
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			v, _ := strconv.ParseInt(value, 10, 64) // the kernel wrote a number
			switch key {
			case "wchar":
				calls = v
			case "write_bytes":
				disk = v
			}
		}
		n += max(calls, disk)
	}
	return n
}

// hidden is the size of files that the processes hold open or mapped on device
// dev after deleting them: they fill the disk, and no folder shows them.
func hidden(pids []int, dev uint64) (n int64) {
	seen := map[uint64]bool{}
	for _, pid := range pids {
		for _, kind := range []string{"fd", "map_files"} {
			dir := fmt.Sprintf("/proc/%d/%s", pid, kind)
			list, err := os.ReadDir(dir)
			if err != nil {
				continue
			}
			for _, e := range list {
				info, err := os.Stat(dir + "/" + e.Name())
				if err != nil || !info.Mode().IsRegular() {
					continue
				}
				st, ok := info.Sys().(*syscall.Stat_t)
				if !ok || st.Nlink > 0 || st.Dev != dev || seen[st.Ino] {
					continue
				}
				seen[st.Ino] = true
				n += st.Blocks * 512
			}
		}
	}
	return n
}

// resident is the memory of the processes. The cheap sum counts shared pages
// more than once, so only when it is over the limit the exact one is made.
func resident(pids []int, limit int64) (n int64) {
	for _, pid := range pids {
		n += memoryField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
	}
	if n <= limit {
		return n
	}
	exact := int64(0)
	for _, pid := range pids {
		path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		if pss := memoryField(path, "Pss:"); pss > 0 {
			exact += pss
		} else {
			exact += memoryField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
		}
	}
	return exact
}

// burst reports whether a process of the ended job grew beyond limit, perhaps
// between two looks: a program that an rlimit then refused more ends with a code
// of its own. The peak counts the start of a room, which is a copy of ourselves.
func burst(limit int64) bool {
	var us, job unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &us) != nil || unix.Getrusage(unix.RUSAGE_CHILDREN, &job) != nil {
		return false
	}
	return job.Maxrss<<10 > limit+us.Maxrss<<10
}

// memoryField reads a line such as "VmRSS:  1234 kB"; 0 if there is none.
func memoryField(path, name string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// fileSystem is the number of the file system that holds path, and its free space.
func fileSystem(path string) (dev uint64, free int64) {
	var st unix.Stat_t
	var vfs unix.Statfs_t
	if unix.Stat(path, &st) != nil || unix.Statfs(path, &vfs) != nil {
		return 0, 1<<63 - 1
	}
	return st.Dev, int64(vfs.Bavail) * vfs.Bsize
}

// links is the number of names of a file.
func links(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // it is narrower on other machines
	}
	return 0
}
