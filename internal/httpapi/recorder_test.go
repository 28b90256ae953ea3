package httpapi

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"gradegate/internal/audit"
)

// recorder keeps lines, and can fail.
type recorder struct {
	mu      sync.Mutex
	lines   []audit.Event
	durable []bool
	refused []audit.Event
	fail    error
}

func (r *recorder) Record(_ context.Context, e audit.Event, durable bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.lines, r.durable = append(r.lines, e), append(r.durable, durable)
	return nil
}

// Refused writes what is about a known holder, as the trail does with the first
// of them.
func (r *recorder) Refused(ctx context.Context, e audit.Event) error {
	if e.Token != "" || e.Actor != "" {
		return r.Record(ctx, e, false)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, e)
	return r.fail
}

// read goes through what was recorded, as the trail does.
func (r *recorder) read(_ context.Context, l Lines, do func(*audit.Event) error) (begins time.Time, _ error) {
	r.mu.Lock()
	all := slices.Clone(r.lines)
	r.mu.Unlock()
	for i := range all {
		e := all[i]
		if i == 0 {
			begins = e.At
		}
		if l.Stream != "use" || e.At.Before(l.Since) || !l.Until.IsZero() && !e.At.Before(l.Until) || !strings.Contains(string(e.Encode()), l.Text) {
			continue
		}
		if err := do(&e); err != nil {
			return begins, err
		}
	}
	return begins, nil
}

func (r *recorder) take() (lines []audit.Event, durable []bool, refused []audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines, durable, refused = r.lines, r.durable, r.refused
	r.lines, r.durable, r.refused = nil, nil, nil
	return lines, durable, refused
}

func (r *recorder) breaks(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}
