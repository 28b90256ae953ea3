package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
)

// Pass is one reading of a stream from an instant on, in the order in which it
// was written.
type Pass struct {
	Stream       string
	Since, Until time.Time // Until zero: to the end
	// Slack is how much later than it happened a line may have been written; 0: a
	// day. With less, and a narrow span, fewer files are read.
	Slack time.Duration
	// Text is what every line that is wanted has in it; "" if all are. Looking for
	// it first saves decoding the others.
	Text string
}

// Each calls do for every line of a pass. It holds one batch in memory at a
// time. begins is when the oldest line that it met happened: what is older is
// not there any more, or never was. An error of do ends it, and is returned as
// it is.
func Each(ctx context.Context, dir string, p Pass, do func(*audit.Event) error) (begins time.Time, err error) {
	if p.Stream != Use && p.Stream != Act {
		return begins, errStream
	}
	if p.Slack <= 0 {
		p.Slack = late
	}
	dir = filepath.Join(dir, p.Stream)
	from, known, err := startOf(dir, p.Since.Add(-p.Slack))
	if err != nil || !known {
		return begins, err
	}
	text := []byte(p.Text)
	n := 0
	var stopped error // why do, or the clock, ended it
	_, err = journal.Read(dir, from, func(r journal.Record) error {
		if n++; n&0xfff == 0 && ctx.Err() != nil {
			stopped = ctx.Err()
			return errStop
		}
		if n > 1 && !bytes.Contains(r.Data, text) {
			return nil
		}
		e, bad := audit.Decode(r.Data)
		if bad != nil {
			return nil //nolint:nilerr // a line of a newer version: not ours to read
		}
		if n == 1 {
			begins = e.At
		}
		switch {
		case e.At.Before(p.Since) || n == 1 && !bytes.Contains(r.Data, text):
			return nil
		case !p.Until.IsZero() && e.At.After(p.Until.Add(p.Slack)):
			return errStop
		case !p.Until.IsZero() && !e.At.Before(p.Until):
			return nil
		}
		if stopped = do(&e); stopped != nil {
			return errStop
		}
		return nil
	})
	switch {
	case errors.Is(err, journal.ErrRemoved): // trimmed meanwhile, before the first line
		return Each(ctx, filepath.Dir(dir), p, do)
	case err != nil && !errors.Is(err, errStop):
		return begins, fmt.Errorf("trail: %w", err)
	}
	return begins, stopped
}

// beginning is when the first line of a segment happened.
func beginning(dir string, s journal.Segment) (at time.Time, known bool) {
	_, err := journal.Read(dir, s.First, func(r journal.Record) error {
		e, err := audit.Decode(r.Data)
		at, known = e.At, err == nil
		return errStop
	})
	return at, known && errors.Is(err, errStop)
}

// startOf is the first record of the newest segment that was begun before an
// instant.
func startOf(dir string, since time.Time) (first uint64, known bool, err error) {
	segments, err := journal.Segments(dir)
	if err != nil {
		return 0, false, fmt.Errorf("trail: %w", err)
	}
	for i, s := range segments {
		if at, ok := beginning(dir, s); i > 0 && ok && at.After(since) {
			break
		}
		first, known = s.First, true
	}
	return first, known, nil
}
