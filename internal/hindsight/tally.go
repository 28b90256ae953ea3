package hindsight

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Tally is what a rehearsal has counted.
type Tally struct {
	Decisions int // that were allowed, from the instant on
	Judged    int
	NotJudged map[string]int // why: how many
	Refused   int            // of those that were judged
	Marked    int            // by a level that only observes

	rules   map[Rule]*Count
	tokens  map[token.ID]*Hit
	addrs   map[string]int
	Without int // refused uses of tokens, or from addresses, beyond what is listed
}

// Rule is a demand of a level.
type Rule struct{ Name, Level string }

// Count is what a rule would have refused.
type Count struct {
	Rule
	Uses, Submits int
	Tokens        int
	People        int
	First, Last   time.Time
}

// Hit is a token of which uses would have been refused.
type Hit struct {
	token.Token
	Owner         principal.Principal
	Rules         []Rule
	Uses, Submits int
	Addrs         []string // some of them
	Requests      []string // of submits, some of them
	First, Last   time.Time
}

// Bounds of the memory: what is beyond is counted only.
const (
	mostHits    = 100_000
	mostOrigins = 10_000
	mostOfHit   = 20
)

func newTally() Tally {
	return Tally{NotJudged: map[string]int{}, rules: map[Rule]*Count{}, tokens: map[token.ID]*Hit{}, addrs: map[string]int{}}
}

func (t *Tally) add(u *tried, submit bool) {
	if u.unknown != "" {
		t.NotJudged[u.unknown]++
		return
	}
	t.Judged++
	switch {
	case !u.refused && u.rule != "":
		t.Marked++
		return
	case !u.refused:
		return
	}
	t.Refused++
	rule := Rule{u.rule, u.level}
	c := t.rules[rule]
	if c == nil {
		c = &Count{Rule: rule, First: u.At}
		t.rules[rule] = c
	}
	c.Uses++
	c.First, c.Last = earliest(c.First, u.At), latest(c.Last, u.At)
	if submit {
		c.Submits++
	}
	t.origin(u.Addr)
	h := t.tokens[u.token.ID]
	if h == nil {
		if len(t.tokens) >= mostHits {
			t.Without++
			return
		}
		h = &Hit{Token: u.token.Token, Owner: u.token.owner.Principal, First: u.At}
		t.tokens[h.ID] = h
	}
	h.Uses++
	h.First, h.Last = earliest(h.First, u.At), latest(h.Last, u.At)
	h.Rules = keep(h.Rules, rule)
	if u.Addr != "" { // unknown
		h.Addrs = keep(h.Addrs, u.Addr)
	}
	if submit {
		h.Submits++
		h.Requests = keep(h.Requests, u.Request)
	}
}

func (t *Tally) origin(addr string) {
	if _, known := t.addrs[addr]; known || len(t.addrs) < mostOrigins {
		t.addrs[addr]++
	}
}

// keep adds what is not there yet, if there is room.
func keep[T comparable](list []T, v T) []T {
	if len(list) >= mostOfHit || slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}

// Rules are the rules that would have refused something, the loudest first.
func (t *Tally) Rules() []Count {
	tokens, people := map[Rule]int{}, map[Rule]map[principal.ID]bool{}
	for _, h := range t.tokens {
		for _, r := range h.Rules {
			tokens[r]++
			if people[r] == nil {
				people[r] = map[principal.ID]bool{}
			}
			people[r][h.Owner.ID] = true
		}
	}
	var out []Count
	for r, c := range t.rules {
		is := *c
		is.Tokens, is.People = tokens[r], len(people[r])
		out = append(out, is)
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Uses, a.Uses), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Level, b.Level))
	})
	return out
}

// Hits are the tokens that would have been refused, the most used first.
func (t *Tally) Hits() []Hit {
	var out []Hit
	for _, h := range t.tokens {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b Hit) int { return cmp.Or(cmp.Compare(b.Uses, a.Uses), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Origin is an address with how many refused uses came from it.
type Origin struct {
	Addr string
	Uses int
}

// Origins are the addresses of refused uses, the loudest first.
func (t *Tally) Origins() []Origin {
	var out []Origin
	for _, a := range slices.Sorted(maps.Keys(t.addrs)) {
		out = append(out, Origin{a, t.addrs[a]})
	}
	slices.SortStableFunc(out, func(a, b Origin) int { return cmp.Compare(b.Uses, a.Uses) })
	return out
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
