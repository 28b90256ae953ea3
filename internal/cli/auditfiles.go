package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/config"
	"gradegate/internal/fault"
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
	if err := trail.IsTrail(dir); err != nil {
		return nil, err
	}
	var errs [2]error
	q.Since, errs[0] = moment(v.Get("since"))
	q.Until, errs[1] = moment(v.Get("until"))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, usage{err, cmd.CommandPath()}
	}
	q.User = v.Get("user")
	for _, user := range []*string{&q.User, &q.Actor, &q.Owner} {
		id, err := userInFiles(cmd.Context(), dir, *user)
		if err != nil {
			return nil, err
		}
		*user = id
	}
	found, err := trail.Search(cmd.Context(), dir, q)
	events := make([]api.AuditEvent, len(found))
	for i, f := range found {
		events[i] = server.WireEvent(f)
	}
	return events, err
}

// userInFiles is the id behind a name, from the line of the user's creation; ids and
// what is no user stay as they are.
func userInFiles(ctx context.Context, dir, name string) (string, error) {
	if name == "" || name == "system" || strings.HasPrefix(name, "usr_") || strings.HasPrefix(name, "local:") {
		return name, nil
	}
	made, err := trail.Search(ctx, dir, trail.Query{Stream: trail.Act, Action: string(audit.UserCreate), Text: name, Limit: math.MaxInt32})
	if err != nil {
		return "", err
	}
	for _, f := range slices.Backward(made) {
		if f.Detail["name"] == name {
			return f.Target, nil
		}
	}
	return "", fault.New(fault.NotFound, "user_not_found", "The files tell of no user named %q.", name).
		WithFix("gradegate audit search --dir %s --action user.create", dir)
}

// trailFolder is where the server of the data folder keeps its trail: by the
// configuration with which it would start here, or beside its data.
func (a *app) trailFolder() string {
	c, _, err := a.load(&serverFlags{})
	if err != nil { // told to whoever starts a server
		c = config.Default()
		c.Data = cmp.Or(a.data, c.Data)
	}
	return c.Path(c.Audit.Dir, "audit")
}

// trailSource is the folder to read the trail from, or "" to ask the server. The
// local administrator of a server that is dead has its files.
func (a *app) trailSource(ctx context.Context, dir string) string {
	if dir != "" || a.data == "" {
		return dir
	}
	client, err := a.socket()
	if err == nil {
		_, err = client.Health(ctx)
	}
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != "unreachable" {
		return ""
	}
	dir = a.trailFolder()
	a.hint("The server does not answer; this is from its files in %s.", dir)
	return dir
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

// tailFiles prints the newest lines of a folder's streams, of one or of both, by
// time, and goes on behind the last line of each.
func (a *app) tailFiles(cmd *cobra.Command, dir, stream string, lines int, follow bool) error {
	if err := trail.IsTrail(dir); err != nil {
		return err
	}
	var all []trail.Found
	next := map[string]uint64{}
	for _, name := range []string{trail.Use, trail.Act} {
		if stream != "" && stream != name {
			continue
		}
		found, err := trail.Search(cmd.Context(), dir, trail.Query{Stream: name, Limit: max(1, lines)})
		if err != nil {
			return err
		}
		next[name] = 0
		if n := len(found); n > 0 {
			next[name] = found[n-1].Index + 1
		}
		all = append(all, found...)
	}
	slices.SortStableFunc(all, func(x, y trail.Found) int { return x.At.Compare(y.At) })
	for _, f := range all[max(0, len(all)-max(0, lines)):] {
		if err := a.line(server.WireEvent(f)); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	return trail.Follow(cmd.Context(), dir, next, func(f trail.Found) error { return a.line(server.WireEvent(f)) })
}
