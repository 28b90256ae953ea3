package life

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// World is one history in a house: people and groups of its own, and what was
// made in it, in order.
type World struct {
	*House
	n      int
	people []principal.ID
	tokens []token.Secret
	jobs   []submitted
	note   string // beside the answer to the last op
}

type submitted struct {
	id     job.ID
	handle token.Secret
}

// between two histories so much time passes that no token of the first lives in
// the second, where it would count for "who is affected".
const between = 1000 * day

// World begins a history, at the same state whatever came before.
func (h *House) World(people int) *World {
	ctx := context.Background()
	h.sequences++
	w := &World{House: h, n: h.sequences}
	if h.sequences > 1 {
		h.wall.Add(h.clock.Now().Sub(h.wall.Now())) // whatever it was set to
		h.pass(between)
		h.clock.Confirm()
	}
	h.record(h.beat)
	h.applyOutages()
	_, err := h.authority.SetPolicy(ctx, boss, authority.PolicyChange{Level: "platform", Since: h.clock.Now()})
	h.must(err)
	for i := range people {
		p, err := h.authority.CreateUser(ctx, boss, authority.NewUser{Name: fmt.Sprintf("p%d-%d", i, w.n)}, authority.Idem{})
		h.must(err)
		w.people = append(w.people, p.ID)
	}
	return w
}

// AddService makes a service for which the first two people answer.
func (w *World) AddService() {
	s, err := w.authority.CreateService(context.Background(), boss, authority.NewService{
		Name: fmt.Sprintf("s-%d", w.n), Owners: []string{string(w.people[0]), string(w.people[1])},
	}, authority.Idem{})
	w.must(err)
	w.people = append(w.people, s.ID)
}

// Do does an op with the real service.
func (w *World) Do(o Op) Answer {
	w.note = ""
	made, err := w.do(context.Background(), o)
	if err == nil {
		return Answer{Made: made, Note: w.note}
	}
	f := fault.Of(err)
	if f.Kind == fault.Internal || f.Kind == fault.Unavailable {
		panic(fmt.Sprintf("%s: %v", o, err))
	}
	return refused(f.Code)
}

func (w *World) do(ctx context.Context, o Op) (made int, err error) {
	switch o.Do {
	case "pass":
		w.pass(o.Span)
		return never, nil
	case "set-back":
		w.wall.Add(-o.Span)
		w.clock.Now()
		return never, nil
	case "beat":
		w.record(w.clock.Now().Add(-o.Span))
		return never, nil
	case "flush":
		w.flush()
		return never, nil
	case "restart", "crash":
		w.record(w.beat) // in a real one it is seconds old
		if o.Do == "restart" {
			w.flush()
		}
		fallthrough
	case "reopen":
		w.stop()
		w.open()
		return never, nil
	case "leak":
		return never, w.leak(ctx, w.tokens[o.On])
	case "leak-handle":
		return never, w.leak(ctx, w.jobs[o.Job].handle)
	case "redeem":
		out, _, err := w.authority.Redeem(ctx, &policy.Subject{}, w.tokens[o.On], "session", "")
		return w.made(out, err)
	case "handle-read", "handle-cancel":
		return w.as(w.jobs[o.Job].handle, o, func(s *policy.Subject) (int, error) { return never, w.job(ctx, s, o) })
	}
	if o.By == local {
		return w.byLocal(ctx, o)
	}
	return w.as(w.tokens[o.By], o, func(s *policy.Subject) (int, error) { return w.byHolder(ctx, s, o) })
}

// as is a request with a secret: what internal/httpapi does around a use case.
func (w *World) as(secret token.Secret, o Op, do func(*policy.Subject) (int, error)) (int, error) {
	s, ref, err := w.table.Authenticate(secret.Presented(), netip.Addr{})
	idem := authority.Idem{Key: o.Key, Presented: secret}
	switch {
	case err != nil && o.Key != "" && w.authority.Answered(context.Background(), idem):
		s, _ = w.table.Lapsed(secret.Presented(), netip.Addr{})
		return do(&s)
	case err != nil && fault.CodeOf(err) == "token_rotated" && o.Do == "rotate":
		if bad := w.authority.Reused(context.Background(), &s); bad != nil {
			return never, bad
		}
		return never, fault.New(fault.Unauthenticated, "token_reused", "reused")
	case err != nil:
		return never, err
	case s.Mode == policy.ModeExpiredRead && o.Do != "job-read" && o.Do != "job-cancel":
		return never, policy.Expired(&s)
	}
	now := w.clock.Now()
	made, err := do(&s)
	if err == nil {
		w.table.Used(&ref, now, netip.Addr{}, "test")
		if s.Token != "" && s.Mode != policy.ModeExpiredRead {
			w.trail = append(w.trail, authn.LastUse{Token: s.Token, Use: token.Use{At: now, Count: 1}})
		}
	}
	return made, err
}

