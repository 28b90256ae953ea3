package cli

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/token"
)

// TestBlockList says why and until when, and who fails most; -o json is the
// API's object.
func TestBlockList(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	until := birth.Add(time.Hour)
	f.on("GET /v1/blocks", api.Blocks{
		Items: []api.Block{
			{Address: "203.0.113.0/24", Note: "scanner", CreatedBy: "usr_1", Creator: "ann", Since: birth, Until: until, Failures: 7, LastFailure: &birth},
			{Address: "198.51.100.1", CreatedBy: "local:0", Since: birth, Until: until},
			{Address: "192.0.2.7", Automatic: true, Times: 3, CreatedBy: "system", Since: birth, Until: until},
			{Address: "2001:db8::/64", Automatic: true, Times: 1, CreatedBy: "system", Since: birth, Until: until},
		},
		Offenders: []api.Offender{{Address: "192.0.2.9", Failures: 4711, Since: birth, Last: birth}},
	})
	got := m.run("", "block", "list", "--url", f.url)
	for _, row := range []string{"203.0.113.0/24  scanner, by ann", "198.51.100.1    by local:0", "192.0.2.7       went on failing, 3 times in a row", "2001:db8::/64   went on failing  "} {
		got.want(t, 0, row, "")
	}
	got.want(t, 0, when(&birth)+"  "+when(&until)+"  7 ", "")
	m.run("", "block", "list", "--offenders", "--url", f.url).want(t, 0, "192.0.2.9  4711", "")
	m.run("", "block", "list", "-o", "name", "--url", f.url).want(t, 0, "203.0.113.0/24\n198.51.100.1\n192.0.2.7\n2001:db8::/64\n", "")
	m.run("", "block", "list", "--offenders", "-o", "json", "--url", f.url).want(t, 0, `"offenders": [`, "")
}

// TestBlockAddAndRemove send what was typed, and say what it did.
func TestBlockAddAndRemove(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	b := api.Block{Address: "2001:db8::/48", Note: "scanner", CreatedBy: "usr_1", Creator: "ann", Since: birth, Until: birth, Failures: 2}
	f.on("POST /v1/blocks", b).on("DELETE /v1/blocks/2001:db8::/48", api.Unblocked{Address: b.Address, Removed: []api.Block{b}}).
		on("DELETE /v1/blocks/192.0.2.7", api.Unblocked{Address: "192.0.2.7", Removed: []api.Block{}})
	m.run("", "block", "add", "2001:db8::/48", "--expires", "7d", "--note", "scanner", "--force", "--url", f.url).
		want(t, 0, "2001:db8::/48  scanner, by ann", "To unblock it: gradegate block remove 2001:db8::/48\n")
	if got := f.last().body; got != `{"address":"2001:db8::/48","expires_in":"7d","note":"scanner","force":true}` {
		t.Error(got)
	}
	m.run("", "block", "remove", "2001:db8::/48", "--url", f.url).want(t, 0, "unblocked  2001:db8::/48\n", "")
	m.run("", "block", "remove", "192.0.2.7", "--url", f.url).want(t, 0, "", "Nothing was blocked there on this node.")
	m.run("", "block", "remove", "--url", f.url).want(t, 2, "", "ADDRESS|NETWORK is missing.")
}

// TestOwnerIsToldOfGuesses by every command, once, and by the pages about tokens.
func TestOwnerIsToldOfGuesses(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	k := laptop()
	k.Guesses = &api.Guesses{Count: 1200, Sources: 3, Since: birth, Last: time.Now().Add(-2 * time.Minute)}
	f.on("GET /v1/tokens/self", k).on("GET /v1/tokens", api.Page[api.Token]{Items: []api.Token{k}})
	f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Token-Guesses", "1200")
		_, _ = w.Write([]byte(`{"user":null,"kind":"pat","scopes":[],"mode":"normal"}`))
	})
	const note = "note: somebody tried 1200 wrong secrets with the id of the token in use; it holds."
	m.run("", "whoami", "--url", f.url).want(t, 0, "", note)
	if got := m.run("", "whoami", "-o", "json", "--url", f.url); strings.Contains(got.errout, "note") {
		t.Error(got.errout)
	}
	const told = "1200 wrong secrets from about 3 addresses, the last 2m ago"
	m.run("", "token", "show", "--url", f.url).want(t, 0, "guessed at    "+told, "")
	m.run("", "token", "list", "--url", f.url).want(t, 0, "laptop", "somebody guesses at the secret of laptop (tok_000000000001): "+told)
}
