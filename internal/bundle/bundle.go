// Package bundle takes a submission apart: one file, a zip, a tar or a tar.gz.
//
// Archives come from strangers. Everything is written through an os.Root, so
// that no name can climb out of it; links and devices are refused; sizes are
// counted as bytes arrive and never believed from a header. When anything is
// wrong, all that was written is removed.
package bundle

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gradegate/internal/fault"
)

// Limits bound what an archive may become.
type Limits struct {
	Bytes   int64 // of all files together, unpacked
	Entries int   // files and folders
	Depth   int   // folders above a file
	Ratio   int64 // unpacked bytes for each byte of the upload, above a floor
}

// DefaultLimits fit a repository with a small model: real source trees compress
// four- to tenfold and have some thousand files; a hundredfold is a bomb.
var DefaultLimits = Limits{Bytes: 1 << 30, Entries: 10_000, Depth: 20, Ratio: 100}

// ratioFloor is what may always be unpacked: a tiny file of zeros is no attack.
const ratioFloor = 1 << 20

// File is one unpacked file.
type File struct {
	Path       string // slash-separated, below the root
	Size       int64
	Executable bool
}

// Manifest is what a bundle held, sorted by path.
type Manifest struct {
	Files []File
	Bytes int64
}

// Unpack writes the bundle in r (size bytes long) below root, which should be
// empty. The format is told from the content; what is no archive is one file
// of the given name. Errors are faults of kind Invalid or TooLarge, or of
// kind Unavailable when the disk fails.
func Unpack(root *os.Root, name string, r io.ReaderAt, size int64, l Limits) (Manifest, error) {
	u := &unpacker{root: root, limits: l, budget: min(l.Bytes, max(ratioFloor, size*l.Ratio)), ratio: size*l.Ratio < l.Bytes, seen: map[string]string{}}
	err := u.unpack(name, r, size)
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
	budget  int64 // bytes that may still be written in all
	ratio   bool  // the budget is that of the ratio, not of the total
	written int64
	entries int
	files   []File
	// seen maps the case-folded path to the path as written, and tops lists what
	// to remove again.
	seen map[string]string
	tops []string
}

func (u *unpacker) unpack(name string, r io.ReaderAt, size int64) error {
	head := make([]byte, 512)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return storage(err)
	}
	head = head[:n]
	whole := io.NewSectionReader(r, 0, size)
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return u.zip(r, size)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return u.tarGz(whole)
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return u.tar(whole)
	}
	return u.file(name, 0o644, whole)
}

func (u *unpacker) tarGz(r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return damaged(err)
	}
	return u.tar(z)
}

func (u *unpacker) tar(r io.Reader) error {
	// Headers and padding cost work too: what a tar may be long is bounded by
	// what may be written and by a kilobyte for each entry.
	in := tar.NewReader(&io.LimitedReader{R: r, N: u.budget + int64(u.limits.Entries+2)*2048})
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		if err := u.tarEntry(h, in); err != nil {
			return err
		}
	}
}

func (u *unpacker) tarEntry(h *tar.Header, in io.Reader) error {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return fault.New(fault.Invalid, "bundle_sparse", "The bundle holds a sparse file.").WithFix(fixPack)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.folder(h.Name)
	case tar.TypeReg:
		return u.file(h.Name, fs.FileMode(h.Mode), in) //nolint:gosec // only the executable bits are looked at
	case tar.TypeXGlobalHeader:
		return nil // what git archive writes: a comment
	case tar.TypeSymlink, tar.TypeLink:
		return fault.New(fault.Invalid, "bundle_link", "The bundle holds a link.").
			WithFix("tar -czhf bundle.tar.gz -C FOLDER .    (h stores what links point to)")
	}
	return fault.New(fault.Invalid, "bundle_special", "The bundle holds a device, a pipe or another special file.").WithFix(fixPack)
}