// leak is both parts of a report: tokens, and handles of jobs.
func (w *World) leak(ctx context.Context, secret token.Secret) error {
	list := []string{secret.Reveal()}
	if err := w.authority.ReportLeak(ctx, &policy.Subject{}, list); err != nil {
		return err
	}
	return w.grading.ReportLeak(ctx, &policy.Subject{}, list)
}

// made keeps a new secret, or finds which one was given again.
func (w *World) made(out authority.Issued, err error) (int, error) {
	if err != nil {
		return never, err
	}
	for i, s := range w.tokens {
		if s.Reveal() == out.Secret.Reveal() {
			return i, nil
		}
	}
	w.tokens = append(w.tokens, out.Secret)
	return len(w.tokens) - 1, nil
}

func (w *World) id(slot int) string {
	if slot == never {
		return ""
	}
	return string(w.tokens[slot].Presented().Public.ID())
}

func (w *World) byHolder(ctx context.Context, s *policy.Subject, o Op) (int, error) {
	idem := authority.Idem{Key: o.Key, Presented: w.tokens[o.By]}
	switch o.Do {
	case "use":
		return never, policy.Decide(s, policy.Action{Name: "use", Scope: o.Name, Own: true}, policy.Resource{})
	case "audit":
		return never, policy.Decide(s, policy.AuditRead, policy.Resource{})
	case "submit":
		out, err := w.grading.Submit(ctx, s, grading.Upload{Competition: "c", Name: "run.sh", Body: strings.NewReader("#!/bin/sh\n")}, grading.Idem{})
		if err != nil {
			return never, err
		}
		w.jobs = append(w.jobs, submitted{out.Job.ID, out.Handle})
		return len(w.jobs) - 1, nil
	case "job-read", "job-cancel":
		return never, w.job(ctx, s, o)
	case "create":
		c := authority.Create{Name: o.Name, Scopes: o.Scopes, Lifetime: o.Span, Replace: w.id(o.Replace)}
		if o.Fixed {
			c.Lifetime, c.ExpiresAt = 0, w.clock.Now().Add(o.Span)
		}
		return w.made(w.authority.CreateToken(ctx, s, c, idem))
	case "mint":
		c := authority.Create{Name: o.Name, Scopes: o.Scopes, Lifetime: o.Span}
		return w.made(w.authority.CreateServiceToken(ctx, s, string(w.people[len(w.people)-1]), c, authority.Idem{}))
	case "rotate":
		r := authority.Rotate{Token: w.id(o.On), Grace: &o.Span, Compromised: o.Compromised, ReplaceUnused: o.ReplaceUnused}
		return w.made(w.authority.RotateToken(ctx, s, r, idem))
	case "renew":
		out, err := w.authority.Renew(ctx, s, w.id(o.On))
		w.note = out.Limit
		return never, err
	case "revoke-all":
		_, err := w.authority.RevokeAll(ctx, s, "", o.Keep)
		return never, err
	}
	return never, w.end(ctx, s, o)
}

// end is what somebody decides about one token.
func (w *World) end(ctx context.Context, s *policy.Subject, o Op) (err error) {
	switch o.Do {
	case "revoke":
		_, err = w.authority.Revoke(ctx, s, w.id(o.On), "", token.Keep)
	case "suspend":
		_, err = w.authority.Suspend(ctx, s, w.id(o.On))
	case "resume":
		_, err = w.authority.Resume(ctx, s, w.id(o.On))
	default:
		panic("life: " + o.Do)
	}
	return err
}

func (w *World) job(ctx context.Context, s *policy.Subject, o Op) (err error) {
	if strings.HasSuffix(o.Do, "cancel") {
		_, _, err = w.grading.Cancel(ctx, s, w.jobs[o.Job].id)
		return err
	}
	_, err = w.grading.Job(ctx, s, w.jobs[o.Job].id)
	return err
}

