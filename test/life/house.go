package life

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/bundle"
	"gradegate/internal/clock"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/store"
	"gradegate/internal/token"
)

// House is the real service from the use cases down, joined as internal/server
// joins it, on a clock of its own. It can be stopped and started.
type House struct {
	tb     testing.TB
	dir    string
	url    string       // of the tokens database; empty: SQLite in dir
	wall   *clock.Fake  // the machine's clock, which can be set
	passed atomic.Int64 // what has passed, on a clock that cannot
	ring   *keys.Ring
	trail  []authn.LastUse // every use that was allowed, as the audit trail has it

	clock     *clock.Clock
	table     *authn.Table
	tokens    *store.Tokens
	jobs      *store.Jobs
	authority *authority.Authority
	grading   *grading.Grading
	beat      time.Time
	sequences int
}

// start is when the first history of a house begins.
var start = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// Build makes a house in a fresh folder.
func Build(tb testing.TB, url string) *House {
	tb.Helper()
	h := &House{tb: tb, dir: folder(tb), url: url, wall: clock.NewFake(start), ring: keys.New([keys.Size]byte{1})}
	h.open()
	h.competition()
	return h
}

// folder is in memory where the machine has such a place: what is tested here
// is decisions, and not disks.
func folder(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "life")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (h *House) must(err error) {
	if err != nil {
		h.tb.Helper()
		h.tb.Fatal(err)
	}
}

// base is what internal/server gives its table.
func base() policy.Rules {
	r := policy.Rules{Terms: token.PlatformTerms()}
	r.MaxPersonal, r.Lifetime, r.MaxLifetime.Span = basePersonal, baseLifetime, baseMaxLifetime
	return r
}

// open does what a start of the server does: the store, the uses that it has,
// those that only the trail has, the outages, and the handles of jobs.
func (h *House) open() {
	ctx, quiet := context.Background(), slog.New(slog.DiscardHandler)
	read := func() (time.Time, time.Duration) { return h.wall.Now(), time.Duration(h.passed.Load()) }
	h.clock = clock.NewDoubting(read, time.Time{}, func() bool { return true })
	h.table = authn.New(h.clock.Now, 0, base())
	var err error
	h.tokens, err = store.OpenTokens(ctx, store.TokensConfig{
		Dir: h.dir, URL: h.url, Keys: h.ring, Clock: h.clock, Follow: h.table.Apply, Memory: h.table, Log: quiet,
	})
	h.must(err)
	h.must(h.tokens.Uses(ctx, func(u authn.LastUse) error {
		h.table.ApplyUse(u)
		return nil
	}))
	from, err := h.tokens.UsesPosition(ctx)
	h.must(err)
	for _, u := range h.trail[from:] {
		h.table.Replay(u)
	}
	rebuilt, err := h.tokens.RebuiltAt(ctx)
	if h.must(err); !rebuilt.IsZero() {
		h.table.AssumeUsed(rebuilt)
	}
	h.applyOutages()

	h.jobs, err = store.OpenJobs(ctx, store.JobsConfig{Dir: h.dir, Now: h.clock.Now, Log: quiet})
	h.must(err)
	h.jobs.FollowHandles(h.table.ApplyHandle)
	h.must(h.jobs.Handles(ctx, func(x authn.Handle) error {
		h.table.ApplyHandle(x)
		return nil
	}))
	h.authority = authority.New(h.tokens, h.table, h.ring, h.clock.Now)
	h.grading, err = grading.New(grading.Config{
		Store: h.jobs, Executor: idle{}, Gate: h.table, Keys: h.ring, Now: h.clock.Now,
		NewID: func(p string) string { return p + authority.SortableID(h.clock.Now()) },
		Dir:   h.dir + "/grading", Node: "test", Log: quiet,
	})
	h.must(err)
}

func (h *House) applyOutages() {
	all, err := h.tokens.Outages(context.Background())
	h.must(err)
	h.table.ApplyOutages(all)
}

// pass lets time pass.
func (h *House) pass(d time.Duration) {
	h.wall.Add(d)
	h.passed.Add(int64(d))
	h.clock.Now()
}

// stop stops the service.
func (h *House) stop() {
	h.must(h.jobs.Close())
	h.must(h.tokens.Close())
}

// Close stops the service and leaves nothing behind.
func (h *House) Close() {
	h.stop()
	h.must(os.RemoveAll(h.dir))
}

// flush stores the last uses, as the server does every few seconds.
func (h *House) flush() {
	position := uint64(len(h.trail))
	if uses := h.table.TakeUses(); len(uses) > 0 {
		h.must(h.tokens.RecordUses(context.Background(), uses, position))
	}
}

// record is Beat as the server calls it: uses could be recorded since able.
func (h *House) record(able time.Time) {
	now := h.clock.Now()
	all, err := h.tokens.Beat(context.Background(), able, now)
	h.must(err)
	h.beat = now
	h.table.ApplyOutages(all)
}

func (h *House) competition() {
	src := h.dir + "/competition"
	for name, text := range map[string]string{"train.csv": "id,label\n", "hidden/labels.csv": "id,label\na,x\nb,y\n"} {
		h.must(os.MkdirAll(src+"/hidden", 0o755))
		h.must(os.WriteFile(src+"/"+name, []byte(text), 0o600))
	}
	var packed strings.Builder
	h.must(bundle.Pack(src, &packed))
	c := grading.Competition{Name: "c", Metrics: []string{"accuracy"}, Open: true}
	_, err := h.grading.Apply(context.Background(), boss, c, strings.NewReader(packed.String()), 0)
	h.must(err)
}

// boss is the administrator at the server's own socket.
var boss = &policy.Subject{Local: true}

// idle is an executor that nobody asks for anything.
type idle struct{}

func (idle) Submit(context.Context, job.Spec) error { return nil }
func (idle) Status(context.Context, job.ID) (job.Report, error) {
	return job.Report{Phase: job.PhaseUnknown}, nil
}
func (idle) Cancel(context.Context, job.ID) error { return nil }
func (idle) Forget(context.Context, job.ID) error { return nil }
