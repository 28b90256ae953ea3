package hindsight

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Needs says which rights a use may have needed, as far as its line tells.
type Needs struct {
	Actions []policy.Action
	// Wide: it handed rights on, and which ones is not known.
	Wide bool
	// Contest: it is about a competition, that of the line or of the job in it.
	Contest bool
	Unknown bool // nothing is known of such a use
}

// Habits are what tokens were used for. A use of a token counts for its whole
// family, since a successor takes its place, and for what it was made from, since
// a child has no more than that.
type Habits struct {
	table Table
	needs func(*audit.Event) Needs
	only  map[token.Family]bool // nil: all
	lines map[token.ID][]token.Family
	of    map[token.Family]*Habit
	// announced are uses that may have been refused after all, by a line that follows.
	announced []audit.Event
}

// Habit is what the tokens of one family were used for.
type Habit struct {
	Uses        int
	First, Last time.Time
	Scopes      map[string]int
	Contests    map[string]int
	Jobs        map[string]bool // whose competition is still to be found
	Networks    map[netip.Prefix]int
	addrs       map[netip.Addr]bool
	Wide        int // uses that handed rights on
	Unknown     int // uses of which nothing is known
	Vague       int // uses about a competition that is not known
	Nowhere     int // uses from an unknown address
	TooMany     bool
}

// mostKinds bounds what is remembered of one family: jobs and addresses.
const mostKinds = 500

// NewHabits begins to collect those of some families, or of all if only is nil.
func NewHabits(t Table, needs func(*audit.Event) Needs, only map[token.Family]bool) *Habits {
	return &Habits{table: t, needs: needs, only: only, lines: map[token.ID][]token.Family{}, of: map[token.Family]*Habit{}}
}

// Of is what is known of a family; never nil.
func (h *Habits) Of(f token.Family) *Habit {
	h.settle(time.Time{}, 0)
	if is := h.of[f]; is != nil {
		return is
	}
	return newHabit()
}

func newHabit() *Habit {
	return &Habit{
		Scopes: map[string]int{}, Contests: map[string]int{}, Jobs: map[string]bool{}, Networks: map[netip.Prefix]int{}, addrs: map[netip.Addr]bool{},
	}
}

// Note takes the next line of the trail's uses. What was refused because it was
// not allowed to the token is no use, also if it had been announced.
func (h *Habits) Note(e *audit.Event) {
	switch {
	case e.Action != audit.Request || e.Token == "" || e.Mode == policy.ModeReplay || e.Mode == policy.ModeEnded:
	case e.Outcome == audit.Deny && e.Status == 403:
		h.announced = slices.DeleteFunc(h.announced, func(a audit.Event) bool { return a.Request == e.Request && a.Token == e.Token })
	case e.Outcome == audit.Allow && e.Status == 0:
		h.settle(e.At.Add(-patience), mostTried)
		h.announced = append(h.announced, *e)
	case e.Outcome == audit.Allow:
		h.count(e)
	}
}

// settle counts what is older, and what is too many.
func (h *Habits) settle(before time.Time, most int) {
	n := 0
	for n < len(h.announced) && (len(h.announced)-n > most || h.announced[n].At.Before(before)) {
		h.count(&h.announced[n])
		n++
	}
	if n == 0 {
		return
	}
	h.announced = append(h.announced[:0], h.announced[n:]...)
}

func (h *Habits) count(e *audit.Event) {
	for _, f := range h.line(token.ID(e.Token)) {
		if h.only != nil && !h.only[f] {
			continue
		}
		is := h.of[f]
		if is == nil {
			is = newHabit()
			is.First = e.At
			h.of[f] = is
		}
		h.add(is, e)
	}
}

// line are the families of a token and of what it was made from.
func (h *Habits) line(id token.ID) []token.Family {
	if l, ok := h.lines[id]; ok {
		return l
	}
	var out []token.Family
	for next := id; next != "" && len(out) <= mostParents; {
		k, ok := h.table.Token(next)
		if !ok {
			break
		}
		out = append(out, k.Family)
		next = k.Parent
	}
	h.lines[id] = out
	return out
}

func (h *Habits) add(is *Habit, e *audit.Event) {
	is.Uses++
	is.First, is.Last = earliest(is.First, e.At), latest(is.Last, e.At)
	n := h.needs(e)
	if n.Wide {
		is.Wide++
	}
	if n.Unknown {
		is.Unknown++
	}
	k, _ := h.table.Token(token.ID(e.Token))
	owner, _ := h.table.Principal(k.Owner)
	for _, a := range n.Actions {
		for _, s := range policy.MayNeed(a, owner.Role) {
			is.Scopes[s]++
		}
	}
	switch {
	case !n.Contest:
	case e.Competition != "":
		is.Contests[e.Competition]++
	case strings.HasPrefix(e.Target, "job_") && len(is.Jobs) < mostKinds:
		is.Jobs[e.Target] = true
	default:
		is.Vague++
	}
	addr, err := netip.ParseAddr(e.Addr)
	switch {
	case err != nil:
		is.Nowhere++
	case len(is.addrs) >= mostKinds && !is.addrs[addr]:
		is.TooMany = true
	default:
		is.addrs[addr] = true
		is.Networks[around(addr)]++
	}
}

