package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"

	"gradegate/internal/fault"
)

// Tar bookkeeping: a header and its padding, perhaps with the records of a long
// name, for each entry; and the zeros of a tape block at the end, of which two
// records of 512 bytes are the mark of the end (POSIX.1-2001, pax).
const (
	tarPerEntry = 4 << 10
	tarTail     = 1 << 20
	tarMark     = 2 * 512
)

func (u *unpacker) tarGz(r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return u.damaged(err)
	}
	return u.tar(z) // which reads to the end, so that the checksum is checked
}

func (u *unpacker) tar(r io.Reader) error {
	m := &meter{r: r, left: u.budget + int64(u.limits.Entries)*tarPerEntry + tarTail}
	in := tar.NewReader(m)
	for {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			return u.tarEnd(m)
		case errors.Is(err, tar.ErrInsecurePath):
			return climbs() // only if GODEBUG asks for it; names are checked anyway
		case err != nil:
			return u.damaged(err)
		}
		if err := u.tarEntry(h, in); err != nil {
			return err
		}
	}
}

// tarEnd insists on the mark of the end, and on zeros after it: what follows
// would be seen by some readers and not by others.
func (u *unpacker) tarEnd(m *meter) error {
	if m.zeros < tarMark {
		return u.damaged(errors.New("no mark at the end of the tar"))
	}
	before := m.zeros
	n, err := io.Copy(io.Discard, m)
	switch {
	case err != nil:
		return u.damaged(err)
	case m.zeros != before+n:
		return trailing()
	}
	return nil
}

// meter lets a number of bytes through, and counts the zeros that it ended with.
type meter struct {
	r     io.Reader
	left  int64
	zeros int64
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errOverlong
	}
	n, err := m.r.Read(p[:min(int64(len(p)), m.left)])
	m.left -= int64(n)
	if kept := len(bytes.TrimRight(p[:n], "\x00")); kept > 0 {
		m.zeros = int64(n - kept)
	} else {
		m.zeros += int64(n)
	}
	return n, err
}

func (u *unpacker) tarEntry(h *tar.Header, in io.Reader) error {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return sparse()
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.folder(h.Name)
	case tar.TypeReg:
		return u.file(h.Name, h.Mode&0o111 != 0, in)
	case tar.TypeXGlobalHeader:
		return globalHeader(h)
	case tar.TypeSymlink, tar.TypeLink:
		return fault.New(fault.Invalid, "bundle_link", "The bundle holds a link.").
			WithFix("Store what links point to: cp -RL FOLDER COPY && tar -czf bundle.tar.gz -C COPY .")
	case tar.TypeGNUSparse:
		return sparse()
	}
	return fault.New(fault.Invalid, "bundle_special", "The bundle holds a device, a pipe or another special file.").
		WithFix("Leave it out, and pack a fresh archive: " + fixPack)
}

// globalHeader takes the comment that git archive writes. Any other record
// would rename or resize later entries for some readers and not for us.
func globalHeader(h *tar.Header) error {
	for key := range h.PAXRecords {
		if key != "comment" {
			return fault.New(fault.Invalid, "bundle_special", "The bundle holds a global header that changes its entries.").WithFix(fixPack)
		}
	}
	return nil
}

func sparse() error {
	return fault.New(fault.Invalid, "bundle_sparse", "The bundle holds a sparse file.").
		WithFix("Pack it without --sparse: " + fixPack)
}
