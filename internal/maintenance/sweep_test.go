package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/maintenance"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// TestWhatStays: each reason for which a token stays, told by its own name; and
// what goes once the reason is gone (R9.1, R9.4).
func TestWhatStays(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, w *world) {
		fixed := func(end time.Duration) func(*token.Token) {
			return func(k *token.Token) { k.Renewal, k.FixedEnd, k.Unused, k.Idle = token.Fixed, t0.Add(end), 0, 0 }
		}
		late := fixed(300 * day)
		unused := w.give(nil)
		revoked := w.give(func(k *token.Token) { *k, _ = k.Revoke(token.ByOwner, token.Keep, t0) })
		active := w.give(late)
		suspended := w.give(func(k *token.Token) { late(k); k.Standing = token.Suspended })
		recent := w.give(fixed(20 * day))
		used := w.give(nil) // on another node: this one's table does not know
		w.must(w.tokens.RecordUses(t.Context(), []authn.LastUse{{Token: used.ID, Use: token.Use{At: t0.Add(13 * day), Count: 1}}}, 1))
		job, handled := w.give(nil), w.give(nil)
		child := w.give(func(k *token.Token) { late(k); k.Parent = handled.ID })
		parent := w.give(nil)
		childOf := w.give(func(k *token.Token) { late(k); k.Parent = parent.ID })
		sibling := w.give(nil)
		living := w.give(func(k *token.Token) { late(k); k.Family, k.Generation = sibling.Family, 2 })
		held := w.give(nil)
		w.vias = []token.ID{job.ID, child.ID}
		_, err := w.sweep.AddHold(t.Context(), admin, maintenance.NewHold{Subject: string(held.ID), Reason: "case"})
		w.must(err)

		w.clock.Add(14*day + maintenance.KeepEnded)
		dry := w.run(true)
		if w.archived(unused.ID) || dry.Moved != 2 {
			t.Fatalf("a dry run moved something, or would move another: %+v", dry)
		}
		before := map[token.ID]string{}
		for id := range w.known {
			before[id] = w.answer(id)
		}
		r := w.run(false)
		if r.Moved != dry.Moved || fmt.Sprint(r.Classes, r.Kept) != fmt.Sprint(dry.Classes, dry.Kept) {
			t.Errorf("the dry run said %v, and it was %v", dry, r)
		}
		kept := map[string]string{}
		for _, c := range r.Kept {
			kept[c.Name] = fmt.Sprint(c.Examples)
		}
		for reason, id := range map[string]token.ID{"recent": recent.ID, "child": parent.ID, "family": sibling.ID, "on_hold": held.ID} {
			if !strings.Contains(kept[reason], string(id)) {
				t.Errorf("%s stays as %s: %v", id, reason, kept)
			}
		}
		if !strings.Contains(kept["job"], string(job.ID)) || !strings.Contains(kept["job"], string(handled.ID)) {
			t.Errorf("jobs hold back %v", kept["job"])
		}
		for id := range w.known {
			gone := id == unused.ID || id == revoked.ID
			if w.archived(id) != gone {
				t.Errorf("%s archived: %v", id, !gone)
			}
			if got := w.answer(id); gone && got != "token_unknown" || !gone && got != before[id] {
				t.Errorf("%s: %q became %q", id, before[id], got)
			}
		}
		if again := w.run(false); again.Moved != 0 {
			t.Errorf("a second run moved %d", again.Moved)
		}
		_, _, _, _ = active, suspended, childOf, living

		// The reasons go, and so do they.
		w.vias = nil
		holds, err := w.sweep.Holds(t.Context(), admin, false)
		w.must(err)
		_, err = w.sweep.RemoveHold(t.Context(), admin, holds[0].ID)
		w.must(err)
		w.clock.Add(400 * day)
		w.run(false)
		for id := range w.known {
			if !w.archived(id) {
				t.Errorf("%s is still there", id)
			}
		}
	})
}