// around is the network that is advised for an address: machines move in theirs.
func around(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 24
	}
	p, _ := addr.Prefix(bits) // within the length of its family
	return p
}

// Advice is what a token could do without.
type Advice struct {
	// What it is to keep; nil: nothing can be taken away, or nothing is advised.
	Scopes, Competitions []string
	Networks             []netip.Prefix
	// Untold is why a right is not advised about.
	Untold []string
}

// Spare is roughly how much could be taken away, for a list that begins with what
// is worth most.
func (h *Habit) Spare(k *token.Token) int {
	if h.Uses == 0 {
		return 100 + len(k.Scopes)
	}
	n := 0
	for _, s := range k.Scopes {
		if h.Scopes[s] == 0 {
			n++
		}
	}
	return n
}

// Nothing reports whether there is nothing to take away.
func (a *Advice) Nothing() bool {
	return a.Scopes == nil && a.Competitions == nil && a.Networks == nil
}

// Advise says what of a token's rights was not used. Everything that was, and all
// that may have been, is kept. contest finds the competition of a job.
func (h *Habit) Advise(k *token.Token, contest func(job string) string) (a Advice) {
	if h.Uses == 0 {
		return Advice{Untold: []string{"it was not used"}}
	}
	if h.Wide > 0 {
		return Advice{Untold: []string{"it made other tokens, and which rights they need is not known"}}
	}
	a.scopes(h, k)
	a.contests(h, k, contest)
	a.networks(h, k)
	return a
}

func (a *Advice) scopes(h *Habit, k *token.Token) {
	var keep []string
	for _, s := range k.Scopes {
		if h.Scopes[s] > 0 {
			keep = append(keep, s)
		}
	}
	switch {
	case h.Unknown > 0:
		a.Untold = append(a.Untold, "scopes: it was used for what this version does not know")
	case len(keep) == 0:
		a.Untold = append(a.Untold, "scopes: it used none, and a token without scopes is no token")
	case len(keep) < len(k.Scopes):
		a.Scopes = keep
	}
}

func (a *Advice) contests(h *Habit, k *token.Token, contest func(string) string) {
	used, vague := map[string]bool{}, h.Vague > 0 || h.Unknown > 0
	for c := range h.Contests {
		used[c] = true
	}
	for job := range h.Jobs {
		c := contest(job)
		used[c], vague = true, vague || c == ""
	}
	var keep []string
	for c := range used {
		if len(k.Competitions) == 0 || slices.Contains(k.Competitions, c) {
			keep = append(keep, c)
		}
	}
	slices.Sort(keep)
	switch {
	case vague:
		a.Untold = append(a.Untold, "competitions: it was used for one that is not known any more")
	case len(keep) == 0: // it has nothing to do with any
	case len(keep) > mostContests:
		a.Untold = append(a.Untold, "competitions: it was used for too many")
	case len(k.Competitions) == 0 || len(keep) < len(k.Competitions):
		a.Competitions = keep
	}
}

const (
	mostContests = 50
	mostNetworks = 50 // of one token (R2.2)
)

func (a *Advice) networks(h *Habit, k *token.Token) {
	if h.Nowhere > 0 || h.TooMany {
		a.Untold = append(a.Untold, "networks: it was used from too many addresses, or from an unknown one")
		return
	}
	var list []netip.Prefix
	for addr := range h.addrs {
		p := around(addr)
		if len(k.CIDRs) > 0 {
			p = inside(p, addr, k.CIDRs)
		}
		if p.IsValid() && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	had := slices.Clone(k.CIDRs)
	slices.SortFunc(list, netip.Prefix.Compare)
	slices.SortFunc(had, netip.Prefix.Compare)
	switch {
	case len(list) > mostNetworks:
		a.Untold = append(a.Untold, "networks: it was used from too many")
	case len(list) > 0 && !slices.Equal(list, had):
		a.Networks = list
	}
}

// inside is the network around an address, but not more than what the token is
// limited to.
func inside(p netip.Prefix, addr netip.Addr, granted []netip.Prefix) (best netip.Prefix) {
	for _, g := range granted {
		if !g.Contains(addr.Unmap().WithZone("")) {
			continue
		}
		if g.Bits() <= p.Bits() {
			return p
		}
		best = g
	}
	return best
}
