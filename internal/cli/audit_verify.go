package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/trail"
)

func (a *app) auditVerify() *cobra.Command {
	var dir, key string
	var known []string
	c := &cobra.Command{
		Use: "verify", Short: "Prove the trail with its files and the public key alone", Args: cobra.NoArgs,
		Long: `Reads every line of a trail folder and checks it against the signed checkpoints:
edits, removed lines and a cut end show. It needs no server and no secret. Without
--dir it is the trail of the data folder (--data), where the configuration puts it.
Keep checkpoints elsewhere (gradegate audit checkpoint) and give them with
--checkpoint, and even a cut of files and checkpoints shows.`,
		Example: "  gradegate audit verify --data gradegate-data\n  gradegate audit verify --dir gradegate-data/audit",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				dir = a.trailFolder()
			}
			key, err := a.verifyingKey(cmd, key)
			if err != nil {
				return err
			}
			o := trail.Options{}
			for _, k := range known {
				notes, err := keptCheckpoint(k)
				if err != nil {
					return err
				}
				o.Known = append(o.Known, notes)
			}
			line := a.progress()
			o.Progress = func(stream string, n, of uint64) { line.show("%s: %d of %d lines", stream, n, max(n, of)) }
			r, err := trail.Verify(cmd.Context(), dir, key, o)
			line.done()
			if err != nil {
				return err
			}
			return a.verdict(r)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "folder of the trail (default: that of --data, or of ./gradegate-data)")
	c.Flags().StringVar(&key, "key", "", "the verifying key, or a file with it; default: ask the server")
	c.Flags().StringArrayVar(&known, "checkpoint", nil, "file with checkpoints that were kept elsewhere (again for more)")
	return c
}

// verifyingKey is the key that was given, as such or in a file, or the server's.
func (a *app) verifyingKey(cmd *cobra.Command, given string) (string, error) {
	if given == "" {
		client, err := a.open()
		if err != nil {
			return "", err
		}
		key, err := client.TrailKey(cmd.Context())
		if e, ok := errors.AsType[*api.Error](err); ok && e.Code == "unreachable" {
			return "", fault.New(fault.Invalid, "key_missing", "Without --key the server is asked for the verifying key, and it does not answer.").
				WithFix("Give the key that you keep: --key FILE (gradegate audit key > FILE, while the server runs)")
		}
		return strings.TrimSpace(key), err
	}
	data, err := os.ReadFile(given)
	switch {
	case err == nil:
		return strings.TrimSpace(string(data)), nil
	case strings.Count(given, "+") >= 2: // the key itself: name+hash+base64
		return strings.TrimSpace(given), nil
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.Invalid, "key_missing", "The key %s is not one, and there is no file of that name.", given).
			WithFix("gradegate audit key > trail.key")
	}
	return "", err
}

// keptCheckpoint reads a file of checkpoints, as audit checkpoint prints them,
// with -o json or without.
func keptCheckpoint(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Invalid, "checkpoint_missing", "There is no file %s with a checkpoint.", file).
			WithFix("gradegate audit checkpoint > FILE")
	}
	var j items[checkpointObject]
	if err != nil || json.Unmarshal(data, &j) != nil {
		return data, err
	}
	var notes []byte
	for _, c := range j.Items {
		notes = append(append(notes, c.Note...), betweenNotes...)
	}
	return notes, nil
}

// verdict prints the verdict first.
func (a *app) verdict(r trail.Report) error {
	err := a.print(result{json: reportJSON(r), name: fmt.Sprint(r.OK()), table: func(w io.Writer) {
		if r.OK() {
			fmt.Fprintln(w, "The trail is whole.")
		} else {
			fmt.Fprintln(w, "The trail is NOT whole:")
		}
		for _, p := range r.Problems {
			fmt.Fprintln(w, "  "+p)
		}
		for _, s := range r.Streams {
			fmt.Fprintf(w, "%s\t%d lines\t%d checkpoints\t%d lines after the last one", s.Name, s.Lines, s.Checkpoints, s.Unsigned)
			if s.Trims > 0 {
				fmt.Fprintf(w, "\tthe %d before them are gone, by %s", s.First, count(s.Trims, "signed record"))
			}
			fmt.Fprintln(w)
		}
	}})
	if err != nil {
		return err
	}
	if !r.OK() {
		f := fault.New(fault.Invalid, "audit_not_whole", "The audit trail does not verify.").
			WithFix("Leave the files as they are, take a copy, and verify the other sink, if there is one (audit.second): gradegate audit verify --dir SECOND")
		return amiss{f, exitFailure}
	}
	return nil
}

// reportJSON is a verification's outcome in the API's way of naming things.
func reportJSON(r trail.Report) any {
	type stream struct {
		Name        string `json:"name"`
		First       uint64 `json:"first"`
		Lines       uint64 `json:"lines"`
		Trims       int    `json:"trims"`
		Checkpoints int    `json:"checkpoints"`
		Unsigned    uint64 `json:"unsigned"`
	}
	out := struct {
		OK       bool     `json:"ok"`
		Problems []string `json:"problems"`
		Streams  []stream `json:"streams"`
	}{r.OK(), append([]string{}, r.Problems...), []stream{}}
	for _, s := range r.Streams {
		out.Streams = append(out.Streams, stream{s.Name, s.First, s.Lines, s.Trims, s.Checkpoints, s.Unsigned})
	}
	return out
}

func (a *app) auditKey() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "The key that verifies the trail", Args: cobra.NoArgs, Example: "  gradegate audit key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.open()
			if err != nil {
				return err
			}
			key, err := client.TrailKey(cmd.Context())
			if err != nil {
				return err
			}
			key = strings.TrimSpace(key)
			return a.print(result{json: map[string]string{"key": key}, name: key, table: func(w io.Writer) { fmt.Fprintln(w, key) }})
		},
	}
}