// TestSweepAgainstASpecification: over random lineages, ages and standings the
// sweep moves exactly what a plain reading of R9.1 says, and nobody whose token
// is good is told anything else than before.
func TestSweepAgainstASpecification(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := build(t, "")
			rng := rand.New(rand.NewPCG(seed, 3))
			ended := map[token.ID]time.Time{} // never: far away
			var all []token.Token
			for range 60 {
				end := t0.Add(time.Duration(rng.IntN(200)) * day)
				k := w.give(func(k *token.Token) {
					k.Renewal, k.FixedEnd, k.Unused, k.Idle = token.Fixed, end, 0, 0
					if len(all) > 0 {
						of := all[rng.IntN(len(all))]
						switch rng.IntN(4) {
						case 0:
							k.Family, k.Generation = of.Family, len(all)+2
						case 1:
							k.Parent = of.ID
						}
					}
					switch rng.IntN(5) {
					case 0:
						at := t0.Add(time.Duration(rng.IntN(100)) * day)
						*k, _ = k.Revoke(token.ByAdmin, token.Keep, at)
						if at.Before(end) {
							end = at
						}
					case 1:
						*k, _ = k.Suspend(token.ByAdmin)
					}
				})
				all = append(all, k)
				ended[k.ID] = end
				if rng.IntN(12) == 0 {
					w.vias = append(w.vias, k.ID)
				}
			}
			w.clock.Add(time.Duration(60+rng.IntN(120)) * day)
			now := w.clock.Now()
			long := func(id token.ID) bool { return !now.Before(ended[id].Add(30 * day)) }
			stays := map[token.ID]bool{}
			for _, k := range all {
				stays[k.ID] = stays[k.ID] || !long(k.ID)
				if !long(k.ID) {
					stays[k.Parent] = true
					for _, o := range all {
						stays[o.ID] = stays[o.ID] || o.Family == k.Family
					}
				}
			}
			parent := map[token.ID]token.ID{}
			for _, k := range all {
				parent[k.ID] = k.Parent
			}
			for _, id := range w.vias {
				for ; id != ""; id = parent[id] {
					stays[id] = true
				}
			}
			before := map[token.ID]string{}
			for id := range w.known {
				before[id] = w.answer(id)
			}
			w.run(false)
			for _, k := range all {
				if w.archived(k.ID) == stays[k.ID] {
					t.Errorf("%s, ended %v ago, archived: %v", k.ID, now.Sub(ended[k.ID]), !stays[k.ID])
				}
				got := w.answer(k.ID)
				switch {
				case strings.HasPrefix(before[k.ID], "tok_") && got != before[k.ID]:
					t.Errorf("a good token was told %q and is told %q", before[k.ID], got)
				case !stays[k.ID] && got != "token_unknown":
					t.Errorf("an archived secret is told %q", got)
				}
			}
			report, err := w.tokens.Check(t.Context())
			if err != nil || report.Outcome != "clean" {
				t.Errorf("check: %+v %v", report, err)
			}
		})
	}
}

// TestDoubtfulTime: as long as time is in doubt, nothing is moved, however much
// of it seems to have passed.
func TestDoubtfulTime(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	k := w.give(nil)
	w.clock.Add(1000 * day)
	w.doubt = "the clock is in doubt"
	for _, dry := range []bool{true, false} {
		if r := w.run(dry); r.Skipped != w.doubt || r.Moved != 0 || w.archived(k.ID) {
			t.Errorf("%+v", r)
		}
	}
	w.doubt = ""
	if r := w.run(false); r.Moved != 1 || r.Skipped != "" {
		t.Errorf("%+v", r)
	}
}

// TestBatches: many tokens go in small decisions, each with an event that names
// them, and a request does a bounded part.
func TestBatches(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	want := map[string]bool{}
	var d authority.Decision
	for range 450 {
		s := token.NewSecret(token.Personal).Presented()
		d.Tokens = append(d.Tokens, authority.TokenChange{New: token.Token{
			ID: s.Public.ID(), Version: 1, Kind: s.Kind, Digest: s.Digest, Owner: w.ann.ID, Epochs: w.ann.Epochs, Standing: token.Standard,
			Family: token.Family(w.newID("fam_")), Renewal: token.Fixed, FixedEnd: t0, IssuedAt: t0, BornAt: t0,
		}})
		want[string(s.Public.ID())] = true
	}
	w.commit(d, audit.TokenIssue)
	w.clock.Add(30 * day)
	if r := w.run(false); r.Moved != 450 || r.Looked != 450 || len(r.Classes) != 1 || r.Classes[0].Name != "pat expired" || len(r.Classes[0].Examples) != 3 {
		t.Errorf("%+v", r)
	}
	events, err := w.tokens.PendingEvents(t.Context(), 100)
	w.must(err)
	n := 0
	for _, e := range events {
		if e.Action != audit.TokenArchive {
			continue
		}
		n++
		ids := strings.Fields(e.Detail["tokens"])
		if int(e.Count) != len(ids) || len(ids) > 500 || e.Actor != "local:0" {
			t.Errorf("%d tokens in %+v", len(ids), e)
		}
		for _, id := range ids {
			if !want[id] {
				t.Errorf("%s twice, or unknown", id)
			}
			delete(want, id)
		}
	}
	if n < 2 || len(want) > 0 {
		t.Errorf("%d decisions; %d tokens have no event", n, len(want))
	}
	if last, moved := w.sweep.Last(); last.Moved != 450 || moved != 450 {
		t.Errorf("last: %+v, %d", last, moved)
	}
}

