package trail

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gradegate/internal/audit"
)

func denial(token, actor, reason string) audit.Event {
	return audit.Event{
		ID: "evt_d", At: time.Now(), Action: audit.Request, Outcome: audit.Deny, Reason: reason, Token: token, Actor: actor, Kind: "pat", Addr: "192.0.2.1",
	}
}

// Per token, reason and minute: ten lines, then one with a count that names the
// token and whose it is. A flood of unknown secrets before it changes nothing.
func TestHolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		for i := range ownOfAll + 100 {
			refuse(t, tr, 1, addressOf(i), "token_unknown")
		}
		deny := func(n int, e audit.Event) {
			for range n {
				if err := tr.Refused(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
		}
		handle := audit.Event{ID: "evt_h", At: time.Now(), Action: audit.Authenticate, Outcome: audit.Deny, Reason: "token_revoked", Kind: "job", Target: "job_1"}
		elsewhere := handle
		elsewhere.Target, elsewhere.Detail = "job_2", map[string]string{"handle": "job_1"} // what it asks for is not who it is
		deny(25, denial("tok_1", "usr_1", "denied"))
		deny(25, denial("tok_1", "usr_1", "rate_limited"))
		deny(3, denial("tok_2", "usr_1", "denied"))
		deny(15, handle)
		deny(15, elsewhere)
		<-time.After(62 * time.Second)
		deny(11, denial("tok_1", "usr_1", "denied"))
		shut(t, tr)
	})
	for _, c := range []struct {
		q           Query
		lines, sums int
		all         int64
	}{
		{Query{Token: "tok_1", Reason: "denied"}, 20, 2, 36},
		{Query{Token: "tok_1", Reason: "rate_limited", Actor: "usr_1"}, 10, 1, 25},
		{Query{Token: "tok_2"}, 3, 0, 3},
		{Query{Reason: "token_revoked"}, 10, 1, 30},
	} {
		c.q.Stream, c.q.Limit = Use, 1000
		found, err := Search(t.Context(), dir, c.q)
		if err != nil {
			t.Fatal(err)
		}
		lines, sums, all := 0, 0, int64(0)
		for _, f := range found {
			all += max(1, f.Count)
			if f.Action != audit.Aggregate {
				lines++
				continue
			}
			sums++
			if f.Token != "" && f.Actor != "usr_1" || f.Token == "" && f.Target != "job_1" {
				t.Errorf("%+v", f)
			}
		}
		if lines != c.lines || sums != c.sums || all != c.all {
			t.Errorf("%+v: %d lines, %d with a count, %d refusals", c.q, lines, sums, all)
		}
	}
	if r := verify(t, dir); !r.OK() {
		t.Error(r.Problems)
	}
}

// However many tokens there are, memory is bounded, also while nothing can be
// written. Every refusal is counted; thousands of tokens by themselves.
func TestHoldersAreBounded(t *testing.T) { // alone, since it measures the memory
	r := newRefusals(&Trail{Config: config("", "")})
	before := heap()
	sent, own := int64(0), int64(0)
	send := func(h holder) {
		sent++
		if r.ownOf(h, ownLines) {
			own++
		}
	}
	for minute := range 3 {
		for i := range 4 * maxHolders {
			n := fmt.Sprint(minute, "_", i)
			for range 2 {
				send(holder{token: "tok_" + n, actor: "usr_" + n, reason: "denied"})
			}
		}
		for range 100 {
			send(holder{token: fmt.Sprintf("tok_%d_0", minute), actor: fmt.Sprintf("usr_%d_0", minute), reason: "denied"})
		}
		if len(r.now.holders) != maxHolders || len(r.now.beyond) > maxActors+1 {
			t.Errorf("%d holders and %d others in a minute", len(r.now.holders), len(r.now.beyond))
		}
		if used := heap() - before; used > 20<<20 {
			t.Errorf("%d bytes of memory", used)
		} else {
			t.Logf("%d bytes of memory", used)
		}
		r.turn(true)
	}
	if n := len(r.owed); n > maxHolders+maxActors+1 {
		t.Errorf("%d lines are due", n)
	}
	if n := r.owed[holder{token: "tok_2_0", actor: "usr_2_0", reason: "denied"}]; n != 102-ownLines {
		t.Errorf("%d refusals of one token", n)
	}
	told := own
	for _, n := range r.owed {
		told += n
	}
	if told != sent {
		t.Errorf("%d of %d refusals are told of", told, sent)
	}
}

// As many tokens as are counted by themselves are written in one go, and are
// all there afterwards.
func TestManyHolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := config(dir, "")
	c.SegmentBytes, c.Preallocate = 0, 0
	tr := openWith(t, c)
	for i := range maxHolders {
		h := holder{token: fmt.Sprint("tok_", i), actor: "usr_1", reason: "denied"}
		for range 7 {
			tr.refusals.ownOf(h, 0)
		}
	}
	shut(t, tr)
	found, err := Search(t.Context(), dir, Query{Action: string(audit.Aggregate), Actor: "usr_1", Limit: 2 * maxHolders})
	if err != nil || len(found) != maxHolders || found[0].Count != 7 {
		t.Errorf("%d lines, %v", len(found), err)
	}
	t.Logf("%d bytes", bytesOf(t, filepath.Join(dir, Use)))
	if r := verify(t, dir); !r.OK() {
		t.Error(r.Problems)
	}
}

// A refusal whose line cannot be written is told of later, in a count.
func TestRefusalsWithoutADisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		tr.sinks[0].pause = lastPause / 2
		tr.sinks[0].fail(errHangs)
		for range 5 {
			if tr.Refused(t.Context(), denial("tok_1", "usr_1", "denied")) == nil || tr.Refused(t.Context(), refusal("192.0.2.1", "token_unknown")) == nil {
				t.Error("a line was written without a disk")
			}
		}
		<-time.After(5 * time.Minute)
		shut(t, tr)
		found, err := Search(t.Context(), dir, Query{Action: string(audit.Aggregate)})
		if err != nil || len(found) != 2 || found[0].Count != 5 || found[1].Count != 5 {
			t.Errorf("%+v %v", found, err)
		}
	})
}
