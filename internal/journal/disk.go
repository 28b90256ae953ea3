package journal

import (
	"io"
	"os"
)

// disk is what the journal changes in the file system. Tests fail it, before
// and after an operation takes effect; reading goes to package os directly.
type disk interface {
	// create opens a new, empty file, mode 0600; an existing one is emptied.
	create(path string) (file, error)
	// open opens an existing file for writing.
	open(path string) (file, error)
	// trim cuts a file to size and syncs it.
	trim(path string, size int64) error
	// rename replaces to with from.
	rename(from, to string) error
	// remove removes a file.
	remove(path string) error
	// syncDir makes the names in a folder durable.
	syncDir(dir string) error
}

// file is a segment open for writing. Datasync also covers the size.
type file interface {
	io.WriterAt
	Truncate(size int64) error
	Datasync() error
	Close() error
}

// writeAt is one WriteAt that takes a short write for the failure it is.
func writeAt(f file, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

type osDisk struct{}

type osFile struct{ *os.File }

func (osDisk) create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) open(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d osDisk) trim(path string, size int64) error {
	f, err := d.open(path)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Datasync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (osDisk) remove(path string) error { return os.Remove(path) }

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
