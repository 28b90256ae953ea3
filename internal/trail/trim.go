package trail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
)

// Holds are what has to be kept although its time is over, because somebody may
// ask for it.
type Holds interface {
	// Holding gives a judge over lines, as the holds are now: why a line must
	// stay, or "". A nil judge keeps nothing. edition is another one once they have
	// changed. On an error nothing is dropped.
	Holding(ctx context.Context) (judge func(*audit.Event) string, edition string, err error)
}

// Trimmed is what was dropped of a stream in one sink, or would be.
type Trimmed struct {
	Sink, Stream     string
	From, To         uint64 // the lines From to To-1
	First, Last      uint64 // numbers of their segments
	Earliest, Latest time.Time
	Keep             time.Duration
	At               time.Time
	Why              string // retention; lost: this sink began anew in an empty folder
	Root             string // of the tree of all lines before To
	Note             string // the signed record; empty in a dry run
	// Stopped says why the next segment stays; empty in a record of the past.
	Stopped string
}

// Trim drops the oldest segments of every stream whose lines are all older than what
// is kept, or, if dry, only says which. It drops whole segments that stand in every sink and were
// signed, after it has compared each line with what was signed, and never one
// with a line that is held. The record is durable, and in the trail, before anything goes. While the
// clock is in doubt or a sink is down, nothing does.
func (t *Trail) Trim(ctx context.Context, actor string, dry bool) ([]Trimmed, error) {
	select {
	case t.trimming <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	type outcome struct {
		all []Trimmed
		err error
	}
	done := make(chan outcome, 1)
	go func() { // a disk may hang
		defer func() { <-t.trimming }()
		all, err := t.trim(ctx, actor, dry)
		done <- outcome{all, err}
	}()
	select {
	case o := <-done:
		return o.all, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t *Trail) trim(ctx context.Context, actor string, dry bool) (all []Trimmed, err error) {
	now := t.Now()
	if err := t.mayTrim(now); err != nil {
		return nil, err
	}
	judge, edition, err := t.holding(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range t.sinks {
		for _, st := range s.streams {
			if !dry {
				if err := errors.Join(t.finish(ctx, st, actor), st.sealOld(now)); err != nil {
					return all, err
				}
			}
			p := planning{ctx: ctx, s: st, before: now.Add(-t.keeps(st.name)), judge: judge}
			what, err := p.plan()
			if err != nil {
				return all, err
			}
			if what == nil {
				all = append(all, Trimmed{Sink: s.dir, Stream: st.name, Keep: t.keeps(st.name), At: now, Stopped: p.stopped})
				continue
			}
			if err := t.copied(what); err != nil {
				return all, err
			}
			what.At, what.Keep, what.Why = now, t.keeps(st.name), retention
			told := what.told(s.dir)
			told.Stopped = p.stopped
			if !dry {
				// Reading takes long: a hold may have been made meanwhile.
				if _, now, err := t.holding(ctx); err != nil || now != edition {
					return all, errors.Join(err, errHoldsMoved)
				}
				if told.Note, err = t.drop(ctx, st, what, actor); err != nil {
					return all, err
				}
			}
			all = append(all, told)
		}
	}
	return all, nil
}

var errHoldsMoved = fault.New(fault.Conflict, "holds_moved", "A legal hold was made or ended meanwhile, so that nothing more is dropped.").
	WithFix("gradegate audit trim")

func (t *Trail) holding(ctx context.Context) (judge func(*audit.Event) string, edition string, err error) {
	if t.Holds == nil {
		return nil, "", nil
	}
	if judge, edition, err = t.Holds.Holding(ctx); err != nil {
		err = fmt.Errorf("trail: legal holds: %w", err)
	}
	return judge, edition, err
}

// sealAfter is how long one segment is written to: where little happens, a
// segment would not be full before its first lines are far too old.
const sealAfter = 30 * 24 * time.Hour

// sealOld begins a new segment if the one that is written to is an old one.
func (s *stream) sealOld(now time.Time) error {
	segments, err := journal.Segments(s.dir)
	if err != nil || len(segments) == 0 {
		return err
	}
	first, err := firstTime(&segments[len(segments)-1], nil)
	if err == nil && !first.IsZero() && now.Sub(first) > sealAfter {
		err = s.journal.Seal()
	}
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	return nil
}

// keeps is how long the lines of a stream are kept.
func (t *Trail) keeps(stream string) time.Duration {
	if stream == Use {
		return t.KeepUses
	}
	return t.KeepActs
}

// mayTrim refuses to do what cannot be undone when something is in doubt.
func (t *Trail) mayTrim(now time.Time) error {
	if t.KeepUses <= 0 || t.KeepActs <= 0 {
		return fault.New(fault.Invalid, "trim_off", "How long the trail is kept is not configured, so it is kept for ever.").
			WithFix("retention: {uses: 400d, acts: 2555d}")
	}
	if t.Ahead != nil && t.Ahead() > 0 {
		return fault.New(fault.Unavailable, "clock_in_doubt", "The machine's clock has leapt ahead by %s and is not believed, so nothing is dropped by it.", t.Ahead().Round(time.Second)).
			WithFix("Set the clock right; if it is right: gradegate clock confirm")
	}
	for _, s := range t.sinks {
		err := s.health()
		s.mu.Lock()
		if s.missed[Use] > 0 || s.missed[Act] > 0 {
			err = errors.Join(err, errors.New("it lacks lines, and has not said so yet"))
		}
		s.mu.Unlock()
		if err != nil {
			return fault.Wrap(fault.Unavailable, "sink_down", "A sink of the trail does not work, so nothing is dropped from the others.", err).
				WithFix("Bring %s back first.", s.dir)
		}
	}
	return nil
}

// copied makes sure that every sink has signed what is later than all that goes.
func (t *Trail) copied(what *trim) error {
	for _, s := range t.sinks {
		msg, err := latest(filepath.Join(s.dir, what.Stream))
		if err != nil {
			return err
		}
		c, err := openNote(msg, t.sign.verifier)
		if err != nil || c.At.Before(what.Latest) {
			return fault.Wrap(fault.Unavailable, "sink_behind", "A sink of the trail has not signed lines as new as those that would be dropped.", err).
				WithFix("Look at %s: gradegate audit verify --dir %s", s.dir, s.dir)
		}
	}
	return nil
}

// told is a record for whoever asks.
func (t *trim) told(sink string) Trimmed {
	return Trimmed{
		Sink: sink, Stream: t.Stream, From: t.From, To: t.Size, First: t.First, Last: t.Last,
		Earliest: t.Earliest, Latest: t.Latest, Keep: t.Keep, At: t.At, Why: t.Why, Root: t.Root.String(),
	}
}

// drop makes a record durable, tells the trail, and removes the segments.
func (t *Trail) drop(ctx context.Context, s *stream, what *trim, actor string) (string, error) {
	what.Event = t.NewID()
	msg, err := s.keepTrim(what)
	if err != nil {
		return "", err
	}
	t.point(s.dir, "trim recorded")
	return string(msg), t.finish(ctx, s, actor)
}

// finish does what the newest record of a stream says was done: after a crash, too.
func (t *Trail) finish(ctx context.Context, s *stream, actor string) error {
	what, err := lastTrim(s.dir, s.name, s.sign.verifier)
	if err != nil || what == nil {
		return err
	}
	segments, err := journal.Segments(s.dir)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	n := 0
	for n < len(segments)-1 && segments[n+1].First <= what.Size {
		n++
	}
	if n == 0 || what.Why != retention {
		return nil
	}
	if err := t.Effects(ctx, []audit.Event{what.line(filepath.Dir(s.dir), actor)}); err != nil {
		return err
	}
	t.point(s.dir, "trim told")
	s.files.Lock()
	defer s.files.Unlock()
	for i := range segments[:n] {
		if err := os.Remove(indexPath(&segments[i])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("trail: %w", err)
		}
		if err := journal.Drop(segments[i : i+1]); err != nil {
			return fmt.Errorf("trail: %w", err)
		}
		t.point(s.dir, "segment dropped")
	}
	return nil
}

// line is what the trail says of a trim. Its id is in the record, so that it is
// there once.
func (t *trim) line(sink, actor string) audit.Event {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return audit.Event{
		ID: t.Event, At: t.At, Action: audit.TrailTrim, Outcome: audit.Done, Actor: actor, Target: t.Stream, Reason: retention,
		Count: int64(t.Size - t.From), //nolint:gosec // lines
		Detail: map[string]string{
			"sink": sink, "from": number(t.From), "to": number(t.Size - 1), "segments": number(t.First) + "-" + number(t.Last), "keep": t.Keep.String(),
			"earliest": t.Earliest.UTC().Format(time.RFC3339), "latest": t.Latest.UTC().Format(time.RFC3339),
		},
	}
}

// Trims gives the records of a trail folder, oldest first, without looking at
// their signatures, which is for Verify to do.
func Trims(dir string) (all []Trimmed, err error) {
	for _, name := range []string{Use, Act} {
		notes, err := trimNotes(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		for _, msg := range notes {
			t, err := readTrim(msg)
			if err != nil {
				return nil, fault.Wrap(fault.Invalid, "trim_damaged", "What lies among the records of what was trimmed is none.", err).
					WithFix("gradegate audit verify --dir %s", dir)
			}
			told := t.told(dir)
			told.Note = string(msg)
			all = append(all, told)
		}
	}
	return all, nil
}

// Trims gives the records of all sinks.
func (t *Trail) Trims() (all []Trimmed, err error) {
	for _, s := range t.sinks {
		some, err := Trims(s.dir)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}
