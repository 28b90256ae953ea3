package bundle

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"gradegate/internal/fault"
)

// Pack writes a folder as a tar.gz that Unpack takes. The same content gives
// the same bytes: names sorted, no times, no owners. Folders of version control
// and caches are left out, and so are empty folders. Links, special files and
// names that Unpack would refuse are refused here, each by its name; those
// errors are faults. Sizes are left to Unpack, whose limits are the server's.
func Pack(dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { _ = root.Close() }() // read only
	z := gzip.NewWriter(w)
	p := packer{root: root, out: tar.NewWriter(z), names: newRegister(DefaultLimits)}
	if err := fs.WalkDir(root.FS(), ".", p.visit); err != nil {
		return err
	}
	if p.files == 0 {
		return fault.New(fault.Invalid, "bundle_empty", "The folder holds no files.").WithFix("Name the folder with your program in it.")
	}
	if err := p.out.Close(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

type packer struct {
	root  *os.Root
	out   *tar.Writer
	names *register
	files int
}

// skipped are folders that nobody means to hand in.
var skipped = map[string]bool{".git": true, ".svn": true, "__pycache__": true, ".venv": true, ".ipynb_checkpoints": true}

func (k *packer) visit(p string, d fs.DirEntry, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("pack: %w", err)
	case d.IsDir() && skipped[d.Name()]:
		return fs.SkipDir
	case d.IsDir() || added(p):
		return nil
	case d.Type()&fs.ModeSymlink != 0:
		return fault.New(fault.Invalid, "bundle_link", "%q is a link, and links are not taken.", p).WithFix("Copy what it points to.")
	case !d.Type().IsRegular():
		return fault.New(fault.Invalid, "bundle_special", "%q is not a regular file.", p).WithFix("Leave it out.")
	}
	if _, _, err := k.names.file(p); err != nil {
		f := *fault.Of(err)
		f.Detail = fmt.Sprintf("%s It is %q.", f.Detail, p)
		return &f
	}
	k.files++
	return k.add(p)
}

func (k *packer) add(p string) error {
	f, err := k.root.Open(p)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	h := &tar.Header{Name: p, Typeflag: tar.TypeReg, Mode: mode, Size: info.Size(), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := k.out.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %q: %w", p, err)
	}
	if _, err := io.CopyN(k.out, f, info.Size()); err != nil {
		return fmt.Errorf("pack %q: %w", p, err)
	}
	return nil
}
