// Package bundle takes a submission apart: one file, a zip, a tar or a tar.gz.
//
// Archives come from strangers. Everything is written through an os.Root, so
// that no name can climb out of it; links and devices are refused; sizes are
// counted as bytes arrive and never believed from a header. When anything is
// wrong, all that was written is removed. An archive inside an archive is a
// file like any other.
package bundle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"gradegate/internal/fault"
)

// Limits bound what an archive may become. A field that is zero has the value
// of DefaultLimits: no limit is ever absent.
type Limits struct {
	Bytes   int64 // of all files together, unpacked
	Entries int   // files and folders, those included that are only implied by a path
	Depth   int   // folders above a file
	Ratio   int64 // unpacked bytes for each byte of the upload, above one MiB in all
}

// DefaultLimits fit a repository with a small model: real source trees compress
// four- to tenfold and have some thousand files; a hundredfold is a bomb.
var DefaultLimits = Limits{Bytes: 1 << 30, Entries: 10_000, Depth: 20, Ratio: 100}

func (l Limits) filled() Limits {
	return Limits{
		Bytes:   cmp.Or(l.Bytes, DefaultLimits.Bytes),
		Entries: cmp.Or(l.Entries, DefaultLimits.Entries),
		Depth:   cmp.Or(l.Depth, DefaultLimits.Depth),
		Ratio:   cmp.Or(l.Ratio, DefaultLimits.Ratio),
	}
}

// ratioFloor is what may always be unpacked: a tiny file of zeros is no attack.
const ratioFloor = 1 << 20

// File is one unpacked file.
type File struct {
	Path string // slash-separated, below the root
	Size int64  // in bytes
	// Executable is true if the archive said so, or if the file begins with #!:
	// a single upload and a zip from Windows have no mode to say it with.
	Executable bool
}

// Manifest is what a bundle held, sorted by path.
type Manifest struct {
	Files []File
	Bytes int64 // of all files together
}

// Unpack writes the bundle in r (size bytes long) below root, which must be
// empty. The format is told from the content; what is no archive is one file
// of the given name. Files get mode 0644, or 0755 if executable, and folders
// 0755, whatever the umask. What macOS adds beside the files (__MACOSX, ._*,
// .DS_Store) is left out.
//
// Errors are faults of kind Invalid or TooLarge about the bundle, or of kind
// Unavailable when the disk fails; after an error the root is as it was before.
// Bundles may be unpacked concurrently into different roots.
func Unpack(root *os.Root, name string, r io.ReaderAt, size int64, l Limits) (Manifest, error) {
	u := newUnpacker(root, size, l.filled())
	err := u.unpack(name, r, size)
	if err == nil && size == 0 {
		err = fault.New(fault.Invalid, "bundle_empty", "The file is empty.").WithFix("Look whether it is the right one, and whether it was written to its end.")
	}
	if err == nil && len(u.files) == 0 {
		err = fault.New(fault.Invalid, "bundle_empty", "The bundle holds no files.").WithFix(fixPack)
	}
	if err != nil {
		u.undo()
		return Manifest{}, err
	}
	slices.SortFunc(u.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return Manifest{Files: u.files, Bytes: u.written}, nil
}

// fixPack makes a good archive.
const fixPack = "tar -czf bundle.tar.gz -C FOLDER ."

type unpacker struct {
	root    *os.Root
	limits  Limits
	names   *register
	budget  int64 // bytes that may be written in all
	written int64
	files   []File
	made    []string // files and folders in the order of their making, for undo
}

func newUnpacker(root *os.Root, size int64, l Limits) *unpacker {
	grown := int64(math.MaxInt64)
	if size <= grown/l.Ratio {
		grown = size * l.Ratio
	}
	return &unpacker{root: root, limits: l, names: newRegister(l), budget: min(l.Bytes, max(ratioFloor, grown))}
}

func (u *unpacker) unpack(name string, r io.ReaderAt, size int64) error {
	head := make([]byte, min(512, max(0, size)))
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return storage(err)
	}
	head = head[:n]
	whole := io.NewSectionReader(r, 0, size)
	switch {
	case n == 0:
		return nil // Unpack says that it is empty
	case hasPrefix(head, "PK\x03\x04", "PK\x05\x06"):
		return u.zip(r, size)
	case hasPrefix(head, "\x1f\x8b"):
		return u.tarGz(whole)
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return u.tar(whole)
	case hasPrefix(head, otherArchives...):
		return fault.New(fault.Invalid, "bundle_format", "The bundle is an archive of a kind that is not read; zip, tar and tar.gz are.").WithFix(fixPack)
	}
	if archiveName(name) {
		return fault.New(fault.Invalid, "bundle_format", "The file is called like an archive, and is none.").WithFix(fixPack)
	}
	return u.file(name, false, whole)
}

