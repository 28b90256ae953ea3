package executor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gradegate/internal/fault"
	"gradegate/internal/job"
)

// OpenOutput opens a file that a job left in its output folder. The program
// chose what lies there, so only a regular file is opened, of at most
// Resources.OutputBytes, that has no other name and is reached without a link;
// a FIFO does not block. NotFound means there is none of that name, Invalid
// that what is there is not such a file. It must not be called before the job
// has ended. The caller closes the file.
func OpenOutput(s job.Spec, name string) (*os.File, error) {
	root, err := os.OpenRoot(folder(s.Dir).output())
	if err != nil {
		return nil, err
	}
	defer root.Close() // nothing was written
	if !filepath.IsLocal(name) {
		return nil, badOutput(name, "is no path inside the output folder")
	}
	want, err := plainFile(root, name)
	if err != nil {
		return nil, err
	}
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrPermission) {
		return nil, badOutput(name, "cannot be read")
	}
	if err != nil {
		return nil, err
	}
	limit := bounded(s.Resources).OutputBytes
	got, err := file.Stat()
	switch {
	case err != nil:
	case !os.SameFile(want, got):
		err = badOutput(name, "changed while it was opened")
	case got.Size() > limit:
		err = fault.New(fault.TooLarge, "output_too_large", "The output file %s is larger than %d bytes.", name, limit).
			WithFix("Write less into $GRADEGATE_OUTPUT.")
	default:
		return file, nil
	}
	return nil, errors.Join(err, file.Close())
}

// plainFile looks at every part of the path: folders, then one regular file.
func plainFile(root *os.Root, name string) (fs.FileInfo, error) {
	parts := strings.Split(filepath.Clean(name), "/")
	for i := range parts {
		info, err := root.Lstat(filepath.Join(parts[:i+1]...))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil, fault.New(fault.NotFound, "output_missing", "The program left no %s in its output folder.", name).
				WithFix("Write it to $GRADEGATE_OUTPUT/%s.", name)
		}
		if err != nil {
			return nil, err
		}
		last := i == len(parts)-1
		switch {
		case !last && info.IsDir():
		case !last || !info.Mode().IsRegular():
			return nil, badOutput(name, "is no regular file")
		case links(info) != 1:
			return nil, badOutput(name, "has more than one name")
		default:
			return info, nil
		}
	}
	return nil, badOutput(name, "is no regular file")
}

func badOutput(name, why string) error {
	return fault.New(fault.Invalid, "output_unusable", "The output file %s %s.", name, why).
		WithFix("Write a regular file into $GRADEGATE_OUTPUT.")
}
