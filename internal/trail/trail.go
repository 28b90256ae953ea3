// Package trail is the audit trail on disk: who did what with which token from
// where, complete, and provable with the files and a public key alone.
//
// Every line is on disk before the answer it belongs to is given. Lines form a
// Merkle tree whose root is signed each second in which something happened, so
// that an edit, a cut middle and a cut tail show. There may be two sinks; when
// none of them answers, nothing is granted.
//
// A sink is a folder with one folder per stream, use and act. In each lie the
// segments of a journal, compressed once they are sealed, with an index of their times for
// searches; checkpoint, the newest signed note; checkpoints, one of each minute; and trims,
// a signed record of each time that the oldest segments were dropped. Both sinks get the same lines, but not the same places in the
// order: each is proven on its own. A sink that was away begins a new segment
// and says near its start, with a line trail.gap, how many lines it lacks; the
// other one has them. What it missed is forgotten when the process ends
// before it is back.
package trail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
	"gradegate/internal/keys"
)

// Config is what a trail is made of.
type Config struct {
	Dir    string // the first sink
	Second string // the second one, on another disk; may be empty
	Key    *keys.Ring
	Now    clock.Func
	NewID  func() string // of our own lines
	// Strict makes every line durable before the answer, not only those of
	// requests that change something.
	Strict       bool
	SinkDeadline time.Duration // default 2 s; a line waits up to a second longer
	SegmentBytes int64         // default that of the journal
	Preallocate  int64         // default 4 MiB
	Log          *slog.Logger  // default slog.Default

	// How long lines are kept, each stream's, for Trim; zero: for ever.
	KeepUses, KeepActs time.Duration
	Holds              Holds                // what is kept longer; may be nil
	Ahead              func() time.Duration // how far the wall clock leads what is believed; may be nil

	// at is for tests: it is called at some points of a sink's work, and may block
	// there as a disk does, or end the process. "written" is when a batch is in the journal and its
	// callers do not know yet; "sync" is before a checkpoint's fsync.
	at func(dir, point string)
}

func (c *Config) point(dir, point string) {
	if c.at != nil {
		c.at(dir, point)
	}
}

// patience is how many deadlines a sink has to be opened or closed in.
const patience = 5

// Trail is the audit trail. It is safe for concurrent use.
type Trail struct {
	Config
	sinks    []*sink
	sign     *signer
	refusals *refusals
	effects  chan struct{} // held by the one caller of Effects that writes
	trimming chan struct{} // held by the one caller of Trim

	// soon ends between one and two seconds after a sink's deadline from now;
	// it is renewed each second, so that a line needs no timer of its own.
	soon atomic.Pointer[deadline]

	stop     context.CancelFunc // ends what goes on beside the sinks
	done     sync.WaitGroup     // that has ended
	endSinks context.CancelFunc
	closed   func() error // shut, once
}

// deadline is a context that many lines share.
type deadline struct {
	context.Context
	cancel context.CancelFunc
}

// Open opens the trail, recovers from a crash and starts signing. What was cut
// from torn tails is told through the log. The first sink must open; the second
// may also join later, and until then Health says that it is down.
func Open(c Config) (*Trail, error) {
	if c.SinkDeadline <= 0 {
		c.SinkDeadline = 2 * time.Second
	}
	if c.Preallocate == 0 {
		c.Preallocate = 4 << 20
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Second != "" && filepath.Clean(c.Second) == filepath.Clean(c.Dir) {
		return nil, fault.New(fault.Invalid, "audit_same", "Both sinks of the audit trail are the folder %s.", c.Dir).
			WithFix("Give the second one a folder on another disk, or leave it out.")
	}
	sign, err := newSigner(c.Key.Trail())
	if err != nil {
		return nil, err
	}
	t := &Trail{Config: c, sign: sign, effects: make(chan struct{}, 1), trimming: make(chan struct{}, 1)}
	t.refusals = newRefusals(t)
	t.closed = sync.OnceValue(t.shut)
	life, stop := context.WithCancel(context.Background())
	sinks, endSinks := context.WithCancel(context.Background())
	t.stop, t.endSinks = stop, endSinks
	t.renew()
	for _, dir := range []string{c.Dir, c.Second} {
		if dir != "" {
			t.sinks = append(t.sinks, newSink(sinks, dir, &t.Config, sign))
		}
	}
	if err := <-t.sinks[0].first; err != nil {
		stop()
		return nil, errors.Join(err, t.shutSinks())
	}
	if len(t.sinks) == 2 {
		t.await(t.sinks[1])
	}
	t.done.Go(func() { t.beat(life) })
	t.done.Go(func() { t.refusals.run(life) })
	return t, nil
}

// await gives the second sink its time to open.
func (t *Trail) await(s *sink) {
	timer := time.NewTimer(patience * t.SinkDeadline)
	defer timer.Stop()
	var err error
	select {
	case err = <-s.first:
	case <-timer.C:
		err = errOpened
	}
	if err != nil {
		t.Log.Error("trail: the sink is down", "dir", s.dir, "error", err)
	}
}

// buffers are reused between lines.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// Record writes the line of a decision and returns when it is on disk: with
// the kernel, or, if durable, beyond a power cut. When no sink answers, the
// error is Unavailable, and what was asked must not be granted. A client that
// has gone does not cut the writing short, so that ctx is of no matter.
func (t *Trail) Record(_ context.Context, e audit.Event, durable bool) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	*b = scrubbed(&e).Append((*b)[:0])
	durable = durable || t.Strict
	ctx := t.within()
	if len(t.sinks) == 1 {
		if err := t.sinks[0].writeOne(ctx, Use, *b, durable); err != nil {
			return unavailable(err)
		}
		return nil
	}
	return t.both(Use, 1, func(s *sink) error { return s.writeOne(ctx, Use, *b, durable) })
}

