package trail

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
)

// The quick search finds what a plain reading of all lines finds: in plain files, in
// compressed ones with their indices, of one block and of several, and without them.
func TestSearch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ segment, pad, searches int }{"small": {24 << 10, 0, 150}, "blocks": {2500 << 10, 8 << 10, 25}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := scratch(t)
			all := searched(t, dir, int64(c.segment), strings.Repeat("x", c.pad))
			finds(t, dir, all, c.searches)
			use := filepath.Join(dir, Use)
			tidied(t, use)
			if plain, _ := filepath.Glob(filepath.Join(use, "*.jsonl")); len(plain) != 1 {
				t.Errorf("plain are %q", plain)
			}
			finds(t, dir, all, c.searches)
			indices, _ := filepath.Glob(filepath.Join(use, "*.index"))
			if len(indices) == 0 {
				t.Fatal("no index was made")
			}
			for i, path := range indices {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				switch i % 3 {
				case 0:
					err = os.Remove(path)
				case 1: // half written
					err = os.WriteFile(path, text[:len(text)/2], 0o600)
				case 2: // of other places than there are
					text = regexp.MustCompile(`"chain":"..`).ReplaceAll(text, []byte(`"chain":"ee`))
					err = os.WriteFile(path, text, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			finds(t, dir, all, c.searches)
		})
	}
}

// tidied compresses and indexes what is sealed in a stream's folder.
func tidied(t testing.TB, dir string) {
	t.Helper()
	if err := (&stream{dir: dir}).tidy(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
}

// searched writes a trail to be searched, and gives its lines.
func searched(t *testing.T, dir string, segment int64, pad string) []audit.Event {
	t.Helper()
	c := config(dir, "")
	c.SegmentBytes = segment
	tr := openWith(t, c)
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	start := birth
	var all []audit.Event
	for i := range 600 {
		e := audit.Event{
			ID: fmt.Sprintf("evt_%d", i), At: start.Add(time.Duration(i) * time.Hour),
			Action: audit.Action(pick("request", "token.issue", "token.revoke", "job.submit")), Outcome: audit.Outcome(pick("allow", "deny")),
			Actor: pick("usr_ann", "usr_\"joe\"", "usr_zoë", ""), Token: pick("tok_1", "tok_2", ""), Target: pick("tok_1", "job_1", ""),
			Addr: pick("192.0.2.1", "2001:db8::1"), Reason: pick("", "token_expired"),
			Request: "req_" + authority.SortableID(start.Add(time.Duration(i)*time.Hour-time.Second)),
		}
		if pad != "" {
			e.Detail = map[string]string{"pad": pad}
		}
		if r.IntN(20) == 0 { // it was late
			e.At = e.At.Add(-20 * time.Hour)
			e.Request = ""
		}
		if err := tr.Record(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	shut(t, tr)
	return all
}

var birth = time.Now().Add(-30 * 24 * time.Hour).UTC().Truncate(time.Second)

// finds compares many searches with a reading of all lines.
func finds(t *testing.T, dir string, all []audit.Event, searches int) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	at := func() time.Time { return birth.Add(time.Duration(r.IntN(700)) * time.Hour) }
	hits := 0
	for range searches {
		q := Query{
			Stream: pick(Use, ""), Actor: pick("", "", "usr_ann", "usr_\"joe\"", "usr_zoë"), Token: pick("", "tok_1"), Target: pick("", "", "job_1"),
			Action: pick("", "", "token.", "token.revoke", "nothing"), Outcome: pick("", "deny"), Addr: pick("", "2001:db8::1"),
			Reason: pick("", "token_expired"), Text: pick("", "", "evt_1"), Limit: []int{0, 1, 7, 2000}[r.IntN(4)],
		}
		if r.IntN(8) == 0 {
			q = Query{Request: all[r.IntN(len(all))].Request}
		}
		if r.IntN(2) == 0 {
			q.Since = at()
		}
		if r.IntN(3) == 0 {
			q.Until = at()
		}
		var want, got []string
		var match []audit.Event
		for i := range all {
			if q.matches(&all[i]) && strings.Contains(string(all[i].Encode()), q.Text) {
				match = append(match, all[i])
			}
		}
		limit := q.Limit
		if limit == 0 {
			limit = 100
		}
		match = match[max(0, len(match)-limit):]
		slices.SortStableFunc(match, func(a, b audit.Event) int { return a.At.Compare(b.At) })
		for _, e := range match {
			want = append(want, e.ID)
		}
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
