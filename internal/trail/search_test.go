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
	"gradegate/internal/fault"
)

// The quick search finds what a plain reading of all lines finds.
func TestSearch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := config(dir, "")
	c.SegmentBytes = 24 << 10
	tr := openWith(t, c)
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	start := time.Now().Add(-30 * 24 * time.Hour).Truncate(time.Second)
	at := func() time.Time { return start.Add(time.Duration(r.IntN(700)) * time.Hour) }
	var all []audit.Event
	for i := range 600 {
		e := audit.Event{
			ID: fmt.Sprintf("evt_%d", i), At: start.Add(time.Duration(i) * time.Hour),
			Action: audit.Action(pick("request", "token.issue", "token.revoke", "job.submit")), Outcome: audit.Outcome(pick("allow", "deny")),
			Actor: pick("usr_ann", "usr_\"joe\"", "usr_zoë", ""), Token: pick("tok_1", "tok_2", ""), Target: pick("tok_1", "job_1", ""),
			Addr: pick("192.0.2.1", "2001:db8::1"), Reason: pick("", "token_expired"),
		}
		if err := tr.Record(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	shut(t, tr)
	hits := 0
	for range 150 {
		q := Query{
			Stream: pick(Use, ""), Actor: pick("", "", "usr_ann", "usr_\"joe\"", "usr_zoë"), Token: pick("", "tok_1"), Target: pick("", "", "job_1"),
			Action: pick("", "", "token.", "token.revoke", "nothing"), Outcome: pick("", "deny"), Addr: pick("", "2001:db8::1"),
			Reason: pick("", "token_expired"), Text: pick("", "", "evt_1"), Limit: []int{0, 1, 7, 2000}[r.IntN(4)],
		}
		if r.IntN(2) == 0 {
			q.Since = at()
		}
		if r.IntN(3) == 0 {
			q.Until = at()
		}
		var want, got []string
		for i := range all {
			if q.matches(&all[i]) && strings.Contains(string(all[i].Encode()), q.Text) {
				want = append(want, all[i].ID)
			}
		}
		limit := q.Limit
		if limit == 0 {
			limit = 100
		}
		want = want[max(0, len(want)-limit):]
		found, err := Search(t.Context(), dir, q)
		for _, f := range found {
			got = append(got, f.ID)
			if f.Stream != Use || f.ID != fmt.Sprintf("evt_%d", f.Index) {
				t.Errorf("%+v stands elsewhere", f)
			}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%+v: %v\nfound %q\nwant  %q", q, err, got, want)
		}
		hits += len(got)
	}
	if hits == 0 {
		t.Error("no query found anything")
	}
	if _, err := Search(t.Context(), t.TempDir(), Query{}); err == nil {
		t.Error("an empty folder was searched")
	}
	if _, err := Search(t.Context(), dir, Query{Stream: "other"}); fault.CodeOf(err) != "stream_unknown" {
		t.Errorf("another stream was searched: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Search(ctx, dir, Query{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