func (u *unpacker) zip(r io.ReaderAt, size int64) error {
	in, err := zip.NewReader(r, size)
	if err != nil {
		return damaged(err)
	}
	for _, f := range in.File {
		if err := u.zipEntry(f); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) zipEntry(f *zip.File) error {
	if f.Flags&1 != 0 {
		return fault.New(fault.Invalid, "bundle_encrypted", "The bundle holds an encrypted file.").WithFix("Pack it without a password.")
	}
	mode := f.Mode()
	switch {
	case mode&fs.ModeSymlink != 0:
		return fault.New(fault.Invalid, "bundle_link", "The bundle holds a link.").WithFix("Pack what it points to instead.")
	case mode.IsDir() || strings.HasSuffix(f.Name, "/"):
		return u.folder(f.Name)
	case !mode.IsRegular():
		return fault.New(fault.Invalid, "bundle_special", "The bundle holds a special file.").WithFix(fixPack)
	}
	in, err := f.Open()
	if err != nil {
		return damaged(err)
	}
	defer func() { _ = in.Close() }()
	return u.file(f.Name, mode, in)
}

// clean checks a name and gives the path to write to; "" is the root itself.
func (u *unpacker) clean(name string) (string, error) {
	u.entries++
	if u.entries > u.limits.Entries {
		return "", fault.New(fault.TooLarge, "bundle_too_many_entries", "The bundle holds more than %d files and folders.", u.limits.Entries).
			WithFix("Leave out caches, data sets and environments.")
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == '\\' || r == utf8.RuneError }) {
		return "", fault.New(fault.Invalid, "bundle_name", "The bundle holds a name with characters that are not allowed.").
			WithFix("Use printable UTF-8 names without backslash.")
	}
	if strings.HasPrefix(name, "/") || len(name) > 1 && name[1] == ':' {
		return "", climbs()
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", climbs()
		}
		if len(part) > 255 {
			return "", fault.New(fault.Invalid, "bundle_name", "The bundle holds a name longer than 255 bytes.")
		}
	}
	p := path.Clean(name)
	if p == "." {
		return "", nil
	}
	if strings.Count(p, "/") >= u.limits.Depth {
		return "", fault.New(fault.Invalid, "bundle_too_deep", "The bundle holds folders nested more than %d deep.", u.limits.Depth)
	}
	return p, nil
}

func climbs() error {
	return fault.New(fault.Invalid, "bundle_traversal", "The bundle holds a name that leads out of it.").WithFix(fixPack)
}

// claim notes a path; the same path twice, or two that differ in case only,
// would mean different things on different machines.
func (u *unpacker) claim(p string, folder bool) (fresh bool, err error) {
	key := strings.ToLower(p)
	was, taken := u.seen[key]
	if taken && (!folder || was != p+"/") {
		return false, fault.New(fault.Invalid, "bundle_duplicate", "The bundle holds the same name twice, or two that differ in case only.").WithFix(fixPack)
	}
	if folder {
		u.seen[key] = p + "/"
	} else {
		u.seen[key] = p
	}
	if !strings.Contains(p, "/") && !taken {
		u.tops = append(u.tops, p)
	}
	return !taken, nil
}

func (u *unpacker) folder(name string) error {
	p, err := u.clean(strings.TrimSuffix(name, "/"))
	if err != nil || p == "" {
		return err
	}
	return u.makeFolders(p)
}

// makeFolders makes p and what is above it.
func (u *unpacker) makeFolders(p string) error {
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		fresh, err := u.claim(p[:i], true)
		if err != nil {
			return err
		}
		if !fresh {
			continue
		}
		if err := u.root.Mkdir(p[:i], 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return storage(err)
		}
	}
	return nil
}

func (u *unpacker) file(name string, mode fs.FileMode, r io.Reader) error {
	p, err := u.clean(name)
	if err != nil {
		return err
	}
	if p == "" || strings.HasSuffix(name, "/") {
		return damaged(errors.New("a file without a name"))
	}
	if dir := path.Dir(p); dir != "." {
		if err := u.makeFolders(dir); err != nil {
			return err
		}
	}
	if _, err := u.claim(p, false); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	f, err := u.root.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return storage(err)
	}
	n, err := u.copy(f, r)
	if closing := f.Close(); err == nil && closing != nil {
		err = storage(closing)
	}
	u.files = append(u.files, File{Path: p, Size: n, Executable: perm == 0o755})
	return err
}

// copy writes at most what the budget still allows.
func (u *unpacker) copy(w io.Writer, r io.Reader) (int64, error) {
	src := &reader{r: io.LimitReader(r, u.budget-u.written+1)}
	n, err := io.Copy(w, src)
	u.written += n
	switch {
	case u.written > u.budget && u.ratio:
		return n, fault.New(fault.Invalid, "bundle_ratio", "The bundle grows more than %d-fold when unpacked.", u.limits.Ratio).
			WithFix("Leave out what is almost empty, or send it as it is.")
	case u.written > u.budget:
		return n, fault.New(fault.TooLarge, "bundle_too_large", "The bundle unpacks to more than %d MiB.", u.limits.Bytes>>20).
			WithFix("Leave out data sets and caches.")
	case src.err != nil:
		return n, damaged(src.err)
	case err != nil:
		return n, storage(err)
	}
	return n, nil
}

// reader remembers an error of the source, to tell it from one of the disk.
type reader struct {
	r   io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (u *unpacker) undo() {
	for _, p := range u.tops {
		_ = u.root.RemoveAll(p)
	}
}

func damaged(err error) error {
	return fault.Wrap(fault.Invalid, "bundle_not_readable", "The bundle is damaged or no archive that we read.", err).WithFix(fixPack)
}

func storage(err error) error {
	return fault.Wrap(fault.Unavailable, "storage_unavailable", "The bundle could not be stored.", err).
		WithFix("Try again later; if it lasts, tell the operator.")
}
