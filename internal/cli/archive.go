package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/maintenance"
	"gradegate/internal/trail"
)

func (a *app) archiveCmd() *cobra.Command {
	c := &cobra.Command{Use: "archive", Short: "Tokens that ended long ago (for administrators and auditors)"}
	c.AddCommand(a.archiveList(), a.archiveShow(), a.archiveSearch(), a.archiveVerify())
	return c
}

// archiveFilters are the flags that select tokens of the archive.
type archiveFilters struct {
	user, name, kind, since, until string
	limit                          int
}

func (f *archiveFilters) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.user, "user", "", "of this user")
	c.Flags().StringVar(&f.name, "name", "", "of this name")
	c.Flags().StringVar(&f.kind, "kind", "", "of this kind: pat, ses, svc, ref, inv or legacy")
	c.Flags().StringVar(&f.since, "ended-since", "", "ended not before: 90d for 90 days ago, or 2026-11-24T00:00:00Z")
	c.Flags().StringVar(&f.until, "ended-until", "", "ended before")
	c.Flags().IntVar(&f.limit, "limit", 100, "at most so many")
}

func (f *archiveFilters) query() url.Values {
	v := url.Values{"limit": {strconv.Itoa(f.limit)}}
	for name, text := range map[string]string{"user": f.user, "name": f.name, "kind": f.kind, "ended_since": f.since, "ended_until": f.until} {
		if text != "" {
			v.Set(name, text)
		}
	}
	return v
}

func (a *app) archiveList() *cobra.Command {
	var f archiveFilters
	c := &cobra.Command{
		Use: "list", Short: "The tokens of the archive, the newest end first", Args: cobra.NoArgs,
		Example: "  gradegate archive list --user ann --ended-since 90d",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.listArchive(cmd, &f) },
	}
	f.flags(c)
	return c
}

func (a *app) listArchive(cmd *cobra.Command, f *archiveFilters) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	page, err := client.ArchivedTokens(cmd.Context(), f.query())
	if err != nil {
		return err
	}
	if page.NextCursor != "" {
		a.hint("There are more; --limit shows up to 1000, and the other flags select.")
	}
	return a.print(archiveTable(page.Items))
}

func archiveTable(all []api.ArchivedToken) result {
	return list(all, func(t api.ArchivedToken) string { return t.ID }, "TOKEN\tKIND\tNAME\tUSER\tENDED\tHOW\tWHERE", func(t api.ArchivedToken) []string {
		how, where := t.State, "database"
		if t.Reason != "" {
			how += " (" + t.Reason + ")"
		}
		if t.Segment != "" {
			where = t.Segment
		}
		who := t.User
		if who == "" {
			who = t.UserID
		}
		return []string{t.ID, orDash(t.Kind), orDash(t.Name), orDash(who), when(&t.EndedAt), how, where}
	})
}

func (a *app) archiveShow() *cobra.Command {
	return &cobra.Command{
		Use: "show TOKEN", Short: "What is known of a token of the archive", Args: cobra.ExactArgs(1), Example: "  gradegate archive show tok_000000000000",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.ArchivedToken(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if t.Segment != "" {
				a.hint("The rest is in a segment: gradegate archive search --segments --token %s", t.ID)
			}
			return a.print(result{json: t, name: t.ID, table: func(w io.Writer) {
				var used string
				if t.LastUsed != nil {
					used = fmt.Sprintf("%s from %s, %s", when(&t.LastUsed.At), orDash(t.LastUsed.IP), count(int(t.LastUsed.Count), "use"))
				}
				facts(w, "token", t.ID, "kind", t.Kind, "name", t.Name, "user", strings.TrimSpace(t.User+" "+t.UserID), "scopes", strings.Join(t.Scopes, " "),
					"created", when(t.CreatedAt), "ended", when(&t.EndedAt), "how", strings.TrimSpace(t.State+" "+t.Reason), "archived", when(&t.ArchivedAt),
					"last used", used, "family", t.Family, "digest", t.Digest, "segment", t.Segment)
			}})
		},
	}
}

func (a *app) archiveSearch() *cobra.Command {
	var f archiveFilters
	var segments bool
	var dir, key, id string
	c := &cobra.Command{
		Use: "search", Short: "The same from the server, or from the segments on disk", Args: cobra.NoArgs,
		Long: `Searches the archive. With --segments it reads the signed files of a folder (archive.dir),
which needs no server if --key is given; users are named by their ids there.`,
		Example: "  gradegate archive search --name laptop\n  gradegate archive search --segments --data gradegate-data --ended-since 900d",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !segments {
				if id != "" || dir != "" {
					return usage{fault.New(fault.Invalid, "usage", "--token and --dir go with --segments.").WithFix("gradegate archive show TOKEN"), cmd.CommandPath()}
				}
				return a.listArchive(cmd, &f)
			}
			found, err := a.searchSegments(cmd, &f, dir, key, id)
			if err != nil {
				return err
			}
			return a.print(archiveTable(found))
		},
	}
	f.flags(c)
	c.Flags().BoolVar(&segments, "segments", false, "read the segments on disk")
	c.Flags().StringVar(&id, "token", "", "only this token (with --segments)")
	a.segmentFlags(c, &dir, &key)
	return c
}

func (a *app) segmentFlags(c *cobra.Command, dir, key *string) {
	c.Flags().StringVar(dir, "dir", "", "folder of the segments (default: that of --data, or of ./gradegate-data)")
	c.Flags().StringVar(key, "key", "", "the verifying key, or a file with it; default: ask the server")
}

// segmentFolder is where the server of the data folder keeps its segments.
func (a *app) segmentFolder(dir string) string {
	if dir != "" {
		return dir
	}
	c, _, err := a.load(&serverFlags{})
	if err != nil { // told to whoever starts a server
		c = config.Default()
		if a.data != "" {
			c.Data = a.data
		}
	}
	return c.Path(c.Archive.Dir, "archive")
}

