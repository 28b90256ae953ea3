package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
)

// Query selects lines. Zero members do not select.
type Query struct {
	Stream       string // use, act; "" is both, ordered by time
	Since, Until time.Time
	Actor        string
	Token        string
	Target       string
	Owner        string
	Action       string // exact, or a prefix that ends in a dot
	Outcome      string
	Addr         string
	Request      string
	Reason       string
	Text         string // anywhere in the line as it is stored
	Limit        int    // newest that many; 0: 100
}

// Found is a line with the stream and place it stands at.
type Found struct {
	Stream string
	Index  uint64
	audit.Event
}

func (q *Query) matches(e *audit.Event) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	action := is(q.Action, string(e.Action)) || strings.HasSuffix(q.Action, ".") && strings.HasPrefix(string(e.Action), q.Action)
	return action && is(q.Actor, e.Actor) && (is(q.Token, e.Token) || q.Token == e.Target) && is(q.Target, e.Target) && is(q.Owner, e.Owner) &&
		is(q.Outcome, string(e.Outcome)) && is(q.Addr, e.Addr) && is(q.Request, e.Request) && is(q.Reason, e.Reason) &&
		(q.Since.IsZero() || !e.At.Before(q.Since)) && (q.Until.IsZero() || e.At.Before(q.Until))
}

// needles are what a line that matches has somewhere. Looking for them first
// saves decoding nearly all lines.
func (q *Query) needles() [][]byte {
	var out [][]byte
	for _, s := range []string{q.Actor, q.Token, q.Target, q.Owner, q.Action, q.Outcome, q.Addr, q.Request, q.Reason} {
		quoted := (&audit.Event{ID: s}).Encode()
		if id := idOf(quoted); s != "" && string(id) == s { // it is stored as it is
			out = append(out, id)
		}
	}
	if q.Text != "" {
		out = append(out, []byte(q.Text))
	}
	return out
}

func hasAll(line []byte, needles [][]byte) bool {
	for _, n := range needles {
		if !bytes.Contains(line, n) {
			return false
		}
	}
	return true
}

// Search finds the newest lines that match, oldest first. It reads the files
// from the end, and stops at the segment where it has enough.
func Search(ctx context.Context, dir string, q Query) ([]Found, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	if q.Stream != "" && q.Stream != Use && q.Stream != Act {
		return nil, errStream
	}
	var out []Found
	for _, name := range []string{Use, Act} {
		if q.Stream != "" && q.Stream != name {
			continue
		}
		found, err := searchStream(ctx, filepath.Join(dir, name), name, q)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(a, b Found) int { return a.At.Compare(b.At) })
	return out[max(0, len(out)-q.Limit):], nil
}

// late is how much later than it happened a line may be written: stores copy
// their effects when they can.
const late = 24 * time.Hour

// errStop ends the reading of a segment where the next one begins.
var errStop = errors.New("stop")

func searchStream(ctx context.Context, dir, name string, q Query) ([]Found, error) {
	segments, err := journal.Segments(dir)
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	needles := q.needles()
	var out []Found
	end := ^uint64(0)
	for _, s := range slices.Backward(segments) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var here []Found
		var oldest time.Time
		_, err := journal.Read(dir, s.First, func(r journal.Record) error {
			if r.Index >= end {
				return errStop
			}
			if r.Index&0xfff == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if r.Index != s.First && !hasAll(r.Data, needles) {
				return nil
			}
			e, err := audit.Decode(r.Data)
			if err != nil {
				return nil //nolint:nilerr // a line of a newer version: not ours to find
			}
			if r.Index == s.First {
				oldest = e.At
			}
			if q.matches(&e) && hasAll(r.Data, needles) {
				here = append(here, Found{Stream: name, Index: r.Index, Event: e})
			}
			if len(here)-q.Limit >= q.Limit { // only the newest are wanted
				here = append(here[:0], here[len(here)-q.Limit:]...)
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			return nil, fmt.Errorf("trail: %w", err)
		}
		out = append(here, out...)
		end = s.First
		if len(out) >= q.Limit || oldest.Before(q.Since.Add(-late)) && !oldest.IsZero() {
			break
		}
	}
	return out[max(0, len(out)-q.Limit):], nil
}
