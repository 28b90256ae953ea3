package authority

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// PolicyChange asks for the rules of a level.
type PolicyChange struct {
	Level string // "platform", or a group
	Rules policy.Rules
	// Since is when they come into force; zero: at once if they end no token
	// earlier than it would, and after PolicyLead otherwise.
	Since time.Time
	// Preview changes nothing and shows whom it would affect.
	Preview bool
	// Force accepts networks that would lock the one who sets them out.
	Force bool
}

// PolicyLead is how long people have before a stricter policy ends their tokens.
const PolicyLead = 14 * 24 * time.Hour

// Affected is a token that ends earlier under a change of policy.
type Affected struct {
	Token  token.Token
	Owner  principal.Principal
	Before token.Ending
	After  token.Ending
}

// mostAffected bounds how many tokens an answer lists.
const mostAffected = 1000

// PolicySet is what SetPolicy answers.
type PolicySet struct {
	Level policy.Level
	// Affected are the tokens that end earlier, the nearest first; Total is how
	// many there are, of which Affected lists mostAffected at most.
	Affected []Affected
	Total    int
}

// Policies lists the levels that were set, and what holds on the platform
// where nothing was.
func (a *Authority) Policies(ctx context.Context, s *policy.Subject) ([]policy.Level, policy.Rules, error) {
	if err := policy.Decide(s, policy.PolicyRead, policy.Resource{}); err != nil {
		return nil, policy.Rules{}, err
	}
	list, err := a.store.Levels(ctx)
	return list, a.table.Levels().Base, err
}

// SetPolicy replaces the rules of a level, or previews that. Lowering a policy
// ends nobody's token at once unless that is asked for.
func (a *Authority) SetPolicy(ctx context.Context, s *policy.Subject, c PolicyChange) (PolicySet, error) {
	if err := policy.Decide(s, policy.PolicyManage, policy.Resource{}); err != nil {
		return PolicySet{}, err
	}
	name, err := policy.LevelName(c.Level)
	if err != nil {
		return PolicySet{}, err
	}
	if err := c.Rules.Check(name); err != nil {
		return PolicySet{}, err
	}
	return retry(func() (PolicySet, error) {
		now := a.now()
		old, err := a.level(ctx, name)
		if err != nil {
			return PolicySet{}, err
		}
		is := policy.Level{Name: name}
		if old != nil {
			is = *old
		}
		since := c.Since
		if since.IsZero() {
			since = now
		}
		if !c.Force && locksOut(s, name, c.Rules) {
			return PolicySet{}, errLocksOut
		}
		base := policy.Rules{}
		if name == token.Platform {
			base = a.table.Levels().Base
		}
		set := is.Set(c.Rules, base, since, now)
		out := a.affected(set, now)
		if c.Since.IsZero() && out.Total > 0 {
			set = is.Set(c.Rules, base, now.Add(PolicyLead), now)
			out = a.affected(set, now)
		}
		if c.Preview {
			return out, nil
		}
		e := a.event(s, audit.PolicySet, now)
		e.Target = name
		e.Detail = map[string]string{"affected": strconv.Itoa(out.Total), "rules": set.Summary()}
		_, err = a.commit(ctx, s, Decision{Levels: []LevelChange{{Old: old, New: set}}}, e)
		return out, err
	})
}

// locksOut reports whether who sets the rules could not use them from where he
// is. The local administrator comes in by another way.
func locksOut(s *policy.Subject, level string, r policy.Rules) bool {
	group, isGroup := strings.CutPrefix(level, token.GroupLevel)
	if s.Local || len(r.Networks) == 0 || r.Observe || isGroup && !slices.Contains(s.Principal.Groups, group) {
		return false
	}
	addr := s.Addr.Unmap().WithZone("")
	return !slices.ContainsFunc(r.Networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

var errLocksOut = fault.New(fault.Conflict, "locks_you_out", "Your own address is in none of these networks: you would lock yourself out.").
	WithFix("Add your network (gradegate whoami shows your address), observe first (--observe), or say that you mean it: --force")

func (a *Authority) level(ctx context.Context, name string) (*policy.Level, error) {
	list, err := a.store.Levels(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i], nil
		}
	}
	return nil, nil
}

// affected compares the end of every living token under the levels as they are
// and with one of them replaced.
func (a *Authority) affected(set policy.Level, now time.Time) PolicySet {
	before := a.table.Levels()
	after := before
	after.Named = maps.Clone(before.Named)
	after.Named[set.Name] = set
	out := PolicySet{Level: set}
	type holders struct{ before, after token.Holder }
	known := map[principal.ID]*holders{}
	a.table.EachToken(func(t *token.Token, p *principal.Principal) {
		h := known[p.ID]
		if h == nil {
			now := a.table.Holder(*p)
			h = &holders{now, now}
			h.after.Terms = policy.Terms(after.For(p.Groups))
			known[p.ID] = h
		}
		past := a.table.History(t)
		state, was := t.Judge(&h.before, past, now)
		if state != token.StateActive {
			return
		}
		if is := t.Nearest(&h.after, past, now); is.Clock != "" && (was.Clock == "" || is.At.Before(was.At)) {
			out.Total++
			out.Affected = append(out.Affected, Affected{Token: *t, Owner: *p, Before: was, After: is})
		}
	})
	slices.SortFunc(out.Affected, func(x, y Affected) int {
		return cmp.Or(x.After.At.Compare(y.After.At), cmp.Compare(x.Token.ID, y.Token.ID))
	})
	out.Affected = out.Affected[:min(len(out.Affected), mostAffected)]
	return out
}
