package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/trail"
)

// betweenNotes parts several notes in one file.
const betweenNotes = "--\n"

// checkpointObject is a checkpoint as -o json has it. The note is what is signed
// and what verification takes; the rest is read from it.
type checkpointObject struct {
	Stream string    `json:"stream"`
	Size   uint64    `json:"size"`
	Root   string    `json:"root"`
	At     time.Time `json:"at"`
	Note   string    `json:"note"`
}

func (a *app) auditCheckpoint() *cobra.Command {
	var dir, stream string
	c := &cobra.Command{
		Use: "checkpoint", Short: "The newest signed checkpoint of each stream, to keep elsewhere", Args: cobra.NoArgs,
		Long: `Prints the newest signed checkpoint of both streams. Keep it where whoever can
write the trail's files cannot write: what was there then cannot be changed, cut
or put back later without gradegate audit verify --checkpoint FILE saying so.`,
		Example: `  gradegate audit checkpoint
  gradegate audit checkpoint --dir gradegate-data/audit --stream act -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFilters(cmd, url.Values{"stream": {stream}}); err != nil {
				return err
			}
			streams := []string{trail.Use, trail.Act}
			if stream != "" {
				streams = []string{stream}
			}
			all, err := a.firstCheckpoints(cmd, a.trailSource(cmd.Context(), dir), streams)
			if err != nil {
				return err
			}
			return a.print(checkpoints(all))
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "read the files of a trail folder instead of asking the server; so it is with --data where the server does not answer")
	c.Flags().StringVar(&stream, "stream", "", "only one stream: use or act")
	return c
}

// firstCheckpoints are the newest ones. A server that has just begun has none
// for a second, so that it is asked again.
func (a *app) firstCheckpoints(cmd *cobra.Command, dir string, streams []string) ([]checkpointObject, error) {
	for range 3 {
		all, err := a.newestCheckpoints(cmd, dir, streams)
		if err != nil || len(all) > 0 {
			return all, err
		}
		select {
		case <-cmd.Context().Done():
			return nil, cmd.Context().Err()
		case <-time.After(time.Second):
		}
	}
	return nil, fault.New(fault.NotFound, "checkpoint_missing", "There is no checkpoint yet: nothing has happened.").
		WithFix("gradegate audit tail")
}

func (a *app) newestCheckpoints(cmd *cobra.Command, dir string, streams []string) (all []checkpointObject, err error) {
	var none []string
	for _, name := range streams {
		msg, err := a.newestCheckpoint(cmd, dir, name)
		if err != nil {
			return nil, err
		}
		if len(msg) == 0 {
			none = append(none, name)
			continue
		}
		n, err := trail.ReadNote(msg)
		if err != nil {
			return nil, err
		}
		all = append(all, checkpointObject{n.Stream, n.Size, n.Root, n.At, string(msg)})
	}
	if len(all) > 0 && len(none) > 0 {
		a.hint("The stream %s has no checkpoint yet.", none[0])
	}
	return all, nil
}

// newestCheckpoint is a signed note; empty if there is none yet.
func (a *app) newestCheckpoint(cmd *cobra.Command, dir, stream string) ([]byte, error) {
	if dir != "" {
		if err := trail.IsTrail(dir); err != nil {
			return nil, err
		}
		return trail.Latest(dir, stream)
	}
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	msg, err := client.AuditCheckpoint(cmd.Context(), stream)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Status == http.StatusNotFound && e.Code == "checkpoint_missing" {
		return nil, nil
	}
	return []byte(msg), err
}

// checkpoints prints notes so that the output is a file for verification.
func checkpoints(all []checkpointObject) result {
	r := list(all, func(c checkpointObject) string { return c.Stream }, "", nil)
	r.table = func(w io.Writer) {
		for i, c := range all {
			if i > 0 {
				fmt.Fprint(w, betweenNotes)
			}
			for line := range strings.Lines(c.Note) {
				fmt.Fprintln(w, clean(strings.TrimSuffix(line, "\n")))
			}
		}
	}
	return r
}
