package keys

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gradegate/internal/fault"
)

// header makes the file recognisable, to people and to scanners.
const header = "gradegate-root-key-1 "

// Origin says where the root key was found.
type Origin string

// The origins.
const (
	FromFile Origin = "file"
	FromCopy Origin = "copy" // the file was lost, the copy beside the ledger was not
	Created  Origin = "created"
)

// Load reads the root key from path, or from the copy if path is gone, and
// makes whichever of the two is missing. If both are gone it makes a new key;
// the caller must know what that means where data exists: everything stored
// becomes unproven. A file that is there but unreadable, or that disagrees with
// its copy, is a clear refusal: guessing here would lock everybody out.
// copyPath may be empty.
func Load(path, copyPath string) (*Ring, Origin, error) {
	root, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	main := err == nil
	var spare [Size]byte
	haveSpare := false
	if copyPath != "" {
		spare, err = read(copyPath)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
		haveSpare = err == nil
	}
	origin := FromFile
	switch {
	case main && haveSpare && root != spare:
		return nil, "", fault.New(fault.Invalid, "key_disagrees",
			"The root key in %s is not the one in %s.", path, copyPath).
			WithFix("Put the right key file back. If you replaced the key on purpose, remove the old copy first.")
	case main:
	case haveSpare:
		root, origin = spare, FromCopy
	default:
		_, _ = rand.Read(root[:]) // never fails: the runtime stops the process instead
		origin = Created
	}
	if !main {
		if err := write(path, root); err != nil {
			return nil, "", err
		}
	}
	if copyPath != "" && !haveSpare {
		if err := write(copyPath, root); err != nil {
			return nil, "", err
		}
	}
	return New(root), origin, nil
}

func read(path string) (root [Size]byte, err error) {
	data, err := readAlone(path, "root key")
	if err != nil {
		return root, err
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(data), header)
	raw, err := hex.DecodeString(text)
	if !ok || err != nil || len(raw) != Size {
		return root, fault.New(fault.Invalid, "key_damaged", "%s holds no root key.", path).
			WithFix("Put the key file back from the copy beside the ledger or from a backup.")
	}
	return [Size]byte(raw), nil
}

// readAlone reads a file with key material, if nobody else can. what it is goes
// into the errors.
func readAlone(path, what string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fault.New(fault.Invalid, "key_exposed",
			"The %s %s can be read by others (mode %04o).", what, path, info.Mode().Perm()).
			WithFix("chmod 600 %s", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return string(data), nil
}

// write makes the file appear whole or not at all, readable by us alone.
func write(path string, root [Size]byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("root key: %w", err)
	}
	tmp := path + ".new"
	_ = os.Remove(tmp) // what a crash left behind
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("root key: %w", err)
	}
	_, err = f.WriteString(header + hex.EncodeToString(root[:]) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("root key: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
