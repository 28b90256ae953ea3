package bundle

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"gradegate/internal/fault"
)

// Pack writes a folder as a tar.gz that Unpack takes. The same content gives
// the same bytes: names sorted, no times, no owners. Hidden files of version
// control and caches are left out; links are refused by name.
func Pack(dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { _ = root.Close() }()
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("pack: %w", err)
		}
		if d.IsDir() {
			if skipped[d.Name()] {
				return fs.SkipDir
			}
			return nil
		}
		return packFile(t, root, p, d)
	})
	return errors.Join(err, t.Close(), z.Close())
}

// skipped are folders that nobody means to hand in.
var skipped = map[string]bool{".git": true, ".svn": true, "__pycache__": true, ".venv": true, ".ipynb_checkpoints": true}

func packFile(t *tar.Writer, root *os.Root, p string, d fs.DirEntry) error {
	if d.Type()&fs.ModeSymlink != 0 {
		return fault.New(fault.Invalid, "bundle_link", "%s is a link, and links are not taken.", p).WithFix("Copy what it points to.")
	}
	if !d.Type().IsRegular() {
		return fault.New(fault.Invalid, "bundle_special", "%s is not a regular file.", p).WithFix("Leave it out.")
	}
	f, err := root.Open(p)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	h := &tar.Header{Name: p, Typeflag: tar.TypeReg, Mode: mode, Size: info.Size(), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if _, err := io.CopyN(t, f, info.Size()); err != nil {
		return fmt.Errorf("pack %s: %w", p, err)
	}
	return nil
}
