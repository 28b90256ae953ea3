package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	entry, by, forWhom, handleFile string
	labels, args                   []string
	wait, check, run               bool
	timeout                        time.Duration
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
follows -- is given to the program.

--check looks it over on this machine and sends nothing. --check --run also runs it
here, in isolation and under the competition's limits, on its public files, and
checks the form of the predictions; it cannot tell the grade.

With --on-behalf-of the job is somebody else's, who has to consent to it first (gradegate
consent give): that is verified and on record. --submitted-by is free text, which nobody checks.`,
		Example: `  gradegate submit iris examples/iris/program --wait
  gradegate submit iris examples/iris/predictions.csv --label run=baseline
  gradegate submit iris examples/iris/program --check
  gradegate submit iris examples/iris/program --check --run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.args = args[2:]
			switch {
			case s.run && !s.check:
				return misuse(cmd, "--run belongs to --check: the server runs everything that is handed in.")
			case cmd.Flags().Changed("timeout") && !s.wait:
				return misuse(cmd, "--timeout belongs to --wait: without it nothing is waited for.")
			case s.check:
				return a.checkSubmission(cmd.Context(), args[0], args[1], s)
			}
			return a.handIn(cmd, args[0], args[1], s)
		},
	}
	f := c.Flags()
	f.StringVar(&s.entry, "entry", "", "the file to start, if it is not found by its name")
	f.StringArrayVar(&s.labels, "label", nil, "a label for the job, such as run=baseline (again for more)")
	f.StringVar(&s.forWhom, "on-behalf-of", "", "whose job it is to be, by their consent")
	f.StringVar(&s.by, "submitted-by", "", "who made it, as free text that is not verified")
	f.BoolVar(&s.wait, "wait", false, "wait for the grade; exit code 9 if there is none")
	f.DurationVar(&s.timeout, "timeout", 0, "with --wait: give up after this long")
	f.BoolVar(&s.check, "check", false, "check it here and send nothing")
	f.BoolVar(&s.run, "run", false, "with --check: run it here on the competition's public files")
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
			return misuse(cmd, fmt.Sprintf("--label %s: a label is a name and a value, and each name comes once, as in --label run=baseline.", l))
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
			return fault.Wrap(fault.Invalid, "handle_file", fmt.Sprintf("The handle cannot be stored in %s: %v. Nothing was sent.", s.handleFile, plainly(err)), err).
				WithFix("Name a file in a folder of yours with --handle-file, or leave it out.")
		}
	}
	line := a.progress()
	made, err := client.Submit(cmd.Context(), competition, api.Upload{
		Open: open, Name: name, OnBehalfOf: s.forWhom, SubmittedBy: s.by, Labels: labels, Entry: s.entry, Args: s.args,
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
		a.warn("%s", clean(w.Detail))
	}
	if made.Replayed {
		a.hint("An earlier try of this command had arrived: this is its job, and nothing was handed in twice.")
	}
	if s.handleFile != "" {
		if err := replaceFile(s.handleFile, []byte(made.Handle+"\n")); err != nil {
			return fault.Wrap(fault.Internal, "handle_file", fmt.Sprintf("The job %s was handed in, but its handle could not be stored: %v.", made.Job.ID, plainly(err)), err).
				WithFix("Your token does for it what the handle would: gradegate job wait %s", made.Job.ID)
		}
		a.hint("Its handle is in %s. It shows, follows and cancels this one job, whatever happens to your token: gradegate job show %s --token-file %s",
			s.handleFile, made.Job.ID, quoted(s.handleFile))
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
	a.hint("Follow it: gradegate job logs -f %s\nWait for its grade: gradegate job wait %s", made.Job.ID, made.Job.ID)
	return a.print(result{json: made, name: made.Job.ID, secret: made.Handle, table: func(w io.Writer) {
		facts(w, "job", made.Job.ID, "owner", made.Job.OnBehalfOf, "competition", made.Job.Competition, "state", made.Job.State)
	}})
}

// opener gives the content of what is handed in, from its beginning each time.
func opener(path string) (open func() (io.ReadCloser, error), name string, size int64, err error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		if !info.Mode().IsRegular() {
			return nil, "", 0, fault.New(fault.Invalid, "path_unreadable", "%s is neither a folder nor a regular file.", path).
				WithFix("Write it into a file first, and name that.")
		}
		var f *os.File
		if f, err = os.Open(path); err == nil { // now, and not in the middle of the upload
			err = f.Close()
		}
	}
	if err != nil {
		return nil, "", 0, fault.Wrap(fault.Invalid, "path_unreadable", fmt.Sprintf("%s cannot be read: %v.", path, plainly(err)), err).
			WithFix("Name a folder, an archive or a file that is there; a relative path begins in the folder you are in.")
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
