package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/config"
	"gradegate/internal/server"
	"gradegate/internal/trail"
)

// searchTrail asks the server, or reads the files of a trail folder: those can
// be read when no server lives any more.
func (a *app) searchTrail(cmd *cobra.Command, dir string, v url.Values, limit int) ([]api.AuditEvent, error) {
	if dir == "" {
		client, err := a.client()
		if err != nil {
			return nil, err
		}
		page, err := client.AuditEvents(cmd.Context(), v)
		return page.Items, err
	}
	q := trail.Query{
		Stream: v.Get("stream"), Actor: v.Get("actor"), Token: v.Get("token"), Target: v.Get("target"), Owner: v.Get("owner"), Action: v.Get("action"),
		Outcome: v.Get("outcome"), Addr: v.Get("ip"), Request: v.Get("request"), Reason: v.Get("reason"), Limit: limit,
	}
	var errs [2]error
	q.Since, errs[0] = moment(v.Get("since"))
	q.Until, errs[1] = moment(v.Get("until"))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, usage{err, cmd.CommandPath()}
	}
	found, err := trail.Search(cmd.Context(), dir, q)
	events := make([]api.AuditEvent, len(found))
	for i, f := range found {
		events[i] = server.WireEvent(f)
	}
	return events, err
}

// moment reads an instant, or a span back from now, as the server does.
func moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	d, err := config.ParseDuration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no point in time, such as 2026-11-24T09:00:00Z, or 24h for a day ago", s)
	}
	return time.Now().Add(-d), nil
}

func (a *app) tailFiles(cmd *cobra.Command, dir string, lines int, follow bool) error {
	found, err := trail.Search(cmd.Context(), dir, trail.Query{Limit: lines})
	if err != nil {
		return err
	}
	next := map[string]uint64{}
	for _, f := range found {
		if err := a.line(server.WireEvent(f)); err != nil {
			return err
		}
		next[f.Stream] = f.Index + 1
	}
	if !follow {
		return nil
	}
	return trail.Follow(cmd.Context(), dir, trail.Act, next[trail.Act], func(f trail.Found) error {
		return a.line(server.WireEvent(f))
	})
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
			fmt.Fprintf(w, "%s\t%d lines\t%d checkpoints\t%d lines after the last one\n", s.Name, s.Lines, s.Checkpoints, s.Unsigned)
		}
	}})
	if err != nil {
		return err
	}
	if !r.OK() {
		return errors.New("the audit trail does not verify")
	}
	return nil
}

// reportJSON is a verification's outcome in the API's way of naming things.
func reportJSON(r trail.Report) any {
	type stream struct {
		Name        string `json:"name"`
		First       uint64 `json:"first"`
		Lines       uint64 `json:"lines"`
		Checkpoints int    `json:"checkpoints"`
		Unsigned    uint64 `json:"unsigned"`
	}
	out := struct {
		OK       bool     `json:"ok"`
		Problems []string `json:"problems"`
		Streams  []stream `json:"streams"`
	}{r.OK(), append([]string{}, r.Problems...), []stream{}}
	for _, s := range r.Streams {
		out.Streams = append(out.Streams, stream{s.Name, s.First, s.Lines, s.Checkpoints, s.Unsigned})
	}
	return out
}