// archiveName reports whether a file of that name is meant to be an archive.
func archiveName(name string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{".zip", ".tar", ".tar.gz", ".tgz"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// otherArchives are the first bytes of what people mean as a bundle and we do
// not read: xz, bzip2, zstd, lz4, 7z, rar, and a zip in several parts. Taken
// for a program, they would fail much later and much less clearly.
var otherArchives = []string{
	"\xfd7zXZ\x00", "BZh91AY&SY", "\x28\xb5\x2f\xfd", "\x04\x22\x4d\x18", "7z\xbc\xaf\x27\x1c", "Rar!\x1a\x07", "PK\x07\x08",
}

func hasPrefix(head []byte, starts ...string) bool {
	return slices.ContainsFunc(starts, func(p string) bool { return bytes.HasPrefix(head, []byte(p)) })
}

func (u *unpacker) folder(name string) error {
	folders, err := u.names.folder(name)
	if err != nil {
		return err
	}
	return u.makeFolders(folders)
}

func (u *unpacker) makeFolders(paths []string) error {
	for _, p := range paths {
		if err := u.root.Mkdir(p, 0o755); err != nil {
			return storage(err)
		}
		u.made = append(u.made, p)
		if err := u.root.Chmod(p, 0o755); err != nil { // the umask has taken part of it
			return storage(err)
		}
	}
	return nil
}

func (u *unpacker) file(name string, executable bool, r io.Reader) error {
	p, folders, err := u.names.file(name)
	if err != nil || p == "" {
		return err
	}
	if err := u.makeFolders(folders); err != nil {
		return err
	}
	f, err := u.root.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return storage(err)
	}
	u.made = append(u.made, p)
	n, script, err := u.copy(f, r)
	perm := fs.FileMode(0o644)
	if executable || script {
		perm = 0o755
	}
	if err == nil {
		err = storage(errors.Join(f.Chmod(perm), f.Close()))
	} else {
		_ = f.Close() // it is removed anyway
	}
	u.files = append(u.files, File{Path: p, Size: n, Executable: perm == 0o755})
	return err
}

// copy writes at most what the budget still allows, and says whether it was a
// script with an interpreter line.
func (u *unpacker) copy(w io.Writer, r io.Reader) (n int64, script bool, err error) {
	src := &source{r: r}
	n, err = io.Copy(w, io.LimitReader(src, u.budget-u.written+1))
	u.written += n
	switch {
	case u.written > u.budget:
		err = u.over()
	case src.err != nil:
		err = u.damaged(src.err)
	default:
		err = storage(err)
	}
	return n, string(src.head) == "#!", err
}

// source remembers the first two bytes, and an error of the archive, to tell
// it from one of the disk.
type source struct {
	r    io.Reader
	head []byte
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if short := 2 - len(s.head); short > 0 {
		s.head = append(s.head, p[:min(n, short)]...)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// undo removes what was made and nothing else, the deepest first.
func (u *unpacker) undo() {
	for _, p := range slices.Backward(u.made) {
		_ = u.root.Remove(p)
	}
}

// over is the fault of a bundle that is larger than its budget.
func (u *unpacker) over() error {
	if u.budget < u.limits.Bytes {
		return fault.New(fault.Invalid, "bundle_ratio", "The bundle grows more than %d-fold when unpacked.", u.limits.Ratio).
			WithFix("Leave out what is almost empty, or send it uncompressed: tar -cf bundle.tar -C FOLDER .")
	}
	return fault.New(fault.TooLarge, "bundle_too_large", "The bundle unpacks to more than %d KiB.", u.limits.Bytes>>10).
		WithFix("Leave out data sets and caches.")
}

// errOverlong is what our own bounds on reading end in.
var errOverlong = errors.New("more than the limits allow")

func (u *unpacker) damaged(err error) error {
	if errors.Is(err, errOverlong) {
		return u.over()
	}
	return fault.Wrap(fault.Invalid, "bundle_not_readable", "The bundle is damaged or no archive that we read.", err).WithFix(fixPack)
}

func trailing() error {
	return fault.New(fault.Invalid, "bundle_trailing", "The bundle goes on after the end of its archive.").WithFix(fixPack)
}

// storage is the fault for an error of the disk. That a name is taken already
// is our own mistake: the root was not empty.
func storage(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("unpacking into a folder that is not empty: %w", err)
	}
	return fault.Wrap(fault.Unavailable, "storage_unavailable", "The bundle could not be stored.", err).
		WithFix("Try again later; if it lasts, tell the operator.")
}
