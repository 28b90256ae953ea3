package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gradegate/api"
	"gradegate/internal/bundle"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
)

// checked is what a check found.
type checked struct {
	Kind   string `json:"kind"`
	Entry  string `json:"entry"`
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
	Upload int64  `json:"upload_bytes"`
	Run    *tried `json:"run,omitempty"`
}

// checkSubmission does here what the server will do first: unpack it under the
// same limits, find what it is, and whether it can be started or read.
func (a *app) checkSubmission(ctx context.Context, competition, path string, s submission) error {
	open, name, size, err := opener(path)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gradegate-check-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	work := filepath.Join(dir, "work")
	m, err := unpackInto(work, name, open)
	if err != nil {
		return err
	}
	found := checked{Kind: grading.Program, Files: len(m.Files), Bytes: m.Bytes, Upload: size}
	if len(m.Files) == 1 && strings.HasSuffix(strings.ToLower(m.Files[0].Path), ".csv") {
		found.Kind = grading.Predictions
		err = checkForm(filepath.Join(work, m.Files[0].Path))
	} else if found.Entry, err = bundle.EntryPoint(m, s.entry); err == nil {
		err = startable(work, path, m, found.Entry)
	}
	if err != nil {
		return err
	}
	if size > grading.UploadLimit {
		return fault.New(fault.TooLarge, "bundle_too_large", "A submission is at most %s, and this is %d bytes.", config.FormatBytes(grading.UploadLimit), size).
			WithFix("Leave out data and caches; the competition's own files are there already.")
	}
	if s.run {
		if found.Run, err = a.tryOut(ctx, competition, dir, m, found, s.args); err != nil {
			return err
		}
	}
	if found.Kind == grading.Predictions && !s.run {
		a.hint("Only its form was checked. With --run its ids are compared with those of the competition's test file.")
	}
	a.hint("Nothing was handed in.")
	return a.print(result{json: found, name: found.Kind, table: func(w io.Writer) {
		facts(w, "kind", found.Kind, "entry point", found.Entry, "files", fmt.Sprint(found.Files),
			"unpacked", config.FormatBytes(found.Bytes), "to send", config.FormatBytes(size))
		if r := found.Run; r != nil {
			facts(w, "ran", r.Isolation, "predictions", fmt.Sprintf("%s, well formed; %s", count(r.Rows, "row"), r.Compared), "not checked", strings.Join(r.NotChecked, "; "))
		}
	}})
}

func unpackInto(dir, name string, open func() (io.ReadCloser, error)) (bundle.Manifest, error) {
	src, err := open()
	if err != nil {
		return bundle.Manifest{}, err
	}
	data, err := io.ReadAll(src)
	if err = errors.Join(err, src.Close(), os.Mkdir(dir, 0o755)); err != nil {
		return bundle.Manifest{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return bundle.Manifest{}, err
	}
	defer func() { _ = root.Close() }()
	return bundle.Unpack(root, name, bytes.NewReader(data), int64(len(data)), bundle.DefaultLimits)
}

// startable tells what could not be started, and names the file as it lies here.
func startable(work, path string, m bundle.Manifest, entry string) error {
	root, err := os.OpenRoot(work)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	err = bundle.Startable(root, m, entry)
	if fault.CodeOf(err) != "entry_point_crlf" {
		return err
	}
	file, then := quoted(entry), ", in the folder that you packed; then pack it again"
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		file, then = quoted(filepath.Join(path, entry)), ""
	} else if filepath.Base(path) == entry {
		file, then = quoted(path), ""
	}
	return fault.Of(err).WithFix(`sed -i 's/\r$//' %s%s`, file, then)
}

// competitionFiles fetches what a program may read.
func competitionFiles(ctx context.Context, client *api.Client, c api.Competition, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, name := range c.Files {
		if err := fetch(ctx, client, c.Name, name, root); err != nil {
			return fmt.Errorf("fetching %s of the competition: %w", name, err)
		}
	}
	return nil
}

// mostFile bounds a file of a competition, whatever the server says.
const mostFile = 2 << 30

func fetch(ctx context.Context, client *api.Client, competition, name string, root *os.Root) error {
	body, err := client.CompetitionFile(ctx, competition, name)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(body, mostFile+1))
	if err == nil && n > mostFile {
		err = fault.New(fault.TooLarge, "file_too_large", "It is larger than %s.", config.FormatBytes(mostFile)).WithFix("Fetch it by hand, and try without --run.")
	}
	return errors.Join(err, f.Close())
}