// TestOneSweepAtATime: the second is told so, and nothing is done twice.
func TestOneSweepAtATime(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	w.give(nil)
	w.clock.Add(100 * day)
	var inner error
	c := w.sweep.Config
	c.Doubt = func() string {
		_, inner = w.sweep.Sweep(context.Background(), admin, false)
		return ""
	}
	w.sweep.Config = c
	if r := w.run(false); r.Moved != 1 || fault.CodeOf(inner) != "sweep_running" {
		t.Errorf("%+v %v", r, inner)
	}
}

// TestWhoMaySweep: administrators sweep and hold; auditors read; others nothing.
func TestWhoMaySweep(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	subject := func(r principal.Role) *policy.Subject {
		p := w.ann
		p.Role = r
		return &policy.Subject{Principal: p, Scopes: policy.RoleScopes(r)}
	}
	calls := map[string]func(*policy.Subject) error{
		"sweep": func(s *policy.Subject) error { _, err := w.sweep.Sweep(t.Context(), s, true); return err },
		"hold": func(s *policy.Subject) error {
			_, err := w.sweep.AddHold(t.Context(), s, maintenance.NewHold{Subject: "ann", Reason: "x"})
			return err
		},
		"holds": func(s *policy.Subject) error { _, err := w.sweep.Holds(t.Context(), s, true); return err },
		"list": func(s *policy.Subject) error {
			_, err := w.sweep.List(t.Context(), s, maintenance.Query{Limit: 1})
			return err
		},
		"growth": func(s *policy.Subject) error { _, err := w.sweep.Growth(t.Context(), s); return err },
	}
	for role, may := range map[principal.Role]string{
		principal.Admin: "growth hold holds list sweep", principal.Auditor: "growth holds list", principal.User: "",
	} {
		var can []string
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			switch err := calls[name](subject(role)); {
			case err == nil:
				can = append(can, name)
			case fault.KindOf(err) != fault.Denied:
				t.Errorf("%s %s: %v", role, name, err)
			}
		}
		if got := strings.Join(can, " "); got != may {
			t.Errorf("%s may %q", role, got)
		}
	}
}

// TestHolds: what is held, by what; a hold that is over holds nothing.
func TestHolds(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	k := w.give(func(k *token.Token) { k.Competitions = []string{"iris"} })
	for subject, code := range map[string]string{
		"nobody": "subject_not_found", "user:iris": "subject_not_found", "iris-and-user": "subject_ambiguous", "tok_nothing": "token_not_found",
		"ann": "", "user:iris-and-user": "", "competition:iris-and-user": "", "iris": "", string(k.ID): "",
	} {
		h, err := w.sweep.AddHold(t.Context(), admin, maintenance.NewHold{Subject: subject, Reason: "x", Until: t0.Add(500 * day)})
		if err != nil && fault.CodeOf(err) != code || (err == nil) != (code == "") {
			t.Errorf("%s: %v", subject, err)
		}
		if err != nil {
			continue
		}
		held := maintenance.HeldAt([]maintenance.Hold{h}, w.clock.Now())
		if on := strings.HasPrefix(subject, "competition:"); held.Token(&k) == on {
			t.Errorf("a hold on %s holds the token: %v", subject, !on)
		}
		if maintenance.HeldAt([]maintenance.Hold{h}, t0.Add(500*day)).Any() {
			t.Errorf("a hold on %s is over and holds", subject)
		}
	}
	_, err := w.sweep.AddHold(t.Context(), admin, maintenance.NewHold{Subject: "ann", Reason: " "})
	storetest.WantCode(t, err, fault.Invalid, "reason_missing")
	w.clock.Add(400 * day)
	if r := w.run(false); r.Moved != 0 {
		t.Errorf("%+v", r)
	}
	w.clock.Add(100 * day)
	if r := w.run(false); r.Moved != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := w.sweep.RemoveHold(t.Context(), admin, "hold_none"); fault.CodeOf(err) != "hold_not_found" {
		t.Error(err)
	}
}

// TestStaleTable: a table that still knows what another node
// archived forgets it, and goes on.
func TestStaleTable(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	gone, k := w.give(nil), w.give(nil)
	w.clock.Add(100 * day)
	w.must(w.tokens.Archive(t.Context(), []maintenance.Move{storetest.ArchiveMove(gone)}, storetest.Event(audit.TokenArchive, "x")))
	w.table.Apply(authn.Change{Tokens: []token.Token{gone}})
	if r := w.run(false); r.Moved != 1 || !w.archived(k.ID) || w.table.Len() != 0 {
		t.Errorf("%+v, %d in memory", r, w.table.Len())
	}
}

// TestNoDatabaseNoSweep: trouble is said, and nothing is half done.
func TestNoDatabaseNoSweep(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	w.give(nil)
	w.clock.Add(100 * day)
	w.must(w.tokens.Close())
	_, err := w.sweep.Sweep(t.Context(), admin, false)
	if err == nil || errors.Is(err, context.Canceled) || w.table.Len() != 1 {
		t.Errorf("%v, %d in memory", err, w.table.Len())
	}
}
