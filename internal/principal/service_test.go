package principal

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gradegate/internal/fault"
)

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// B14: when a service lost its last owner is computed from the records of people
// alone. A history in which they join and leave the group, are suspended, resumed,
// off-boarded and re-enrolled, and in which owners are named and removed, gives at
// every step the same as somebody who watched it all along.
func TestOwnersAreDerived(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		people := make([]Principal, 4)
		for i := range people {
			people[i] = Principal{ID: ID(fmt.Sprint("usr_", i)), Version: 1, Kind: Human, Status: Active, CreatedAt: t0, ChangedAt: t0}
		}
		people[3].Kind = Service // counts for nothing
		s := Principal{ID: "usr_s", Version: 1, Name: "ci", Kind: Service, OwnedSince: t0}
		// The one who watched: since when nobody has answered.
		since := t0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(4*24*time.Hour)).Draw(t, "pass")))
			was := now
			i := rapid.IntRange(0, 3).Draw(t, "who")
			p := &people[i]
			before := answering(s, people)
			owned := false
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				groups := []string{"team"}
				*p, _ = p.Update(nil, nil, &groups, now)
			case 1:
				groups := []string{"other"}
				*p, _ = p.Update(nil, nil, &groups, now)
			case 2:
				if is, err := p.Suspend(now); err == nil {
					*p = is
				}
			case 3:
				if is, err := p.Resume(now); err == nil {
					*p = is
				}
			case 4:
				*p, _ = p.Offboard(false, now)
			case 5:
				*p = p.Reenrol(now)
			case 6: // nothing about owners, but a change all the same
				mail := fmt.Sprintf("a%d@example.org", p.Version)
				*p, _ = p.Update(nil, &mail, nil, now)
			case 7:
				owners, group := []ID{p.ID}, ""
				if rapid.Bool().Draw(t, "group") {
					owners, group = nil, "team"
				}
				version := s.Version
				s, _ = s.Own(owners, group, now)
				owned = s.Version != version
			}
			after := answering(s, people)
			switch {
			case after > 0:
				since = time.Time{}
			case before > 0 || since.IsZero() || owned:
				since = was
			}
			got := s.OwnedBy(people)
			if len(got.Active) != after {
				t.Fatalf("%d active owners, computed are %v", after, got.Active)
			}
			watched := Ownership{Since: since}
			dead := func(o Ownership) bool { return !o.Since.IsZero() && !now.Before(o.QuarantineAt()) }
			if dead(got) != dead(watched) || !dead(watched) && !got.Since.Equal(since) {
				t.Fatalf("at %v: computed %v, watched %v", now, got.Since, since)
			}
		}
	})
}

// answering counts, in the plainest way, who answers for a service.
func answering(s Principal, people []Principal) (n int) {
	for _, p := range people {
		named := slices.Contains(s.Owners, p.ID) || s.OwnerGroup != "" && slices.Contains(p.Groups, s.OwnerGroup)
		if p.Kind == Human && p.Status == Active && named {
			n++
		}
	}
	return n
}

// B12: a consent holds between these two, until it ends, and never again after
// the off-boarding of either, also once that one has come back.
func TestConsentHolds(t *testing.T) {
	ann, bob := Principal{ID: "usr_a", Kind: Human, Status: Active}, Principal{ID: "usr_b", Name: "bob", Kind: Human, Status: Active}
	c, err := Consenting("cns_1", ann, bob, 24*time.Hour, []string{"iris"}, t0)
	if err != nil {
		t.Fatal(err)
	}
	ended, changed := c.Withdraw(t0)
	if twice, again := ended.Withdraw(t0.Add(1)); !changed || again || twice.EndedAt != ended.EndedAt {
		t.Error("withdrawing twice changed something")
	}
	suspended, _ := ann.Suspend(t0)
	resumed, _ := suspended.Resume(t0)
	gone, _ := bob.Offboard(false, t0)
	end := t0.Add(24 * time.Hour)
	for name, x := range map[string]struct {
		c            Consent
		giver, taker Principal
		at           time.Time
		want         bool
	}{
		"holds":               {c, ann, bob, t0, true},
		"to its last instant": {c, ann, bob, end.Add(-1), true},
		"at its end":          {c, ann, bob, end, false},
		"withdrawn":           {ended, ann, bob, t0, false},
		"the other way round": {c, bob, ann, t0, false},
		"giver suspended":     {c, suspended, bob, t0, false},
		"giver resumed":       {c, resumed, bob, t0, true},
		"taker off-boarded":   {c, ann, gone, t0, false},
		"taker is back":       {c, ann, gone.Reenrol(t0), t0, false},
		"recovered":           {c.Tighten(ended), ann, bob, t0, false},
		"not widened":         {ended.Tighten(c), ann, bob, t0, false},
	} {
		if got := x.c.Holds(&x.giver, &x.taker, x.at); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !c.Covers("iris") || c.Covers("mnist") || !(Consent{}).Covers("mnist") {
		t.Error("competitions")
	}
	service := ann
	service.Kind = Service
	for code, bad := range map[string]func() error{
		"consent_self":    func() error { _, err := Consenting("", ann, ann, 0, nil, t0); return err },
		"consent_service": func() error { _, err := Consenting("", service, bob, 0, nil, t0); return err },
		"user_inactive":   func() error { _, err := Consenting("", ann, gone, 0, nil, t0); return err },
		"consent_span":    func() error { _, err := Consenting("", ann, bob, ConsentMax+1, nil, t0); return err },
	} {
		if err := bad(); fault.CodeOf(err) != code {
			t.Errorf("%s: %v", code, err)
		}
	}
	if c, err := Consenting("", ann, bob, 0, nil, t0); err != nil || !c.Until.Equal(t0.Add(ConsentLifetime)) {
		t.Errorf("%+v %v", c, err)
	}
}
