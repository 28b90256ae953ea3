package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
)

type auditIn struct {
	Stream  string `query:"stream" enum:"use,act" doc:"use: every verification; act: everything that changed something"`
	Since   string `query:"since" maxLength:"40" doc:"RFC 3339, or a span back from now such as 24h or 7d"`
	Until   string `query:"until" maxLength:"40"`
	User    string `query:"user" maxLength:"200" doc:"A user's id or name: what they did, what is theirs, and what was done to them"`
	Actor   string `query:"actor" maxLength:"200" doc:"A user's id or name, local:UID or system"`
	Token   string `query:"token" maxLength:"40" doc:"A token's public id"`
	Target  string `query:"target" maxLength:"200"`
	Owner   string `query:"owner" maxLength:"200" doc:"A user's id or name"`
	Action  string `query:"action" maxLength:"60" doc:"token.revoke, or with a dot at its end token. for all of them"`
	Outcome string `query:"outcome" enum:"allow,deny,done"`
	Addr    string `query:"ip" maxLength:"60" doc:"A client address"`
	Request string `query:"request" maxLength:"60"`
	Reason  string `query:"reason" maxLength:"60"`
	Paging
}

// searchAudit gives the newest lines that match, oldest first; the next page
// holds the ones before.
func (a *API) searchAudit(ctx context.Context, s *policy.Subject, in *auditIn) (api.Page[api.AuditEvent], error) {
	page := api.Page[api.AuditEvent]{Items: []api.AuditEvent{}}
	if a.Search == nil {
		return page, errNoSearch
	}
	q := AuditQuery{
		Stream: in.Stream, Token: in.Token, Target: in.Target, Action: in.Action, Outcome: in.Outcome,
		Addr: in.Addr, Request: in.Request, Reason: in.Reason, Limit: in.Limit + sameInstant,
	}
	var err error
	if q.Actor, err = a.userID(ctx, s, in.Actor); err != nil {
		return page, err
	}
	if q.User, err = a.userID(ctx, s, in.User); err != nil {
		return page, err
	}
	if q.Owner, err = a.userID(ctx, s, in.Owner); err != nil {
		return page, err
	}
	if q.Since, err = a.moment(in.Since); err != nil {
		return page, err
	}
	if q.Until, err = a.moment(in.Until); err != nil {
		return page, err
	}
	before, id, err := readMark(in.Cursor)
	if err != nil {
		return page, err
	}
	if !before.IsZero() {
		q.Until = before.Add(time.Microsecond) // lines of the same instant may be left
	}
	found, err := a.Search(ctx, q)
	if err != nil {
		return page, err
	}
	for i, e := range found {
		if id != "" && e.ID == id {
			found = found[:i]
			break
		}
	}
	if len(found) > in.Limit {
		found = found[len(found)-in.Limit:]
		page.NextCursor = mark(found[0])
	}
	page.Items = append(page.Items, found...)
	return page, nil
}

var errNoSearch = fault.New(fault.Unavailable, "search_unavailable", "This server does not search its trail.").WithFix("gradegate audit search --data DIR")

// sameInstant is how many lines of one microsecond a page border may cut
// through without losing one.
const sameInstant = 64

func mark(e api.AuditEvent) string { return strconv.FormatInt(e.At.UnixMicro(), 10) + "." + e.ID }

func readMark(cursor string) (time.Time, string, error) {
	if cursor == "" {
		return time.Time{}, "", nil
	}
	at, id, ok := strings.Cut(cursor, ".")
	us, err := strconv.ParseInt(at, 10, 64)
	if err != nil || !ok || us <= 0 {
		return time.Time{}, "", errCursor
	}
	return clock.Micro(us), id, nil
}

// moment reads an instant, or a span back from now.
func (a *API) moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	d, err := duration(s)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "instant_invalid", "That is no point in time.").WithFix("Write it as 2026-11-24T09:00:00Z, or as 24h for a day ago.")
	}
	return a.Now().Add(-d), nil
}

// userID is the id behind a name; ids and what is no user stay as they are.
func (a *API) userID(ctx context.Context, s *policy.Subject, name string) (string, error) {
	if name == "" || name == "system" || strings.HasPrefix(name, "usr_") || strings.HasPrefix(name, "local:") {
		return name, nil
	}
	if name == s.Principal.Name {
		return string(s.Principal.ID), nil
	}
	p, err := a.Authority.User(ctx, s, name)
	return string(p.ID), err
}

// checkpoint gives the newest signed note of a stream, as it was signed.
func (a *API) checkpoint(c *call, r *http.Request) error {
	stream := r.URL.Query().Get("stream")
	if stream == "" {
		stream = "act"
	}
	if a.Checkpoint == nil {
		return fault.New(fault.Unavailable, "checkpoint_unavailable", "This server has no checkpoints.")
	}
	note, err := a.Checkpoint(stream)
	if err != nil {
		return err
	}
	if len(note) == 0 {
		return fault.New(fault.NotFound, "checkpoint_missing", "There is no checkpoint of this stream yet.").WithFix("Try again in a few seconds.")
	}
	return c.plainText(http.StatusOK, string(note))
}

// listTrims gives the certificates of what is gone.
func (a *API) listTrims(context.Context, *policy.Subject, *None) (api.Page[api.Trim], error) {
	if a.Retention == nil {
		return api.Page[api.Trim]{Items: []api.Trim{}}, nil
	}
	all, err := a.Retention.Trims()
	return trims(all), err
}

func (a *API) previewTrim(ctx context.Context, s *policy.Subject, _ *None) (api.Page[api.Trim], error) {
	return a.trim(ctx, s, true)
}

func (a *API) trimAudit(ctx context.Context, s *policy.Subject, _ *None) (api.Page[api.Trim], error) {
	return a.trim(ctx, s, false)
}

func (a *API) trim(ctx context.Context, s *policy.Subject, dry bool) (api.Page[api.Trim], error) {
	if a.Retention == nil {
		return trims(nil), fault.New(fault.Unavailable, "trim_unavailable", "This server drops nothing from its trail.")
	}
	all, err := a.Retention.Trim(ctx, s.Actor(), dry)
	return trims(all), err
}

func trims(all []api.Trim) api.Page[api.Trim] {
	return api.Page[api.Trim]{Items: append([]api.Trim{}, all...)}
}
