package httpapi

import (
	"context"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/maintenance"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

type (
	sweepIn struct{ Body api.Sweep }
	holdIn  struct{ Body api.AddHold }
	holdsIn struct {
		All bool `query:"all" doc:"Those that are over as well"`
	}
	archiveIn struct {
		User       string `query:"user" maxLength:"200" doc:"A user's id or name"`
		Name       string `query:"name" maxLength:"200" doc:"The token's name"`
		Kind       string `query:"kind" enum:"pat,ses,svc,ref,inv,legacy"`
		EndedSince string `query:"ended_since" maxLength:"40" doc:"RFC 3339, or a span back from now such as 90d"`
		EndedUntil string `query:"ended_until" maxLength:"40"`
		Paging
	}
)

var errNoArchive = fault.New(fault.Unavailable, "archive_unavailable", "This server has no archive.").WithFix("Ask the server that keeps the data.")

func (a *API) sweep(ctx context.Context, s *policy.Subject, in *sweepIn) (api.Swept, error) {
	if a.Maintenance == nil {
		return api.Swept{}, errNoArchive
	}
	r, err := a.Maintenance.Sweep(ctx, s, in.Body.DryRun)
	if err != nil {
		return api.Swept{}, err
	}
	return viewSwept(r), nil
}

func (a *API) lastSweep(context.Context, *policy.Subject, *None) (api.Swept, error) {
	if a.Maintenance == nil {
		return api.Swept{}, errNoArchive
	}
	last, _ := a.Maintenance.Last()
	return viewSwept(last), nil
}

func viewSwept(r maintenance.Report) api.Swept {
	classes := func(all []maintenance.Class) []api.SweepClass {
		out := []api.SweepClass{}
		for _, c := range all {
			v := api.SweepClass{Name: c.Name, Count: c.Count}
			for _, id := range c.Examples {
				v.Examples = append(v.Examples, string(id))
			}
			out = append(out, v)
		}
		return out
	}
	return api.Swept{
		DryRun: r.Dry, StartedAt: instant(r.Began), EndedAt: instant(r.Done), Looked: r.Looked, Archived: r.Moved, Classes: classes(r.Classes), Kept: classes(r.Kept),
		Reduced: r.Sealed, Segments: some(r.Segments), More: r.More, Skipped: r.Skipped,
	}
}

// listArchive goes back in time; the cursor is where the last page ended.
func (a *API) listArchive(ctx context.Context, s *policy.Subject, in *archiveIn) (api.Page[api.ArchivedToken], error) {
	page := api.Page[api.ArchivedToken]{Items: []api.ArchivedToken{}}
	if a.Maintenance == nil {
		return page, errNoArchive
	}
	q := maintenance.Query{Name: in.Name, Kind: token.ParseKind(in.Kind), Limit: in.Limit + 1}
	owner, err := a.userID(ctx, s, in.User)
	if err != nil {
		return page, err
	}
	q.Owner = principal.ID(owner)
	if q.EndedSince, err = a.moment(in.EndedSince); err != nil {
		return page, err
	}
	if q.EndedUntil, err = a.moment(in.EndedUntil); err != nil {
		return page, err
	}
	at, id, err := readMark(in.Cursor)
	if err != nil {
		return page, err
	}
	q.Before = maintenance.Place{EndedAt: at, ID: token.ID(id)}
	list, err := a.Maintenance.List(ctx, s, q)
	if err != nil {
		return page, err
	}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		last := list[in.Limit-1]
		page.NextCursor = strconv.FormatInt(clock.Micros(last.EndedAt), 10) + "." + string(last.Token.ID)
	}
	for _, x := range list {
		page.Items = append(page.Items, a.viewArchived(x))
	}
	return page, nil
}

func (a *API) getArchived(ctx context.Context, s *policy.Subject, in *ByID) (api.ArchivedToken, error) {
	if a.Maintenance == nil {
		return api.ArchivedToken{}, errNoArchive
	}
	x, err := a.Maintenance.Show(ctx, s, token.ID(in.ID))
	if err != nil {
		return api.ArchivedToken{}, err
	}
	return a.viewArchived(x), nil
}

