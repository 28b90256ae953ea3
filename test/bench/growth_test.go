package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/store"
	"gradegate/internal/token"
	"gradegate/test/bench/figures"
	"gradegate/test/bench/fill"
)

// cache is where filled installations lie, for the next benchmark of the run.
const cache = "../../.cache/growth"

// sizes are how many tokens the compared installations hold. SIZES sets others.
func sizes(b *testing.B) (out []int) {
	b.Helper()
	text, ok := os.LookupEnv("SIZES")
	if !ok {
		return []int{10_000, 100_000, 1_000_000}
	}
	for _, s := range strings.Split(text, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// filled is an installation of n tokens. Making one of a million takes minutes.
func filled(b *testing.B, n int) fill.Home {
	b.Helper()
	h, err := fill.Make(b.Context(), filepath.Join(cache, strconv.Itoa(n)), n)
	if err != nil {
		b.Fatal(err)
	}
	return h
}

// node is one installation that is open: its store, the table in memory, and
// the use cases over both.
type node struct {
	fill.Home
	table   *authn.Table
	store   *store.Tokens
	keys    *keys.Ring
	use     *authority.Authority
	workers []*policy.Subject   // ordinary users, each signed in
	crowd   principal.Principal // owns a tenth of all tokens
	leavers []string            // who may leave
	issued  []made              // and not revoked since
	turn    int
}

// made is a token that one of the workers has.
type made struct {
	by *policy.Subject
	id token.ID
}

var here = netip.MustParseAddr("192.0.2.7")

func open(b *testing.B, h fill.Home) *node {
	b.Helper()
	ctx := b.Context()
	n := &node{Home: h}
	cfg, err := h.Config()
	must(b, err)
	cfg.Clock, cfg.Log = clock.New(clock.Wall, time.Time{}), slog.New(slog.DiscardHandler)
	n.table = authn.New(cfg.Clock.Now, 0, policy.Rules{Terms: token.PlatformTerms(), MaxPersonal: 1 << 30})
	cfg.Follow, cfg.Memory = n.table.Apply, n.table
	n.keys = cfg.Keys
	n.store, err = store.OpenTokens(ctx, cfg)
	must(b, err)
	b.Cleanup(func() { _ = n.store.Close() })
	must(b, n.store.Uses(ctx, func(u authn.LastUse) error { n.table.ApplyUse(u); return nil }))
	n.use = authority.New(n.store, n.table, cfg.Keys, cfg.Clock.Now)
	for i := range workers {
		s, err := n.signIn(ctx, fill.User(i))
		must(b, err)
		n.workers = append(n.workers, s)
	}
	for i := range 100 {
		p, err := n.use.CreateUser(ctx, admin, authority.NewUser{Name: strings.ToLower(fmt.Sprintf("l%d-%s", i, authority.SortableID(time.Now())))}, authority.Idem{})
		must(b, err)
		n.leavers = append(n.leavers, p.Name)
	}
	n.crowd, err = n.store.PrincipalByName(ctx, fill.Crowd)
	must(b, err)
	return n
}

func must(b *testing.B, err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

// signIn gives a user a session, as redeeming an invite would.
func (n *node) signIn(ctx context.Context, name string) (*policy.Subject, error) {
	p, err := n.store.PrincipalByName(ctx, name)
	if err != nil {
		return nil, err
	}
	shown, now := token.NewSecret(token.Session).Presented(), time.Now().UTC().Truncate(time.Microsecond)
	k := token.Token{
		ID: shown.Public.ID(), Version: 1, Kind: token.Session, Digest: shown.Digest, Name: "bench", Owner: p.ID, Epochs: p.Epochs,
		Scopes: policy.UserScopes, Standing: token.Standard, Family: token.Family("fam_" + authority.SortableID(now)), Generation: 1,
		IssuedAt: now, IssuedBy: string(p.ID), BornAt: now, Renewal: token.Fixed, Lifetime: token.SessionLifetime, FixedEnd: now.Add(token.SessionLifetime),
	}
	e := audit.Event{ID: "evt_" + authority.SortableID(now), At: now, Action: audit.TokenIssue, Outcome: audit.Done, Actor: "system"}
	if _, err := n.store.Commit(ctx, authority.Decision{Tokens: []authority.TokenChange{{New: k}}}, e); err != nil {
		return nil, err
	}
	s, _, err := n.table.Authenticate(shown, here)
	return &s, err
}

// worker is one of the users who are signed in, each in turn.
func (n *node) worker() *policy.Subject {
	n.turn++
	return n.workers[n.turn%len(n.workers)]
}

// someone is the name of an ordinary user who is not signed in.
func (n *node) someone() string { return fill.User(workers + rand.IntN(n.Users-workers)) }

// workers is how many users are signed in.
const workers = 50

// admin is the administrator at the server's own socket.
var admin = &policy.Subject{Local: true, Principal: principal.Principal{Role: principal.Admin}}

// page is how many items a list shows.
const page = 100

// act is something whose cost must not grow with the number of tokens.
type act struct {
	name  string
	times int // in one round
	do    func(ctx context.Context, n *node) error
}

var acts = []act{
	{"verify a token", 20_000, func(_ context.Context, n *node) error {
		_, _, err := n.table.Authenticate(n.Secrets[rand.IntN(len(n.Secrets))].Presented(), here)
		return err
	}},
	{"issue", 20, func(ctx context.Context, n *node) error {
		s := n.worker()
		out, err := n.use.CreateToken(ctx, s, authority.Create{Name: "b" + authority.SortableID(time.Now())}, authority.Idem{})
		n.issued = append(n.issued, made{s, out.Token.ID})
		return err
	}},
	{"rotate", 20, func(ctx context.Context, n *node) error {
		m := n.issued[0]
		out, err := n.use.RotateToken(ctx, m.by, authority.Rotate{Token: string(m.id)}, authority.Idem{})
		n.issued = append(n.issued[1:], made{m.by, out.Token.ID})
		return err
	}},
	{"list a user's tokens", 40, func(ctx context.Context, n *node) error {
		p, err := n.use.User(ctx, admin, n.someone())
		if err != nil {
			return err
		}
		return n.list(ctx, p.ID, "")
	}},
	{"list, of a user who owns a tenth", 20, func(ctx context.Context, n *node) error {
		return n.list(ctx, n.crowd.ID, "")
	}},
	{"list users", 20, func(ctx context.Context, n *node) error {
		p, err := n.use.User(ctx, admin, n.someone())
		if err == nil {
			_, err = n.use.Users(ctx, admin, p.ID, page)
		}
		return err
	}},
	{"find a user by name", 200, func(ctx context.Context, n *node) error {
		_, err := n.use.User(ctx, admin, n.someone())
		return err
	}},
	{"find a token by id", 200, func(ctx context.Context, n *node) error {
		_, err := n.use.Find(ctx, admin, string(n.Secrets[rand.IntN(len(n.Secrets))].Presented().Public.ID()))
		return err
	}},
	{"revoke a token", 20, func(ctx context.Context, n *node) error {
		m := n.issued[0]
		n.issued = n.issued[1:]
		_, err := n.use.Revoke(ctx, m.by, string(m.id), "", token.Keep)
		return err
	}},
	{"revoke-all", 20, func(ctx context.Context, n *node) error {
		_, err := n.use.RevokeAll(ctx, admin, n.someone(), false)
		return err
	}},
	{"revoke-all, of a user who owns a tenth", 20, func(ctx context.Context, n *node) error {
		_, err := n.use.RevokeAll(ctx, admin, fill.Crowd, false)
		return err
	}},
	{"off-board", 10, func(ctx context.Context, n *node) error {
		n.turn++
		_, err := n.use.Offboard(ctx, admin, n.leavers[n.turn%len(n.leavers)], n.turn%2 == 0)
		return err
	}},
	{"import a thousand tokens", 1, func(ctx context.Context, n *node) error { return n.end(ctx) }},
	{"sweep a thousand, in five batches", 1, func(ctx context.Context, n *node) error { return n.sweep(ctx) }},
}

// list is a page as it is shown.
func (n *node) list(ctx context.Context, owner principal.ID, after token.ID) error {
	list, err := n.use.Tokens(ctx, admin, owner, after, page)
	if err == nil {
		_, err = n.use.Views(ctx, list)
	}
	return err
}

// BenchmarkGrowth prints what things cost beside ten thousand, a hundred
// thousand and a million tokens, and leaves it for make plot.
func BenchmarkGrowth(b *testing.B) {
	var nodes []*node
	for _, n := range sizes(b) {
		nodes = append(nodes, open(b, filled(b, n)))
	}
	micros := make([][][]float64, len(acts)) // by act and size, one for each round
	for i := range acts {
		micros[i] = make([][]float64, len(nodes))
	}
	for b.Loop() {
		for range rounds {
			for i, a := range acts {
				runtime.GC() // what one size leaves behind is not the next one's
				for j, n := range nodes {
					micros[i][j] = append(micros[i][j], a.cost(b, n))
				}
			}
		}
	}
	var out []figures.Growth
	fmt.Printf("\n%-40s", "CPU µs, and ÷ the first (least–most)")
	for _, n := range nodes {
		fmt.Printf("%26d", n.Home.Tokens)
	}
	fmt.Println(" tokens")
	for i, a := range acts {
		g := figures.Growth{Name: a.name}
		fmt.Printf("%-40s", a.name)
		for j, n := range nodes {
			g.Points = append(g.Points, point(n.Home.Tokens, micros[i][j], micros[i][0]))
			fmt.Printf("%26s", fmt.Sprintf("%.1f  %s", median(micros[i][j]), ratio(micros[i][j], micros[i][0])))
		}
		fmt.Println()
		out = append(out, g)
	}
	must(b, keep(out))
}

// cost is the mean processor time of an act in one round, in microseconds: that
// of the whole process, what goes on behind it included. The time that a disk
// takes to sync has nothing to do with the number of tokens.
func (a *act) cost(b *testing.B, n *node) float64 {
	b.Helper()
	before := ownCPU(b)
	for range a.times {
		if err := a.do(b.Context(), n); err != nil {
			b.Fatal(a.name, err)
		}
	}
	return float64((ownCPU(b) - before).Nanoseconds()) / 1000 / float64(a.times)
}

// ownCPU is the processor time that this process has used.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func point(tokens int, v, base []float64) figures.Point {
	r := make([]float64, len(v))
	for i := range v {
		r[i] = v[i] / base[i]
	}
	return figures.Point{Tokens: tokens, Micros: median(v), Ratio: median(r), Least: slices.Min(r), Most: slices.Max(r)}
}

func keep(all []figures.Growth) error {
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(cache, "figures.json"), append(text, '\n'), 0o600)
}
