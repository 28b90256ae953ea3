package bundle

import (
	"archive/zip"
	"errors"
	"io"
	"io/fs"
	"strings"

	"gradegate/internal/fault"
)

// Zip bookkeeping: what a directory may be long for each entry (46 bytes, a
// name and extra fields), and what is read to find its end.
const (
	zipPerEntry = 512
	zipTail     = 256 << 10
	zipEnd      = 22 // the record that ends the directory, without its comment
)

func (u *unpacker) zip(r io.ReaderAt, size int64) error {
	// archive/zip reads the whole directory before it says how long it is: of
	// 256 MiB it would make gigabytes. So its reading is bounded.
	bounded := &directory{r: r, left: zipTail + int64(u.limits.Entries)*zipPerEntry}
	in, err := zip.NewReader(bounded, size)
	bounded.read = true
	switch {
	case errors.Is(err, errOverlong), err == nil && len(in.File) > u.limits.Entries:
		return u.names.tooMany()
	case errors.Is(err, zip.ErrInsecurePath):
		return climbs() // only if GODEBUG asks for it; names are checked anyway
	case err != nil:
		return u.damaged(err)
	}
	if err := u.zipWhole(r, in, size); err != nil {
		return err
	}
	for _, f := range in.File {
		if err := u.zipEntry(f); err != nil {
			return err
		}
	}
	return nil
}

// directory bounds what is read until the directory was read.
type directory struct {
	r    io.ReaderAt
	left int64
	read bool
}

func (d *directory) ReadAt(p []byte, off int64) (int, error) {
	if !d.read {
		if d.left -= int64(len(p)); d.left < 0 {
			return 0, errOverlong
		}
	}
	return d.r.ReadAt(p, off)
}

// zipWhole checks the file as a whole: that it ends where the zip ends, and
// that its entries do not share their bytes, which would let a small upload
// cost work without bounds (D. Fifield, "A better zip bomb", WOOT 2019).
func (u *unpacker) zipWhole(r io.ReaderAt, in *zip.Reader, size int64) error {
	mark := make([]byte, 4)
	if _, err := r.ReadAt(mark, size-zipEnd-int64(len(in.Comment))); err != nil || string(mark) != "PK\x05\x06" {
		return trailing()
	}
	rest := uint64(size)
	for _, f := range in.File {
		if f.CompressedSize64 > rest {
			return fault.New(fault.Invalid, "bundle_overlap", "The bundle's entries are together longer than the bundle.").WithFix(fixPack)
		}
		rest -= f.CompressedSize64
	}
	return nil
}

// encrypted are the flags of an entry that needs a password: traditional,
// strong, and with a hidden directory (APPNOTE.TXT 4.4.4).
const encrypted = 1<<0 | 1<<6 | 1<<13

func (u *unpacker) zipEntry(f *zip.File) error {
	if f.Flags&encrypted != 0 {
		return fault.New(fault.Invalid, "bundle_encrypted", "The bundle holds an encrypted file.").WithFix("Pack it without a password.")
	}
	mode := f.Mode()
	switch {
	case mode&fs.ModeSymlink != 0:
		return fault.New(fault.Invalid, "bundle_link", "The bundle holds a link.").
			WithFix("Store what links point to: zip -r bundle.zip FOLDER    (without -y)")
	case mode.IsDir() || strings.HasSuffix(f.Name, "/"):
		if f.UncompressedSize64 != 0 {
			return u.damaged(errors.New("a folder with content"))
		}
		return u.folder(f.Name)
	case !mode.IsRegular():
		return fault.New(fault.Invalid, "bundle_special", "The bundle holds a device, a pipe or another special file.").
			WithFix("Leave it out, and pack a fresh archive: " + fixPack)
	}
	in, err := f.Open()
	if err != nil {
		return u.damaged(err)
	}
	defer func() { _ = in.Close() }() // read only
	return u.file(f.Name, mode&0o111 != 0, in)
}
