package story

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"gradegate/api"
	"gradegate/internal/token"
	"gradegate/internal/token/tokentest"
)

// status asks whoami with a secret, in the name of an address, and tells the
// code of the refusal; "" if there is none.
func (w *world) status(secret, from string) string {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+"/v1/whoami", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("X-Forwarded-For", from)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	if a.StatusCode == http.StatusOK {
		return ""
	}
	text, err := io.ReadAll(a.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return object[api.Problem](w.t, string(text)).Code
}

// R8.5: a block that an administrator made is in force after a kill, refuses
// failures alone, and is gone with one word.
func TestBlocksOutliveARestart(t *testing.T) {
	t.Parallel()
	w := start(t, "GRADEGATE_TRUSTED_PROXIES=127.0.0.1")
	w.must("boss", "login", "--invite", w.code)
	good := w.must("boss", "token", "create", "--name", "laptop", "-o", "secret")
	w.must("boss", "block", "add", "203.0.113.0/24", "--note", "scanner", "--expires", "7d")
	for range 2 {
		if code := w.status(token.NewSecret(token.Personal).Reveal(), "203.0.113.9"); code != "address_blocked" {
			t.Errorf("a wrong token: %q", code)
		}
		if code := w.status(strings.TrimSpace(good), "203.0.113.9"); code != "" {
			t.Errorf("a valid token: %q", code)
		}
		if out := w.must("boss", "block", "list"); !strings.Contains(out, "203.0.113.0/24  scanner, by ") {
			t.Error(out)
		}
		w.end(syscall.SIGKILL)
		w.run(strings.TrimPrefix(w.url, "http://"))
	}
	if out := w.must("boss", "block", "remove", "203.0.113.0/24"); !strings.Contains(out, "unblocked  203.0.113.0/24\n") {
		t.Error(out)
	}
	if code := w.status(token.NewSecret(token.Personal).Reveal(), "203.0.113.9"); code != "token_unknown" {
		t.Errorf("afterwards: %q", code)
	}
}

// R8.3: the owner of a token is told of guesses at it, also after a restart, and
// the trail tells whose it is.
func TestGuessesOutliveARestart(t *testing.T) {
	t.Parallel()
	w := start(t, "GRADEGATE_TRUSTED_PROXIES=127.0.0.1")
	w.must("boss", "login", "--invite", w.code)
	secret := strings.TrimSpace(w.must("boss", "token", "create", "--name", "laptop", "-o", "secret"))
	p, err := token.Parse(secret)
	if err != nil {
		t.Fatal(err)
	}
	id := string(p.Public.ID())
	for round := range 2 {
		for i := range 12 {
			want := "token_unknown"
			if i >= 10 {
				want = "too_many_failures"
			}
			if code := w.status(tokentest.Guess(p.Public.ID()).Reveal(), []string{"203.0.113.1", "203.0.113.2"}[round]); code != want {
				t.Errorf("the %dth guess: %q", i, code)
			}
		}
		w.end(syscall.SIGTERM)
		w.run(strings.TrimPrefix(w.url, "http://"))
	}
	if out := w.must("boss", "token", "show", id); !strings.Contains(out, "guessed at     24 wrong secrets from about 2 addresses, ") {
		t.Error(out)
	}
	if _, errs, _ := w.cli("boss", "token", "list"); !strings.Contains(errs, "note: somebody guesses at the secret of laptop ("+id+"): 24 wrong secrets") {
		t.Error(errs)
	}
	me := object[api.Whoami](t, w.must("boss", "whoami", "-o", "json"))
	lines := object[struct{ Items []api.AuditEvent }](t, w.must("boss", "audit", "search", "--action", "token.guess", "-o", "json")).Items
	if len(lines) != 2 || lines[0].Count+lines[1].Count != 24 || lines[0].Owner != me.User.ID || lines[0].Target != id || lines[0].Actor != "" {
		t.Errorf("%+v", lines)
	}
}