func (w *World) byLocal(ctx context.Context, o Op) (int, error) {
	who := string(w.people[o.Who])
	var err error
	switch o.Do {
	case "invite":
		out, err := w.authority.Invite(ctx, boss, authority.NewUser{Name: w.table.NameOf(w.people[o.Who])}, authority.Idem{})
		return w.made(authority.Issued{Secret: out.Code, Token: out.Token}, err)
	case "owners":
		c := authority.OwnerChange{Force: true}
		switch o.Name {
		case "add":
			c.Add = []string{who}
		case "remove":
			c.Remove = []string{who}
		case "group":
			c.Group = w.group("a")
		}
		_, err = w.authority.SetOwners(ctx, boss, string(w.people[len(w.people)-1]), c)
	case "offboard":
		_, err = w.authority.Offboard(ctx, boss, who, false)
	case "suspend-user":
		_, err = w.authority.SuspendUser(ctx, boss, who)
	case "resume-user":
		_, err = w.authority.ResumeUser(ctx, boss, who)
	case "revoke-all":
		_, err = w.authority.RevokeAll(ctx, boss, who, false)
	case "groups":
		groups := slices.Clone(o.Groups)
		for i := range groups {
			groups[i] = w.group(groups[i])
		}
		_, err = w.authority.UpdateUser(ctx, boss, who, authority.UserUpdate{Groups: &groups})
	case "role":
		role := principal.Role(o.Role)
		_, err = w.authority.UpdateUser(ctx, boss, who, authority.UserUpdate{Role: &role})
	case "policy":
		c := authority.PolicyChange{Level: w.level(o.Level), Rules: o.Rules.real()}
		if o.Since != 0 {
			c.Since = w.clock.Now().Add(o.Since)
		}
		_, err = w.authority.SetPolicy(ctx, boss, c)
	default:
		err = w.end(ctx, boss, o)
	}
	return never, err
}

// group is a name that no other history has.
func (w *World) group(name string) string { return fmt.Sprintf("%s-%d", name, w.n) }

func (w *World) level(name string) string {
	if name == token.Platform {
		return name
	}
	return w.group(name)
}

func (r Rules) real() policy.Rules {
	out := policy.Rules{Lifetime: r.Lifetime, MaxPersonal: r.MaxPersonal, Quarantine: r.Quarantine}
	out.MaxLifetime.Span, out.Idle.Span, out.Unused.Span = r.MaxLifetime, r.Idle, r.Unused
	out.RotateAfter.Span, out.SessionsOnly.On = r.RotateAfter, r.SessionsOnly
	if r.Enforced {
		out.Enforced.Span = r.RotateAfter
	}
	return out
}

// Seen is what the service says of one token at this moment.
type Seen struct {
	State string
	End   end
	Enter string // the code of the refusal when it is presented; empty: none
	Mode  string
}

// See asks the service about a token, without using it.
func (w *World) See(slot int) Seen {
	p := w.tokens[slot].Presented()
	k, ok := w.table.Token(p.Public.ID())
	owner, known := w.table.Principal(k.Owner)
	if !ok || !known {
		return Seen{State: "absent"}
	}
	holder, past, now := w.table.Holder(owner), w.table.History(&k), w.clock.Now()
	first := k.Nearest(&holder, past, now)
	s, _, err := w.table.Authenticate(p, netip.Addr{})
	out := Seen{
		State: string(k.State(&holder, past, now)), Mode: s.Mode,
		End: end{first.At, string(first.Clock), strings.TrimSuffix(first.Level, fmt.Sprintf("-%d", w.n))},
	}
	if err != nil {
		out.Enter, out.Mode = fault.CodeOf(err), ""
	}
	return out
}

// SeeHandle is the code of the refusal of a job's handle; empty: none.
func (w *World) SeeHandle(n int) string {
	_, _, err := w.table.Authenticate(w.jobs[n].handle.Presented(), netip.Addr{})
	if err != nil {
		return fault.CodeOf(err)
	}
	return ""
}

// Stored compares what is in memory with what the database has.
func (w *World) Stored() error {
	for i := range w.tokens {
		id := token.ID(w.id(i))
		stored, err := w.House.tokens.Token(context.Background(), id)
		if known, _ := w.table.Token(id); err != nil || known.Version != stored.Version || known.Standing != stored.Standing {
			return fmt.Errorf("token %d: in memory %+v, stored %+v (%w)", i, known, stored, err)
		}
	}
	return nil
}

// shown is a time as it stands in a message, from the beginning of a history.
func shown(at, from time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.Sub(from).String()
}

// Scopes are what a token may, sorted.
func (w *World) Scopes(slot int) []string {
	k, _ := w.table.Token(token.ID(w.id(slot)))
	out := slices.Clone(k.Scopes)
	slices.Sort(out)
	return out
}