func (a *app) searchSegments(cmd *cobra.Command, f *archiveFilters, dir, key, id string) ([]api.ArchivedToken, error) {
	key, err := a.verifyingKey(cmd, key)
	if err != nil {
		return nil, err
	}
	since, errSince := moment(f.since)
	until, errUntil := moment(f.until)
	if err := errors.Join(errSince, errUntil); err != nil {
		return nil, usage{err, cmd.CommandPath()}
	}
	user := f.user
	if user != "" && !strings.HasPrefix(user, "usr_") {
		client, err := a.client()
		if err != nil {
			return nil, err
		}
		u, err := client.UserByID(cmd.Context(), user)
		if err != nil {
			return nil, err
		}
		user = u.ID
	}
	found := []api.ArchivedToken{}
	seen := map[string]bool{}
	checked, err := maintenance.VerifySegments(a.segmentFolder(dir), key, nil, func(l maintenance.Line) error {
		switch {
		case len(found) >= f.limit, seen[l.ID], id != "" && l.ID != id, user != "" && l.Owner != user, f.name != "" && l.Name != f.name,
			f.kind != "" && l.Kind != f.kind, !since.IsZero() && l.EndedAt.Before(since), !until.IsZero() && !l.EndedAt.Before(until):
			return nil
		}
		seen[l.ID] = true // a crash may have written it twice
		found = append(found, wireLine(l))
		return nil
	})
	for _, p := range checked.Problems {
		a.warn("%s", p)
	}
	return found, err
}

// wireLine is a line of a segment as the API shows it.
func wireLine(l maintenance.Line) api.ArchivedToken {
	t := api.ArchivedToken{
		ID: l.ID, Kind: l.Kind, Name: l.Name, UserID: l.Owner, Digest: l.Digest, Scopes: l.Scopes, Competitions: l.Competitions, Family: l.Family,
		Parent: l.Parent, Predecessor: l.Predecessor, Successor: l.Successor, CreatedBy: l.IssuedBy, EndedAt: l.EndedAt, State: l.Why, Reason: l.Reason,
		ArchivedAt: l.ArchivedAt, Segment: l.Segment,
	}
	if at := l.IssuedAt; !at.Equal(time.Time{}) {
		t.CreatedAt = &at
	}
	if l.LastUsedAt != nil {
		t.LastUsed = &api.LastUse{At: *l.LastUsedAt, IP: l.LastUsedIP, Count: l.Uses}
	}
	return t
}

func (a *app) archiveVerify() *cobra.Command {
	var dir, key, from string
	c := &cobra.Command{
		Use: "verify", Short: "Prove the segments with their files, the trail and the public key alone", Args: cobra.NoArgs,
		Long: `Checks that every segment of the folder is what the server signed, that none is missing
before the last one, and that all those are there which the trail tells of, so that a
cut end shows, too. It needs the files of both and the key (gradegate audit key), nothing
else; gradegate audit verify proves the trail.`,
		Example: "  gradegate archive verify --data gradegate-data\n  gradegate archive verify --dir gradegate-data/archive --trail gradegate-data/audit",
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := a.verifyingKey(cmd, key)
			if err != nil {
				return err
			}
			if from == "" && dir == "" && trail.IsTrail(a.trailFolder()) == nil {
				from = a.trailFolder()
			}
			told, err := segmentsTold(cmd.Context(), from)
			if err != nil {
				return err
			}
			r, err := maintenance.VerifySegments(a.segmentFolder(dir), key, told, nil)
			if err != nil {
				return err
			}
			return a.printChecked(r, from)
		},
	}
	a.segmentFlags(c, &dir, &key)
	c.Flags().StringVar(&from, "trail", "", "folder of the trail to compare with (default without --dir: that of --data, or of ./gradegate-data)")
	return c
}

// segmentsTold are the segments that a trail tells of; none without a trail.
func segmentsTold(ctx context.Context, dir string) (told []maintenance.Head, err error) {
	if dir == "" {
		return nil, nil
	}
	if err := trail.IsTrail(dir); err != nil {
		return nil, err
	}
	_, err = trail.Each(ctx, dir, trail.Pass{Stream: trail.Act, Text: string(audit.ArchiveReduce)}, func(e *audit.Event) error {
		if h, ok := maintenance.HeadOf(e); ok {
			told = append(told, h)
		}
		return nil
	})
	return told, err
}

// printChecked prints the verdict first.
func (a *app) printChecked(r maintenance.Checked, from string) error {
	err := a.print(result{json: r, name: strconv.FormatBool(len(r.Problems) == 0), table: func(w io.Writer) {
		if len(r.Problems) == 0 {
			fmt.Fprintln(w, "The segments are whole.")
		} else {
			fmt.Fprintln(w, "The segments are NOT whole:")
		}
		for _, p := range r.Problems {
			fmt.Fprintln(w, "  "+clean(p))
		}
		fmt.Fprintf(w, "%s, %s\n", count(r.Segments, "segment"), count(r.Lines, "token"))
		if from == "" {
			fmt.Fprintln(w, "Not compared with a trail (--trail DIR): were the newest segments taken away, this would not show it.")
		} else {
			fmt.Fprintf(w, "The trail in %s tells of %s.\n", clean(from), count(r.Told, "segment"))
		}
	}})
	if err == nil && len(r.Problems) > 0 {
		f := fault.New(fault.Invalid, "archive_not_whole", "The archive's segments do not verify.").
			WithFix("Leave the files as they are, and put those that are named back from a copy of the folder.")
		err = amiss{f, exitFailure}
	}
	return err
}
