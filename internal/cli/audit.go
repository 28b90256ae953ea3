package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/trail"
)

func (a *app) auditCmd() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "The audit trail: read it, and prove it"}
	c.AddCommand(a.auditSearch(), a.auditTail(), a.auditVerify(), a.auditKey())
	return c
}

func (a *app) auditSearch() *cobra.Command {
	q := map[string]*string{}
	var limit int
	var dir string
	c := &cobra.Command{
		Use: "search", Short: "The newest lines that match", Args: cobra.NoArgs,
		Example: "  gradegate audit search --action token. --limit 20\n  gradegate audit search --outcome deny -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			values := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, v := range q {
				if *v != "" {
					values.Set(name, *v)
				}
			}
			found, err := a.searchTrail(cmd, dir, values, limit)
			if err != nil {
				return err
			}
			return a.print(list(found, func(e api.AuditEvent) string { return e.ID }, "WHEN\tACTION\tOUTCOME\tACTOR\tTARGET\tFROM\tWHY", func(e api.AuditEvent) []string {
				return []string{e.At.Local().Format("2006-01-02 15:04:05"), string(e.Action), e.Outcome, orDash(e.Actor), orDash(e.Target), orDash(e.Addr), orDash(e.Reason)}
			}))
		},
	}
	for name, what := range map[string]string{
		"stream": "use or act", "actor": "who did it", "token": "with which token, or to which", "target": "to what", "owner": "whose it is",
		"action": "which action; token. is all that begin so", "outcome": "allow, deny or done", "ip": "from which address", "request": "of which request",
		"reason": "for which reason", "since": "not before: 24h for a day ago, or 2026-11-24T00:00:00Z", "until": "before",
	} {
		q[name] = c.Flags().String(name, "", what)
	}
	c.Flags().IntVar(&limit, "limit", 100, "at most so many")
	c.Flags().StringVar(&dir, "dir", "", "read the files of a trail folder instead of asking the server; people are named by id")
	return c
}

func (a *app) auditTail() *cobra.Command {
	var lines int
	var follow bool
	var dir string
	c := &cobra.Command{
		Use: "tail", Short: "The newest lines, as they are stored", Args: cobra.NoArgs, Example: "  gradegate audit tail --lines 20",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir != "" {
				return a.tailFiles(cmd, dir, lines, follow)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{"limit": {strconv.Itoa(lines)}}
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
	c.Flags().StringVar(&dir, "dir", "", "read the files of a trail folder instead of asking the server")
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

func (a *app) auditVerify() *cobra.Command {
	var dir, key string
	var known []string
	c := &cobra.Command{
		Use: "verify", Short: "Prove the trail with its files and the public key alone", Args: cobra.NoArgs,
		Long: `Reads every line of a trail folder and checks it against the signed checkpoints:
edits, removed lines and a cut end show. It needs no server and no secret.
Keep a checkpoint elsewhere (gradegate audit key, GET /v1/audit/checkpoint) and
give it with --checkpoint, and even a cut of files and checkpoints shows.`,
		Example: "  gradegate audit verify --dir gradegate-data/audit",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if key == "" {
				client, err := a.open()
				if err != nil {
					return err
				}
				if key, err = client.TrailKey(cmd.Context()); err != nil {
					return fmt.Errorf("without --key the server is asked for it: %w", err)
				}
			} else if data, err := os.ReadFile(key); err == nil {
				key = string(data)
			}
			o := trail.Options{}
			for _, k := range known {
				data, err := os.ReadFile(k)
				if err != nil {
					return err
				}
				o.Known = append(o.Known, data)
			}
			line := a.progress()
			o.Progress = func(n uint64) { line.show("%d lines", n) }
			r, err := trail.Verify(dir, strings.TrimSpace(key), o)
			line.done()
			if err != nil {
				return err
			}
			return a.verdict(r)
		},
	}
	c.Flags().StringVar(&dir, "dir", "gradegate-data/audit", "folder of the trail")
	c.Flags().StringVar(&key, "key", "", "the verifying key, or a file with it; default: ask the server")
	c.Flags().StringArrayVar(&known, "checkpoint", nil, "file with a checkpoint that was kept elsewhere (again for more)")
	return c
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
