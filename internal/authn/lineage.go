package authn

import (
	"net/netip"
	"slices"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// lineage is what a child token has of its parents at one moment. A child is
// never more than what it was made from: when the parent ends, so does it; what
// the parent loses, it loses.
type lineage struct {
	alive        bool
	scopes       []string
	competitions []string // empty: all of the owner's
}

// mostParents bounds the walk: a child is made of a child of a child, and that
// is enough.
const mostParents = 4

// judge is what a token is at now, its parents included, its nearest end, and
// what it may do. Without an address nobody asks where it is used from.
func (t *Table) judge(k *token.Token, last int64, h *token.Holder, addr *netip.Addr, now time.Time) (token.State, token.Ending, lineage) {
	state, end := k.Judge(h, t.history(k, last), now)
	rights := lineage{alive: true, scopes: k.Scopes, competitions: t.Reach(k.Competitions)}
	if k.Parent != "" && (state == token.StateActive || state == token.StateQuarantined) {
		if rights, end = t.under(k, h, addr, end, now); !rights.alive {
			state = token.StateParentEnded
		}
	}
	return state, end, rights
}

// Judge is what a token is at now for its owner, its parents included, and its
// nearest end.
func (t *Table) Judge(k *token.Token, owner *principal.Principal, now time.Time) (token.State, token.Ending) {
	h := t.Holder(*owner)
	last, ok := t.lastUsed(k.ID)
	if !ok {
		return k.Judge(&h, token.History{}, now)
	}
	state, end, _ := t.judge(k, last, &h, nil, now)
	return state, end
}

// line goes from a token up to what it was made from.
func (t *Table) line(id token.ID, do func(*token.Token)) {
	for generation := 0; id != "" && generation <= mostParents; generation++ {
		var h held
		if !t.find(publicOf(id), &h) {
			return
		}
		do(&h.Token)
		id = h.Parent
	}
}

// Bounds are the budgets that bear at this moment on what is taken with a token:
// those of its owner, of the policies, and of the token and its parents.
func (t *Table) Bounds(id principal.ID, via token.ID) []budget.Bound {
	p, ok := t.Principal(id)
	if !ok {
		return []budget.Bound{{Account: string(id), Level: budget.UserLevel, Budget: budget.Nothing}} // doubt tightens
	}
	var line []token.Token
	for generation := 0; via != "" && generation <= mostParents; generation++ {
		k, ok := t.Token(via) // whole: use is booked under its family
		if !ok {
			break
		}
		line, via = append(line, k), k.Parent
	}
	return policy.Bounds(t.Rules(p.Groups), &p, line, t.now())
}

// under judges the parents of a token at now, and gives what is left of its
// rights and the nearest of all their ends. Scopes and competitions are copied
// only when a parent has lost some of them.
func (t *Table) under(k *token.Token, h *token.Holder, addr *netip.Addr, end token.Ending, now time.Time) (lineage, token.Ending) {
	l := lineage{scopes: k.Scopes, competitions: t.Reach(k.Competitions)}
	parent := k.Parent
	for range mostParents {
		var p held
		if !t.find(publicOf(parent), &p) || p.Owner != k.Owner {
			return l, end
		}
		state, its := p.Judge(h, t.history(&p.Token, p.last), now)
		if state != token.StateActive || addr != nil && len(p.Networks()) > 0 && !policy.Within(p.CIDRs, *addr) {
			return l, end
		}
		l.scopes = common(l.scopes, p.Scopes)
		switch {
		case len(p.Competitions) == 0:
		case len(l.competitions) == 0:
			l.competitions = t.Reach(p.Competitions)
		default:
			if l.competitions = common(l.competitions, t.Reach(p.Competitions)); len(l.competitions) == 0 {
				return l, end // none in common must not turn into all
			}
		}
		if !its.At.IsZero() && (end.At.IsZero() || its.At.Before(end.At)) {
			end = its
		}
		if p.Parent == "" {
			l.alive = true
			return l, end
		}
		parent = p.Parent
	}
	return l, end
}

// common is what of a is in b: a itself if that is all of it.
func common(a, b []string) []string {
	all := true
	for _, x := range a {
		all = all && slices.Contains(b, x)
	}
	if all {
		return a
	}
	var out []string
	for _, x := range a {
		if slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}
