package grading

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"gradegate/internal/fault"
)

// bundles is the folder of uploads, each named by the SHA-256 of its content.
// The same bytes may arrive several times at once, some to be taken and some
// to be refused, so that a file is removed only by the last one that uses it,
// and only if none of them took it. A file that was there before is never
// removed: a submission may refer to it. A crash can leave one too many, never
// one too few.
type bundles struct {
	dir string

	mu    sync.Mutex
	inUse map[string]*use // by digest
}

// use is what uploads of the same content have in common.
type use struct {
	n     int  // uploads that are not decided
	stays bool // it was there before, or one of them was taken
}

// upload is an upload that is stored and not decided.
type upload struct {
	*os.File
	digest string
	size   int64
	in     *bundles
}

func openBundles(dir string) (*bundles, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("grading folders: %w", err)
	}
	// What a crash cut off. Nobody else uploads: the data folder is locked.
	cut, err := filepath.Glob(filepath.Join(dir, ".upload-*"))
	if err != nil {
		return nil, fmt.Errorf("grading folders: %w", err)
	}
	for _, path := range cut {
		_ = os.Remove(path) // it takes up room, no more
	}
	return &bundles{dir: dir, inUse: map[string]*use{}}, nil
}

func (b *bundles) path(digest string) string { return filepath.Join(b.dir, digest) }

// receive stores an upload durably under the digest of its content. More than
// limit bytes are refused. Whoever gets the upload has to close it, and to call
// decided.
func (b *bundles) receive(body io.Reader, limit int64) (u *upload, err error) {
	tmp, err := os.CreateTemp(b.dir, ".upload-*")
	if err != nil {
		return nil, noSpace(err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(tmp, sum), io.LimitReader(body, limit+1))
	if err != nil {
		if f := new(fault.Error); errors.As(err, &f) {
			return nil, f
		}
		return nil, noSpace(err)
	}
	if size > limit {
		return nil, fault.New(fault.TooLarge, "bundle_too_large", "The upload is larger than %d MiB.", limit>>20).
			WithFix("Leave out data and caches; the competition's own files are there already.")
	}
	if err = tmp.Sync(); err != nil {
		return nil, noSpace(err)
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if err = b.name(tmp.Name(), digest); err != nil {
		return nil, noSpace(err)
	}
	u = &upload{File: tmp, digest: digest, size: size, in: b}
	if err = syncFolder(b.dir); err != nil { // its row must not outlive it
		u.decided(true)
		return nil, noSpace(err)
	}
	return u, nil
}

// name gives a file its lasting name and counts its user.
func (b *bundles) name(tmp, digest string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, missing := os.Lstat(b.path(digest))
	if err := os.Rename(tmp, b.path(digest)); err != nil {
		return err
	}
	if b.inUse[digest] == nil {
		b.inUse[digest] = &use{stays: missing == nil}
	}
	b.inUse[digest].n++
	return nil
}

// decided ends the use of an upload. stays says that something refers to it
// from now on, or that nobody knows.
func (u *upload) decided(stays bool) {
	b := u.in
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.inUse[u.digest]
	all.stays = all.stays || stays
	if all.n--; all.n > 0 {
		return
	}
	delete(b.inUse, u.digest)
	if !all.stays {
		_ = os.Remove(b.path(u.digest)) // it takes up room, no more
	}
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