// Effects writes what transactions changed, durably and once: a line whose id
// is among the newest lines already is left out, since stores send again what
// they are not sure of. ctx bounds the waiting for another caller.
func (t *Trail) Effects(ctx context.Context, events []audit.Event) error {
	if len(events) == 0 {
		return nil
	}
	lines := make([][]byte, len(events))
	for i := range events {
		e := events[i]
		lines[i] = scrubbed(&e).Encode()
	}
	// One at a time: otherwise two callers could both find that an id is new.
	select {
	case t.effects <- struct{}{}:
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
	defer func() { <-t.effects }()
	within := t.within()
	return t.both(Act, len(lines), func(s *sink) error { return s.writeNew(within, Act, lines) })
}

// both writes n lines to all sinks at once; one that records them is enough.
// It returns when write has returned for each, which their deadline bounds.
func (t *Trail) both(name string, n int, write func(*sink) error) error {
	if len(t.sinks) == 1 {
		if err := write(t.sinks[0]); err != nil {
			return unavailable(err)
		}
		return nil
	}
	one, two := t.sinks[0], t.sinks[1]
	result := make(chan error, 1)
	go func() { result <- write(two) }()
	errOne := write(one)
	errTwo := <-result
	switch {
	case errOne != nil && errTwo != nil:
		return unavailable(errors.Join(errOne, errTwo))
	case errOne != nil:
		one.miss(name, n)
	case errTwo != nil:
		two.miss(name, n)
	}
	return nil
}

func unavailable(err error) error {
	return fault.Wrap(fault.Unavailable, "audit_unavailable", "The request could not be recorded, so it was not carried out.", err).
		WithFix("Try again in a few seconds; if it lasts, tell the operator: the disk of the audit trail is full or gone.").
		WithRetry(2 * time.Second)
}

// scrubbed makes sure that foreign text carries no secret: a token in a URL or
// in a client's name is cut to what may be shown. It changes e, and not what e
// shares with its copies.
func scrubbed(e *audit.Event) *audit.Event {
	e.Route, e.Agent = audit.Scrub(e.Route), audit.Scrub(e.Agent)
	own := false
	for k, v := range e.Detail {
		clean := audit.Scrub(v)
		if clean == v {
			continue
		}
		if !own {
			e.Detail, own = maps.Clone(e.Detail), true
		}
		e.Detail[k] = clean
	}
	return e
}

// Latest is the newest checkpoint of a stream in the first sink, as a signed
// note; nil if there is none yet.
func (t *Trail) Latest(name string) ([]byte, error) { return Latest(t.Dir, name) }

var errStream = fault.New(fault.NotFound, "stream_unknown", "There is no such stream.").WithFix("Use one of: use, act")

// Latest is the newest checkpoint of a stream in a folder; nil if there is none
// yet.
func Latest(dir, name string) ([]byte, error) {
	if name != Use && name != Act {
		return nil, errStream
	}
	return latest(filepath.Join(dir, name))
}

// VerifierKey is what anybody needs, beside the files, to verify the trail.
func (t *Trail) VerifierKey() string { return t.sign.text }

// KeyText is the verifying key that belongs to a ring.
func KeyText(k *keys.Ring) (string, error) {
	s, err := newSigner(k.Trail())
	if err != nil {
		return "", err
	}
	return s.text, nil
}

// Position is the place after the last line of the use stream in the first
// sink: where replaying it has to go on. It never waits for the disk.
func (t *Trail) Position() uint64 { return t.sinks[0].stream(Use).next.Load() }

// Replay reads the use stream of the first sink from an index on. Lines that
// only the second sink has are not in it.
func (t *Trail) Replay(from uint64, fn func(index uint64, e audit.Event)) error {
	if segments, err := journal.Segments(filepath.Join(t.Dir, Use)); err == nil && len(segments) > 0 {
		from = max(from, segments[0].First) // older lines were trimmed
	}
	_, err := journal.Read(filepath.Join(t.Dir, Use), from, func(r journal.Record) error {
		if e, err := audit.Decode(r.Data); err == nil {
			fn(r.Index, e)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	return nil
}
