package life

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gradegate/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// sequences is how many histories a test goes through: what the environment
// says, or a number that CI can afford.
func sequences(t *testing.T, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("SEQUENCES"))
	if err != nil || n < 1 {
		n = int(float64(otherwise) * share)
	}
	return n
}

// Model and service give the same answers through the same histories, and
// agree about every token after every step. On SQLite.
func TestLife(t *testing.T) { check(t, "", sequences(t, 150)) }

// The same on PostgreSQL.
func TestLifePostgres(t *testing.T) { check(t, "postgres", sequences(t, 30)) }

// perHouse is how many histories one store serves: what is older slows a start.
const perHouse = 40

func check(t *testing.T, engine string, n int) {
	// A failure names the seed. It is enough to repeat the history, alone.
	must(t, flag.Set("rapid.checks", strconv.Itoa(n)))
	must(t, flag.Set("rapid.steps", "60"))
	var h *House
	met := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if h == nil || h.sequences >= perHouse {
			if h != nil {
				h.Close()
			}
			url := ""
			if engine == "postgres" {
				url = storetest.PostgresURL(t)
			}
			h = Build(t, url)
		}
		d := newDriver(rt, h)
		d.met = met
		d.settle()
		rt.Repeat(d.actions())
		d.end()
	})
	if h != nil {
		h.Close()
	}
	for _, what := range slices.Sorted(maps.Keys(met)) {
		t.Logf("%6d %s", met[what], what)
	}
	for _, what := range worthwhile {
		if n >= 150 && met[what] == 0 && !t.Failed() {
			t.Errorf("no history has met %q: the histories are worth less than they should be", what)
		}
	}
}

// worthwhile is what 150 histories meet at least ten times, as a rule.
var worthwhile = []string{
	"create: sessions_only", "create: token_limit", "create: name_taken", "create: scope_widened",
	"rotate: already_rotated", "rotate: token_reused", "resume: suspended_by_admin", "resume: done",
	"use: token_rotated", "use: token_idle_expired", "use: token_suspended", "use: token_revoked",
	"job-read late: done", "job-cancel late: done",
	"mint: done", "mint: not_an_owner", "mint: service_not_found", "owners: done", "use quarantined: service_ownerless",
	"handle-read: done", "handle-read: token_revoked", "redeem: invite_invalid",
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// driver goes through one history on both sides.
type driver struct {
	rt      *rapid.T
	model   *Model
	world   *World
	from    time.Time
	truth   time.Time // what has passed since, whatever a clock says
	setBack bool
	keyed   []Op // requests with an Idempotency-Key, which may come again
	keys    int
	met     map[string]int // how often each op was answered how
}

// longest is how long a history lasts.
const longest = 60 * day

func newDriver(rt *rapid.T, h *House) *driver {
	d := &driver{rt: rt, world: h.World(2)}
	d.from = d.world.clock.Now()
	d.truth, d.model = d.from, NewModel(d.from, 2)
	d.world.AddService()
	d.model.addService()
	return d
}

// do does one op on both sides and compares the answers.
func (d *driver) do(o Op) Answer {
	d.rt.Helper()
	before, mode := d.model.now(), ""
	if o.By >= 0 {
		if h, code := d.model.enter(o.By); code == "" && h.mode != "" {
			mode = " " + h.mode
		}
	}
	want := d.model.Do(o)
	got := d.world.Do(o)
	d.rt.Logf("%-12s %s -> %s", shown(before, d.from), o, want)
	d.moved(o, before)
	d.met[o.Do+mode+": "+cmp.Or(want.Code, "done")]++
	if got != want && !(strings.HasPrefix(o.Do, "handle") && d.forgotten(o.Job, got.Code, want.Code)) {
		d.rt.Fatalf("%s\n answered %s,\n want     %s", o, got, want)
	}
	return got
}

// moved takes over the instant that the service decides on, if it is sane: it
// never runs backwards, also not over a restart, and never ahead of what has
// passed; it falls behind only if somebody has set the machine's clock back.
func (d *driver) moved(o Op, before time.Time) {
	switch o.Do {
	case "pass":
		d.truth = d.truth.Add(o.Span)
	case "set-back":
		d.setBack = true
	}
	now := d.world.clock.Now()
	if now.Before(before) || now.After(d.truth) || !d.setBack && !now.Equal(d.truth) {
		d.rt.Fatalf("%s: the clock went from %s to %s, and it is %s", o, shown(before, d.from), shown(now, d.from), shown(d.truth, d.from))
	}
	d.model.at = now
}

// agree compares everything that can be seen.
func (d *driver) agree(*rapid.T) {
	d.rt.Helper()
	for slot, c := range d.model.tokens {
		state, first := d.model.state(c)
		want := Seen{State: state, End: first}
		h, code := d.model.enter(slot)
		if want.Enter = code; code == "" {
			want.Mode = map[string]string{"": "", "late": "expired-read", "quarantined": "quarantined"}[h.mode]
		}
		if got := d.world.See(slot); got != want {
			d.rt.Fatalf("at %s: token %d (%s) is\n %s,\n want\n %s", shown(d.model.now(), d.from), slot, c.kind, got.text(d.from), want.text(d.from))
		}
		if got := d.world.Scopes(slot); !slices.Equal(got, sorted(c.scopes)) {
			d.rt.Fatalf("token %d may %v, want %v", slot, got, c.scopes)
		}
	}
	for i, j := range d.model.jobs {
		if got, want := d.world.SeeHandle(i), d.model.enterHandle(j); got != want && !d.forgotten(i, got, want) {
			d.rt.Fatalf("at %s: the handle of job %d: %q, want %q", shown(d.model.now(), d.from), i, got, want)
		}
	}
}

// end is after a history: what is in memory is what the database has.
func (d *driver) end() {
	if err := d.world.Stored(); err != nil {
		d.rt.Fatal(err)
	}
}

// forgotten: a handle whose week is over is refused, and the service may have
// forgotten why.
func (d *driver) forgotten(job int, got, want string) bool {
	j := d.model.jobs[job]
	return got == "token_unknown" && want != "" && !j.ended.IsZero() && !d.model.now().Before(j.ended.Add(7*day))
}

func sorted(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return out
}

func (a Answer) String() string {
	switch {
	case a.Code != "":
		return a.Code
	case a.Made != never:
		return fmt.Sprintf("done, made %d", a.Made)
	}
	return strings.TrimSpace("done " + a.Note)
}

func (s Seen) text(from time.Time) string {
	return strings.Join([]string{s.State, "ends", shown(s.End.at, from), "by", s.End.clock, "of", s.End.level, "entering:", s.Enter + s.Mode}, " ")
}
