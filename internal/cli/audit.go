package cli

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) auditCmd() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "The audit trail: read it, and prove it"}
	c.AddCommand(a.auditSearch(), a.auditTail(), a.auditVerify(), a.auditCheckpoint(), a.auditTrim(), a.auditKey())
	return c
}

func (a *app) auditSearch() *cobra.Command {
	q := map[string]*string{}
	var limit int
	var dir string
	c := &cobra.Command{
		Use: "search", Short: "The newest lines that match", Args: cobra.NoArgs,
		Long: `The newest lines that match, as a table of 120 columns. What is cut short there
(…) is whole with -o json, which also has what the table leaves out. Of refusals that
were counted (×), a number behind the network says from how many addresses they came.`,
		Example: "  gradegate audit search --user ann --since 7d\n  gradegate audit search --action token. --limit 20\n  gradegate audit search --outcome deny -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			values := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, v := range q {
				if *v != "" {
					values.Set(name, *v)
				}
			}
			if err := checkFilters(cmd, values); err != nil {
				return err
			}
			dir = a.trailSource(cmd.Context(), dir)
			names, err := a.namesOfPeople(cmd.Context(), dir)
			if err != nil {
				return err
			}
			found, err := a.searchTrail(cmd, dir, values, limit)
			if err != nil {
				return err
			}
			return a.print(auditTable(found, names))
		},
	}
	for name, what := range map[string]string{
		"stream": "use or act", "user": "a user by name or id: what they did, what is theirs, what was done to them", "actor": "who did it", "token": "with which token, or to which", "target": "to what", "owner": "whose it is",
		"action": "which action; token. is all that begin so", "outcome": "allow, deny or done", "ip": "from which address", "request": "of which request",
		"reason": "for which reason", "since": "not before: 24h for a day ago, or 2026-11-24T00:00:00Z", "until": "before",
	} {
		q[name] = c.Flags().String(name, "", what)
	}
	c.Flags().IntVar(&limit, "limit", 100, "at most so many")
	c.Flags().StringVar(&dir, "dir", "", "read the files of a trail folder instead of asking the server; so it is with --data where the server does not answer; people are named by id")
	return c
}

func (a *app) auditTail() *cobra.Command {
	var lines int
	var follow bool
	var dir, stream string
	c := &cobra.Command{
		Use: "tail", Short: "The newest lines, as they are stored", Args: cobra.NoArgs,
		Example: "  gradegate audit tail --lines 20\n  gradegate audit tail --dir gradegate-data/audit --stream act",
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"limit": {strconv.Itoa(lines)}}
			if stream != "" {
				q.Set("stream", stream)
			}
			if err := checkFilters(cmd, q); err != nil {
				return err
			}
			if dir = a.trailSource(cmd.Context(), dir); dir != "" {
				return a.tailFiles(cmd, dir, stream, lines, follow)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			seen := map[string]bool{}
			for {
				page, err := client.AuditEvents(cmd.Context(), q)
				if err != nil {
					return err
				}
				for _, e := range page.Items {
					if key := e.Stream + e.ID + e.Outcome; !seen[key] {
						seen[key] = true
						if err := a.line(e); err != nil {
							return err
						}
					}
				}
				if !follow {
					return nil
				}
				q.Set("limit", "1000")
				if n := len(page.Items); n > 0 {
					q.Set("since", page.Items[n-1].At.Format(time.RFC3339Nano))
				}
				if err := client.Wait(cmd.Context(), time.Second); err != nil {
					return nil //nolint:nilerr // interrupted: that is how following ends
				}
			}
		},
	}
	c.Flags().IntVarP(&lines, "lines", "n", 20, "at most so many")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	c.Flags().StringVar(&stream, "stream", "", "only one stream: use or act; default: both, by time")
	c.Flags().StringVar(&dir, "dir", "", "read the files of a trail folder instead of asking the server; so it is with --data where the server does not answer")
	return c
}

// line prints one event: with -o json an object on a line of its own.
func (a *app) line(e api.AuditEvent) error {
	if a.output == "json" {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		return enc.Encode(e)
	}
	if a.output == "name" {
		_, err := fmt.Fprintln(a.stdout, e.ID)
		return err
	}
	_, err := fmt.Fprintln(a.stdout, clean(strings.Join([]string{
		e.At.UTC().Format("2006-01-02T15:04:05.000Z"), e.Stream, e.Action, e.Outcome, orDash(e.Actor), orDash(e.Target), orDash(e.Route), orDash(e.Addr), orDash(e.Reason),
	}, "  ")))
	return err
}
