// Package trail is the audit trail on disk: who did what with which token from
// where, complete, and provable with the files and a public key alone.
//
// Every line is on disk before the answer it belongs to is given. Lines form a
// Merkle tree whose root is signed each second in which something happened, so
// that an edit, a cut middle and a cut tail show. There may be two sinks; when
// none of them answers, nothing is granted.
package trail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
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
	SinkDeadline time.Duration // default 2 s
	SegmentBytes int64         // default that of the journal
	Preallocate  int64         // default 4 MiB
	Log          *slog.Logger
}

// Trail is the audit trail. It is safe for concurrent use.
type Trail struct {
	Config
	sinks    []*sink
	sign     *signer
	recent   *recentIDs
	refusals *refusals
	stop     chan struct{}
	done     sync.WaitGroup
}

// Open opens the trail, recovers from a crash and starts signing. What was cut
// from torn tails is told through the log.
func Open(c Config) (*Trail, error) {
	if c.SinkDeadline == 0 {
		c.SinkDeadline = 2 * time.Second
	}
	if c.Preallocate == 0 {
		c.Preallocate = 4 << 20
	}
	sign, err := newSigner(c.Key.Trail())
	if err != nil {
		return nil, err
	}
	t := &Trail{Config: c, sign: sign, recent: newRecentIDs(), stop: make(chan struct{})}
	t.refusals = newRefusals(t)
	for _, dir := range []string{c.Dir, c.Second} {
		if dir == "" {
			continue
		}
		s, recs, err := openSink(dir, c)
		if err != nil {
			return nil, errors.Join(err, t.shutSinks())
		}
		for _, r := range recs {
			if r.Cut.Bytes > 0 {
				c.Log.Warn("trail: an incomplete tail was cut", "dir", dir, "bytes", r.Cut.Bytes, "lines", r.Cut.Records, "reason", r.Cut.Reason)
			}
		}
		t.sinks = append(t.sinks, s)
	}
	if err := t.recent.load(filepath.Join(c.Dir, Act)); err != nil {
		return nil, errors.Join(err, t.shutSinks())
	}
	t.done.Go(t.everySecond)
	return t, nil
}

// buffers are reused between lines.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// Record writes the line of a decision and returns when it is on disk: with
// the kernel, or, if durable, beyond a power cut. When no sink answers, the
// error is Unavailable, and what was asked must not be granted.
func (t *Trail) Record(ctx context.Context, e audit.Event, durable bool) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	*b = scrubbed(&e).Append((*b)[:0])
	durable = durable || t.Strict
	if len(t.sinks) == 1 {
		if err := t.sinks[0].writeOne(ctx, Use, *b, durable, t.SinkDeadline); err != nil {
			return unavailable(err)
		}
		return nil
	}
	// A second sink may outlive this call's wait, so it gets a copy.
	return t.writeAll(ctx, Use, [][]byte{append([]byte(nil), *b...)}, durable)
}

// Effects writes what transactions changed, durably and once: a line whose id
// is there already is left out, since stores send again what they are not sure
// of.
func (t *Trail) Effects(ctx context.Context, events []audit.Event) error {
	var lines [][]byte
	var ids []string
	for i := range events {
		if t.recent.has(events[i].ID) {
			continue
		}
		ids = append(ids, events[i].ID)
		lines = append(lines, scrubbed(&events[i]).Encode())
	}
	if len(lines) == 0 {
		return nil
	}
	if err := t.writeAll(ctx, Act, lines, true); err != nil {
		return err
	}
	t.recent.add(ids)
	return nil
}

// writeAll writes to all sinks at once; one that records it is enough.
func (t *Trail) writeAll(ctx context.Context, name string, lines [][]byte, durable bool) error {
	results := make(chan error, len(t.sinks))
	for _, s := range t.sinks {
		go func() { results <- s.write(ctx, name, lines, durable, t.SinkDeadline) }()
	}
	var errs []error
	for range t.sinks {
		err := <-results
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) < len(t.sinks) {
		return nil
	}
	return unavailable(errors.Join(errs...))
}

func unavailable(err error) error {
	return fault.Wrap(fault.Unavailable, "audit_unavailable", "The request could not be recorded, so it was not carried out.", err).
		WithFix("Try again in a few seconds; if it lasts, tell the operator: the disk of the audit trail is full or gone.").
		WithRetry(2 * time.Second)
}

// scrubbed makes sure that foreign text carries no secret: a token in a URL or
// in a client's name is cut to what may be shown.
func scrubbed(e *audit.Event) *audit.Event {
	e.Route, e.Agent = audit.Scrub(e.Route), audit.Scrub(e.Agent)
	for k, v := range e.Detail {
		if clean := audit.Scrub(v); clean != v {
			e.Detail[k] = clean
		}
	}
	return e
}

// everySecond signs what is new and writes the counts of refusals.
func (t *Trail) everySecond() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
			for _, s := range t.sinks {
				s.renew(t.SinkDeadline)
			}
			t.refusals.flush(context.Background(), false)
			if err := t.Checkpoint(); err != nil {
				t.Log.Error("trail: no checkpoint", "error", err)
			}
		}
	}
}

// Checkpoint signs every stream of every sink now, where something is new.
func (t *Trail) Checkpoint() error {
	var errs []error
	for _, s := range t.sinks {
		if s.health() != nil {
			continue
		}
		for _, st := range s.streams {
			errs = append(errs, st.checkpoint(t.sign, t.Now()))
		}
	}
	return errors.Join(errs...)
}

// Latest is the newest checkpoint of a stream in the first sink, as a signed
// note; nil if there is none yet.
func (t *Trail) Latest(name string) ([]byte, error) {
	if name != Use && name != Act {
		return nil, fault.New(fault.NotFound, "stream_unknown", "There is no such stream.").WithFix("Use one of: use, act")
	}
	return latest(filepath.Join(t.Dir, name))
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

// Position is the place after the last line of the use stream: where replaying
// it has to go on.
func (t *Trail) Position() uint64 { return t.sinks[0].streams[Use].journal.Position().Next }

// Replay reads the use stream of the first sink from an index on.
func (t *Trail) Replay(from uint64, fn func(index uint64, e audit.Event)) error {
	_, err := journal.Read(filepath.Join(t.Dir, Use), from, func(r journal.Record) error {
		if e, err := audit.Decode(r.Data); err == nil {
			fn(r.Index, e)
		}
		return nil
	})
	if errors.Is(err, journal.ErrRemoved) {
		return nil // older than what is kept: nothing to replay
	}
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	return nil
}

// Health is nil while every sink works.
func (t *Trail) Health() error {
	var errs []error
	for _, s := range t.sinks {
		if err := s.health(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.dir, err))
		}
	}
	return errors.Join(errs...)
}

// Close writes what is pending, signs it and closes the files.
func (t *Trail) Close() error {
	close(t.stop)
	t.done.Wait()
	t.refusals.flush(context.Background(), true)
	return t.shutSinks()
}

func (t *Trail) shutSinks() error {
	var errs []error
	for _, s := range t.sinks {
		errs = append(errs, s.shut(t.sign))
	}
	return errors.Join(errs...)
}