func (a *API) viewArchived(x maintenance.Archived) api.ArchivedToken {
	t := &x.Token
	out := api.ArchivedToken{
		ID: string(t.ID), Kind: t.Kind.String(), Name: t.Name, UserID: string(t.Owner), User: a.Table.NameOf(t.Owner), Digest: hex.EncodeToString(t.Digest.Bytes()),
		Scopes: t.Scopes, Competitions: t.Competitions, Family: string(t.Family), Parent: string(t.Parent), Predecessor: string(t.Predecessor),
		Successor: string(t.Successor), CreatedAt: instant(t.IssuedAt), CreatedBy: t.IssuedBy, EndedAt: x.EndedAt, State: string(x.Why), Reason: string(t.Reason),
		ArchivedAt: x.ArchivedAt, Segment: x.Segment,
	}
	if u := x.Use; !u.At.IsZero() {
		out.LastUsed = &api.LastUse{At: u.At, Agent: u.Agent, Count: u.Count}
		if u.Addr.IsValid() {
			out.LastUsed.IP = u.Addr.String()
		}
	}
	return out
}

func (a *API) listHolds(ctx context.Context, s *policy.Subject, in *holdsIn) (api.Holds, error) {
	out := api.Holds{Items: []api.Hold{}}
	if a.Maintenance == nil {
		return out, errNoArchive
	}
	list, err := a.Maintenance.Holds(ctx, s, in.All)
	for _, h := range list {
		out.Items = append(out.Items, a.viewHold(h))
	}
	return out, err
}

func (a *API) addHold(ctx context.Context, s *policy.Subject, in *holdIn) (api.Hold, error) {
	if a.Maintenance == nil {
		return api.Hold{}, errNoArchive
	}
	n := maintenance.NewHold{Subject: strings.TrimSpace(in.Body.Subject), Reason: in.Body.Reason}
	if in.Body.Until != nil {
		n.Until = in.Body.Until.UTC().Truncate(time.Microsecond)
	}
	h, err := a.Maintenance.AddHold(ctx, s, n)
	return a.viewHold(h), err
}

func (a *API) removeHold(ctx context.Context, s *policy.Subject, in *ByID) (api.Hold, error) {
	if a.Maintenance == nil {
		return api.Hold{}, errNoArchive
	}
	h, err := a.Maintenance.RemoveHold(ctx, s, in.ID)
	return a.viewHold(h), err
}

func (a *API) viewHold(h maintenance.Hold) api.Hold {
	return api.Hold{
		ID: h.ID, Kind: h.Kind, SubjectID: h.Subject, Name: h.Name, Reason: h.Reason, CreatedBy: h.By, CreatedAt: h.At, Until: instant(h.Until),
		Active: h.Active(a.Now()), RemovedAt: instant(h.RemovedAt), RemovedBy: h.RemovedBy,
	}
}

func (a *API) growth(ctx context.Context, s *policy.Subject, _ *None) (api.Growth, error) {
	if a.Maintenance == nil {
		return api.Growth{}, errNoArchive
	}
	g, err := a.Maintenance.Growth(ctx, s)
	if err != nil {
		return api.Growth{}, err
	}
	out := api.Growth{At: g.At, Level: g.Level, Alerts: some(g.Alerts), Rows: viewMeasures(g.Rows), Bytes: viewMeasures(g.Bytes), Disks: viewMeasures(g.Disks), Minters: []api.Minter{}}
	for _, m := range g.Minters {
		out.Minters = append(out.Minters, api.Minter{UserID: string(m.User), User: a.Table.NameOf(m.User), Tokens: m.Tokens})
	}
	return out, nil
}

func viewMeasures(all []maintenance.Measure) []api.Measure {
	out := []api.Measure{}
	for _, m := range all {
		v := api.Measure{Name: m.Name, Value: m.Value, Limit: m.Limit, Level: m.Level}
		if m.Trended {
			v.PerDay = &m.PerDay
		}
		if m.Full {
			v.FullInDays = &m.Days
		}
		out = append(out, v)
	}
	return out
}
