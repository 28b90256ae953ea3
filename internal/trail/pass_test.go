package trail

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/internal/audit"
)

// A pass over some time meets the lines that a reading of everything meets, in
// their order, and reads only the files that it needs.
func TestEach(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := config(dir, "")
	c.SegmentBytes = 8 << 10
	tr := openWith(t, c)
	r := rand.New(rand.NewPCG(3, 4))
	start := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	var all []audit.Event
	for i := range 400 {
		e := audit.Event{
			ID: fmt.Sprintf("evt_%03d", i), Action: audit.Request, Outcome: audit.Allow, Token: fmt.Sprintf("tok_%d", r.IntN(3)),
			At: start.Add(time.Duration(i)*time.Hour - time.Duration(r.IntN(50))*time.Second), // some were written later than others
		}
		if err := tr.Record(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	shut(t, tr)
	for range 60 {
		p := Pass{Stream: Use, Since: start.Add(time.Duration(r.IntN(420)-10) * time.Hour), Text: []string{"", "tok_1", "evt_000"}[r.IntN(3)]}
		if r.IntN(2) == 0 {
			p.Until = p.Since.Add(time.Duration(r.IntN(100)) * time.Hour)
		}
		if r.IntN(2) == 0 {
			p.Slack = time.Minute
		}
		var want, got []string
		for _, e := range all {
			if !e.At.Before(p.Since) && (p.Until.IsZero() || e.At.Before(p.Until)) && strings.Contains(string(e.Encode()), p.Text) {
				want = append(want, e.ID)
			}
		}
		begins, err := Each(t.Context(), dir, p, func(e *audit.Event) error {
			got = append(got, e.ID)
			return nil
		})
		if err != nil || !slices.Equal(got, want) || begins.After(p.Since) && !begins.Equal(all[0].At) {
			t.Fatalf("%+v: %v, begins %v\nmet  %q\nwant %q", p, err, begins, got, want)
		}
	}
	stop := errors.New("enough")
	if _, err := Each(t.Context(), dir, Pass{Stream: Use}, func(*audit.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Each(ended, dir, Pass{Stream: Use}, func(*audit.Event) error { return nil }); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := Each(t.Context(), dir, Pass{Stream: "x"}, nil); err == nil {
		t.Error("there is no such stream")
	}
}
