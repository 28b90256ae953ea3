package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/bundle"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
)

// submission is what the flags of submit say.
type submission struct {
	entry, by, handleFile string
	labels, args          []string
	wait, check           bool
	timeout               time.Duration
}

func (a *app) submit(use string) *cobra.Command {
	var s submission
	c := &cobra.Command{
		Use: use + " [-- ARGS]", Short: "Hand in a program or a file of predictions",
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args = args[:n] // what follows -- is the program's
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		Long: `Hands in a folder, an archive or a single file. A folder is packed on the way.
A single .csv is a file of predictions; everything else is a program, which
reads $GRADEGATE_DATA and writes predictions.csv into $GRADEGATE_OUTPUT. What
follows -- is given to the program.`,
		Example: `  gradegate submit iris examples/iris/program --wait
  gradegate submit iris examples/iris/predictions.csv --label run=baseline
  gradegate submit iris examples/iris/program --check`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.args = args[2:]
			if s.check {
				return a.checkSubmission(args[1], s)
			}
			return a.handIn(cmd, args[0], args[1], s)
		},
	}
	f := c.Flags()
	f.StringVar(&s.entry, "entry", "", "the file to start, if it is not found by its name")
	f.StringArrayVar(&s.labels, "label", nil, "a label for the job, such as run=baseline (again for more)")
	f.StringVar(&s.by, "submitted-by", "", "who made it, as free text")
	f.BoolVar(&s.wait, "wait", false, "wait for the grade; exit code 9 if there is none")
	f.DurationVar(&s.timeout, "timeout", 0, "with --wait: give up after this long")
	f.BoolVar(&s.check, "check", false, "check it here and send nothing")
	f.StringVar(&s.handleFile, "handle-file", "", "store the job's handle here: it reads and cancels this one job, whatever happens to your token")
	return c
}

func (a *app) handIn(cmd *cobra.Command, competition, path string, s submission) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	labels := map[string]string{}
	for _, l := range s.labels {
		k, v, ok := strings.Cut(l, "=")
		if _, twice := labels[k]; !ok || k == "" || twice {
			return usage{errors.New("a label is a name and a value, and each name comes once: --label run=baseline"), cmd.CommandPath()}
		}
		labels[k] = v
	}
	open, name, size, err := opener(path)
	if err != nil {
		return err
	}
	if s.handleFile != "" {
		// Before the job exists: its handle is shown once and must find its place.
		if err := replaceFile(s.handleFile, nil); err != nil {
			return fmt.Errorf("the handle cannot be stored: %w", err)
		}
	}
	line := a.progress()
	made, err := client.Submit(cmd.Context(), competition, api.Upload{
		Open: open, Name: name, SubmittedBy: s.by, Labels: labels, Entry: s.entry, Args: s.args,
		Progress: func(sent int64) { line.show("sent %d of %d KiB", sent>>10, size>>10) },
	})
	line.done()
	if err != nil {
		if s.handleFile != "" {
			err = errors.Join(err, os.Remove(s.handleFile))
		}
		return err
	}
	for _, w := range made.Warnings {
		fmt.Fprintln(a.stderr, "warning: "+clean(w.Detail))
	}
	if s.handleFile != "" {
		if err := replaceFile(s.handleFile, []byte(made.Handle+"\n")); err != nil {
			return fmt.Errorf("the job %s was handed in, but its handle could not be stored: %w", made.Job.ID, err)
		}
	}
	if s.wait {
		a.hint("Handed in as %s. It goes on if you stop waiting.", made.Job.ID)
		if a.output == "secret" {
			if _, err := fmt.Fprintln(a.stdout, made.Handle); err != nil {
				return err
			}
		}
		j, err := a.wait(cmd.Context(), client, made.Job.ID, s.timeout)
		if err != nil {
			return err
		}
		return a.over(j)
	}
	a.hint("Follow it: gradegate job wait %s", made.Job.ID)
	return a.print(result{json: made, name: made.Job.ID, secret: made.Handle, table: func(w io.Writer) {
		facts(w, "job", made.Job.ID, "competition", made.Job.Competition, "state", made.Job.State)
	}})
}

// opener gives the content of what is handed in, from its beginning each time.
func opener(path string) (open func() (io.ReadCloser, error), name string, size int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", 0, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	if !info.IsDir() {
		return func() (io.ReadCloser, error) { return os.Open(path) }, filepath.Base(path), info.Size(), nil
	}
	var packed capped
	if err := bundle.Pack(path, &packed); packed.over {
		return nil, "", 0, fault.New(fault.TooLarge, "bundle_too_large", "%s is larger than %s, packed.", path, config.FormatBytes(sendMax)).
			WithFix("Leave out data and caches; the competition's own files are there already.")
	} else if err != nil {
		return nil, "", 0, err
	}
	data := packed.Bytes()
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		filepath.Base(filepath.Clean(path)) + ".tar.gz", int64(len(data)), nil
}

