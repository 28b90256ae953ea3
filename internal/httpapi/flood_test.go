package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/token"
	"gradegate/internal/trail"
)

// onDisk is a world with a real trail; told closes it and gives its lines.
func onDisk(t *testing.T) (w *world, told func() []trail.Found) {
	t.Helper()
	var n atomic.Int64
	dir := t.TempDir()
	tr, err := trail.Open(trail.Config{
		Dir: dir, Key: keys.New([keys.Size]byte{7}), Now: clock.Wall, Log: slog.New(slog.DiscardHandler),
		NewID: func() string { return fmt.Sprintf("evt_%d", n.Add(1)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	w = build(t, func(d *Deps) { d.Recorder = tr })
	return w, func() []trail.Found {
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		found, err := trail.Search(t.Context(), dir, trail.Query{Stream: trail.Use, Limit: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
}

// flood asks the same many times over, all in one instant, and counts the
// statuses.
func (w *world) flood(n int, method, path string, s token.Secret) map[int]int {
	h, out := w.api.Public(), map[int]int{}
	for range n {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+s.Reveal())
		a := httptest.NewRecorder()
		h.ServeHTTP(a, r)
		if reason := a.Header().Get("X-Auth-Status"); reason == "429" {
			a.Code = http.StatusTooManyRequests
		}
		out[a.Code]++
	}
	return out
}

// TestOneTokenFlood: what is refused counts as well, and one token cannot fill
// the disk with refusals: ten lines of each reason, and one that counts the
// rest and names the token and whose it is. What succeeds has its line.
func TestOneTokenFlood(t *testing.T) {
	w, told := onDisk(t)
	const n = 12_000
	burst := func(c Class) int { return DefaultRates()[c].Burst }
	for path, class := range map[string]Class{"/v1/users": Reading, "/authz/nginx?scope=admin:*": Verifying} {
		if got := w.flood(n, get, path, w.ann); got[403] != burst(class) || got[429] != n-burst(class) {
			t.Errorf("%s: %v", path, got)
		}
	}
	if got := w.flood(n, get, "/v1/whoami", w.bob); got[200] != burst(Reading) || got[429] != n-burst(Reading) {
		t.Errorf("%v", got)
	}
	var allowed, refused int64
	lines := map[[2]string]int{} // by actor and reason
	for _, l := range told() {
		if l.Outcome == audit.Allow {
			allowed++
			continue
		}
		refused += max(1, l.Count)
		lines[[2]string{l.Actor, l.Reason}]++
		if l.Token == "" || l.Count > 0 && l.Action != audit.Aggregate {
			t.Errorf("%+v", l)
		}
	}
	if allowed != int64(burst(Reading)) || refused != 3*n-allowed {
		t.Errorf("%d of %d requests that were allowed are told of, and %d of %d others", allowed, burst(Reading), refused, 3*n-allowed)
	}
	for who, n := range lines {
		if n != 11 || who[0] != "usr_ann" && who[0] != "usr_bob" {
			t.Errorf("%v: %d lines", who, n)
		}
	}
	if len(lines) != 4 { // each route refuses in its way, and the limit does
		t.Errorf("%v", lines)
	}
}

// TestDeadTokenIsTold: who holds the secret of a dead token is named, whatever
// others at the address did before (A29).
func TestDeadTokenIsTold(t *testing.T) {
	w, told := onDisk(t)
	dead := w.give("ann", func(k *token.Token) { k.Standing = token.Revoked })
	w.flood(500, get, "/v1/whoami", token.NewSecret(token.Personal)) // spends the address's budget
	for path, n := range map[string]int{"/v1/whoami": 30, "/authz/forward": 20} {
		if got := w.flood(n, get, path, dead); got[429] != n {
			t.Errorf("%s: %v", path, got)
		}
	}
	var lines, all int64
	for _, l := range told() {
		if l.Token == string(dead.Presented().Public.ID()) {
			lines, all = lines+1, all+max(1, l.Count)
			if l.Actor != "usr_ann" || l.Reason != "token_revoked" {
				t.Errorf("%+v", l)
			}
		}
	}
	if lines != 11 || all != 50 {
		t.Errorf("%d lines tell of %d uses", lines, all)
	}
}

// TestActsAreNotCounted: a request that changes something is announced by a
// line, and if it is refused after all, a line of its own says so.
func TestActsAreNotCounted(t *testing.T) {
	w, told := onDisk(t)
	const n = 40
	w.flood(n, del, "/v1/tokens/tok_nobody", w.ann)
	outcomes := map[audit.Outcome]int{}
	for _, l := range told() {
		if l.Count == 0 {
			outcomes[l.Outcome]++
		}
	}
	if outcomes[audit.Allow] != n || outcomes[audit.Deny] != n {
		t.Errorf("%v", outcomes)
	}
}

// TestHandleIsTold: of a handle that asks for another job, the line names both.
func TestHandleIsTold(t *testing.T) {
	w := build(t)
	s, other := token.NewSecret(token.JobKind), w.job("bob", "running")
	p := s.Presented()
	w.table.ApplyHandle(authn.Handle{Handle: token.Handle{Public: p.Public, Digest: p.Digest}, Kind: token.JobKind, Job: "job_mine", Owner: "usr_ann"})
	w.trail.take()
	a := w.ask(t, get, "/v1/jobs/"+string(other), s, "")
	lines, _, _ := w.trail.take()
	if a.status != 404 || len(lines) != 1 || lines[0].Target != string(other) || lines[0].Detail["handle"] != "job_mine" {
		t.Errorf("%d %+v", a.status, lines)
	}
}