// sendMax is what the server takes at most; a folder with a data set in it is
// told so before it fills the memory.
const sendMax = 4 * grading.UploadLimit

// capped is a buffer that refuses to grow beyond sendMax.
type capped struct {
	bytes.Buffer
	over bool
}

func (c *capped) Write(p []byte) (int, error) {
	if int64(c.Len()+len(p)) > sendMax {
		c.over = true
		return 0, errors.New("too large")
	}
	return c.Buffer.Write(p)
}

// checkSubmission does here what the server will do first: unpack it under the
// same limits and find what it is.
func (a *app) checkSubmission(path string, s submission) error {
	open, name, size, err := opener(path)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gradegate-check-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m, err := unpackInto(dir, name, open)
	if err != nil {
		return err
	}
	kind, entry := "predictions", ""
	if len(m.Files) != 1 || !strings.HasSuffix(strings.ToLower(m.Files[0].Path), ".csv") {
		kind = "program"
		if entry, err = bundle.EntryPoint(m, s.entry); err != nil {
			return err
		}
	} else if err := checkPredictions(filepath.Join(dir, m.Files[0].Path)); err != nil {
		return err
	}
	if size > grading.UploadLimit {
		return fault.New(fault.TooLarge, "bundle_too_large", "A submission is at most %s, and this is %d bytes.", config.FormatBytes(grading.UploadLimit), size).
			WithFix("Leave out data and caches; the competition's own files are there already.")
	}
	a.hint("Nothing was sent.")
	return a.print(result{
		json: map[string]any{"kind": kind, "entry": entry, "files": len(m.Files), "bytes": m.Bytes, "upload_bytes": size}, name: kind,
		table: func(w io.Writer) {
			facts(w, "kind", kind, "entry point", entry, "files", fmt.Sprint(len(m.Files)), "unpacked", config.FormatBytes(m.Bytes), "to send", config.FormatBytes(size))
		},
	})
}

func unpackInto(dir, name string, open func() (io.ReadCloser, error)) (bundle.Manifest, error) {
	src, err := open()
	if err != nil {
		return bundle.Manifest{}, err
	}
	data, err := io.ReadAll(src)
	if err = errors.Join(err, src.Close()); err != nil {
		return bundle.Manifest{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return bundle.Manifest{}, err
	}
	defer func() { _ = root.Close() }()
	return bundle.Unpack(root, name, bytes.NewReader(data), int64(len(data)), bundle.DefaultLimits)
}

// columns are what the second column of predictions can be, by metric.
var columns = []string{"label", "value", "probability"}

// checkPredictions looks at the form of a file of predictions: which ids
// belong into it, the server alone knows.
func checkPredictions(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	bad := func(line int, what string) error {
		return fault.New(fault.Invalid, "predictions_malformed", "Line %d of the predictions %s.", line, what).
			WithFix("Write id,label (or id,value or id,probability) first, then one id and one value on each line.")
	}
	r := bufio.NewReader(f)
	if mark, _ := r.Peek(3); string(mark) == "\xef\xbb\xbf" {
		_, _ = r.Discard(3) // spreadsheets write it, and the server takes it
	}
	in := csv.NewReader(r)
	in.FieldsPerRecord, in.ReuseRecord = -1, true
	seen := map[string]bool{}
	for n := 0; ; n++ {
		row, err := in.Read()
		var malformed *csv.ParseError
		switch {
		case errors.Is(err, io.EOF) && n < 2:
			return bad(n+1, "is missing: there are no rows")
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &malformed):
			return bad(malformed.Line, "is no CSV")
		case err != nil:
			return err
		}
		line, _ := in.FieldPos(0)
		if len(row) != 2 {
			return bad(line, fmt.Sprintf("has %d fields where 2 belong", len(row)))
		}
		id, value := strings.TrimSpace(row[0]), strings.TrimSpace(row[1])
		switch {
		case n == 0 && (id != "id" || !slices.Contains(columns, value)):
			return bad(line, "is no header")
		case id == "" || value == "":
			return bad(line, "has an empty field")
		case seen[id]:
			return bad(line, "repeats an id")
		}
		seen[id] = true
	}
}
