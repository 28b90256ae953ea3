package cli

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/token"
)

// issued is an answer with a fresh secret, whose token has that secret's id.
func issued(t *testing.T) api.Issued {
	t.Helper()
	i := api.Issued{Secret: secretOf(token.Personal), Token: laptop()}
	i.Token.ID = idOf(t, i.Secret)
	return i
}

// TestSecretIsShownOnce in the form that was asked for, on stdout alone.
func TestSecretIsShownOnce(t *testing.T) {
	t.Parallel()
	made := issued(t)
	for form, want := range map[string]string{
		"secret": made.Secret + "\n",
		"json":   "{\n  \"secret\": \"" + made.Secret + "\",\n  \"token\": {\n",
		"table":  "secret        " + made.Secret + "\n",
	} {
		f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
		f.on("POST /v1/tokens", made)
		got := m.run("", "token", "create", "--name", "laptop", "--scope", "jobs:read", "--expires", "30d", "-o", form, "--url", f.url)
		if got.code != 0 || !strings.HasPrefix(got.out, want) || strings.Contains(got.errout, made.Secret) {
			t.Errorf("%s: exit %d\n%s\n%s", form, got.code, got.out, got.errout)
		}
		if form != "table" && got.errout != "" {
			t.Errorf("%s: stderr %q", form, got.errout)
		}
		if body := f.last().body; body != `{"name":"laptop","scopes":["jobs:read"],"expires_in":"30d"}` {
			t.Errorf("sent %s", body)
		}
		if _, err := os.Stat(m.hosts()); err == nil {
			t.Error("nobody asked for it to be stored")
		}
	}
}

// TestTokenTable is what people read.
func TestTokenTable(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	old := laptop()
	old.Name, old.State, old.ID, old.Ends = "ci", "revoked", "tok_000000000002", "ended: revoked by its owner"
	f.on("GET /v1/tokens", api.Page[api.Token]{Items: []api.Token{laptop(), old}})
	got := m.run("", "token", "list", "--all", "--url", f.url)
	const want = `NAME    KIND      STATE    LAST USED  ID                VALIDITY
laptop  personal  active   never      tok_000000000001  ends after 30 days unused, at the latest on 24 Nov 2027
ci      personal  revoked  never      tok_000000000002  ended: revoked by its owner
`
	if got.out != want {
		t.Errorf("got\n%swant\n%s", got.out, want)
	}
	m.run("", "token", "list", "-o", "name", "--url", f.url).want(t, 0, "tok_000000000001\ntok_000000000002\n", "")
}

// TestEndedTokensAreNotShown unless somebody asks, and programs get all of them.
func TestEndedTokensAreNotShown(t *testing.T) {
	t.Parallel()
	var all []api.Token
	for _, s := range []token.State{
		token.StateActive, token.StateSuspended, token.StateQuarantined, token.StateUnproven, token.StateOwnerInactive,
		token.StateExpired, token.StateIdleExpired, token.StateRotated, token.StateRevoked,
	} {
		k := laptop()
		k.Name, k.State = "is-"+string(s), string(s)
		all = append(all, k)
	}
	invite := laptop()
	invite.Name, invite.Kind, invite.State, invite.Reason = "invite", "inv", "revoked", "redeemed"
	all = append(all, invite)
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	f.on("GET /v1/tokens", api.Page[api.Token]{Items: all}).on("GET /v1/users/ann/tokens", api.Page[api.Token]{Items: all})
	for _, line := range []string{"token list", "user tokens ann"} {
		words := append(strings.Fields(line), "--url", f.url)
		got := m.run("", words...)
		got.want(t, 0, "is-unproven", "5 ended ones are not shown: --all\n")
		if n := strings.Count(got.out, "\n"); n != 6 || strings.Contains(got.out, "is-revoked") || strings.Contains(got.out, "invite") {
			t.Errorf("%s", got.out)
		}
		got = m.run("", append(words, "--all")...)
		got.want(t, 0, "invite             invite    used ", "")
		if n := strings.Count(got.out, "\n"); n != 11 || got.errout != "" {
			t.Errorf("%s%s", got.out, got.errout)
		}
		if got := m.run("", append(words, "-o", "json")...); strings.Count(got.out, `"id": "tok_`) != 10 || !strings.Contains(got.out, `"state": "revoked"`) || strings.Contains(got.out, `"used"`) {
			t.Errorf("%s", got.out)
		}
	}
	f.on("GET /v1/tokens", api.Page[api.Token]{Items: all[4:6]})
	m.run("", "token", "list", "--url", f.url).want(t, 0, "owner inactive", "1 ended one is not shown: --all\n")
}

// TestNearestClockIsNamed: a lifetime that was asked for is not always what ends
// a token, and whoever set the nearer clock is named.
func TestNearestClockIsNamed(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	made := issued(t)
	end := birth.Add(14 * 24 * time.Hour)
	made.Token.EffectiveExpiresAt, made.Token.EffectiveReason, made.Token.EffectivePolicy = &end, "idle_expires_at", "group:interns"
	f.on("POST /v1/tokens", made).on("GET /v1/tokens/laptop", made.Token)
	m.run("", "token", "create", "--expires", "200d", "--url", f.url).want(t, 0, "nearest end   "+when(&end)+", policy of the group interns\n",
		"Unused for 14d it ends earlier than after 200d: policy of the group interns.\n")
	m.run("", "token", "show", "laptop", "--url", f.url).want(t, 0, ", policy of the group interns\n", "")
	if got := m.run("", "token", "create", "--url", f.url); strings.Contains(got.errout, "Unused") {
		t.Errorf("nothing was asked for: %s", got.errout)
	}
	made.Token.EffectiveReason, made.Token.EffectivePolicy = "expires_at", "token"
	f.on("POST /v1/tokens", made)
	if got := m.run("", "token", "create", "--expires", "3d", "--url", f.url); strings.Contains(got.errout, "Unused") || !strings.Contains(got.out, ", set when the token was made\n") {
		t.Errorf("%s%s", got.out, got.errout)
	}
}

func TestTokenCreateSave(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	made := issued(t)
	f.on("POST /v1/tokens", made)
	got := m.run("", "token", "create", "--save", "--url", f.url)
	got.want(t, 0, made.Token.ID, "Stored in "+m.hosts())
	if strings.Contains(got.out+got.errout, made.Secret) {
		t.Error("what is stored need not be seen")
	}
	if got := m.run("", "token", "print", "--url", f.url); got.out != made.Secret+"\n" {
		t.Errorf("printed %q", got.out)
	}
	// Storing a token for a server does not make it the one to talk to.
	if h, err := (&app{env: m.env}).loadHosts(); err != nil || h.Current != "" {
		t.Error(h.Current, err)
	}
}

// TestSecretSurvivesFullDisk: what exists once is not lost because it cannot
// be stored.
func TestSecretSurvivesFullDisk(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	made := issued(t)
	f.handle("POST /v1/tokens", func(w http.ResponseWriter, _ *http.Request) {
		m.write(".config", "a file where a folder should be", 0o600)
		f.on("POST /v1/tokens", made)
		f.mux["POST /v1/tokens"](w, nil)
	})
	got := m.run("", "token", "create", "--save", "--url", f.url)
	got.want(t, 1, made.Secret+"\n", "could not be stored")
}

// TestRotateKeepsThisMachineGoing: the successor of the stored token takes its
// place, whatever name it was rotated by; that of another one does not.
func TestRotateKeepsThisMachineGoing(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	stored, other, made := secretOf(token.Session), secretOf(token.Personal), issued(t)
	m.write(m.hosts(), "current: "+f.url+"\ntokens: {\""+f.url+"\": "+stored+"}\n", 0o600)

	made.Predecessor = &api.Token{ID: idOf(t, other)}
	f.on("POST /v1/tokens/ci/rotate", made)
	m.run("", "token", "rotate", "ci", "--grace", "10m").want(t, 0, made.Secret, "shown this once")
	if f.last().body != `{"grace":"10m"}` {
		t.Error(f.last().body)
	}
	if got := m.run("", "token", "print"); got.out != stored+"\n" {
		t.Error("the wrong token was stored")
	}

	made.Predecessor = &api.Token{ID: idOf(t, stored)}
	f.on("POST /v1/tokens/self/rotate", made)
	got := m.run("", "token", "rotate")
	got.want(t, 0, made.Token.ID, "Stored in")
	if strings.Contains(got.out, made.Secret) {
		t.Error("the secret was shown")
	}
	if got := m.run("", "token", "print"); got.out != made.Secret+"\n" {
		t.Error("the successor was not stored")
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	stored := secretOf(token.Session)
	m.write(m.hosts(), "current: "+f.url+"\ntokens: {\""+f.url+"\": "+stored+"}\n", 0o600)
	dead := laptop()
	dead.State = "revoked"
	f.on("GET /v1/tokens/laptop", laptop()).on("DELETE /v1/tokens/laptop", api.Revoked{Token: dead, Already: true})
	m.run("", "token", "revoke", "laptop", "--jobs", "cancel", "--reason", "lost it").want(t, 0, "revoked", "It was revoked before.")
	if f.last().body != `{"reason":"lost it","jobs":"cancel"}` {
		t.Error(f.last().body)
	}
	if !(&app{env: m.env}).stored(f.url, idOf(t, stored)) {
		t.Error("another token than the revoked one was forgotten")
	}
	dead.ID = idOf(t, stored)
	f.on("DELETE /v1/tokens/self", api.Revoked{Token: dead})
	m.run("", "token", "revoke", "self", "--yes").want(t, 0, "revoked", "This machine has forgotten it.")
	m.run("", "token", "print").want(t, 4, "", "Nobody is signed in here.")
	m.run("", "logout").want(t, 0, "", "Nobody is signed in to "+f.url) // still the server of this machine
}

func TestRevokeAll(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	f.on("POST /v1/tokens/revoke-all", ann()).on("POST /v1/users/ann/revoke-all", ann())
	m.run("", "token", "revoke-all", "--keep-this", "--url", f.url).want(t, 0, "ann", "")
	if f.last().body != `{"keep":"self"}` {
		t.Error(f.last().body)
	}
	m.run("", "token", "revoke-all", "--user", "ann", "--url", f.url).want(t, 0, "ann", "")
	if f.last().route != "POST /v1/users/ann/revoke-all" {
		t.Error(f.last().route)
	}
}

func TestOffboard(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	gone := ann()
	gone.Status = "offboarded"
	// Nothing can be read, and a leaver is cut off all the same.
	f.on("POST /v1/users/ann/offboard", gone).handle("GET /v1/users/ann", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 503, "store_down", "No.", "") })
	m.run("", "user", "offboard", "ann", "--jobs", "cancel", "--url", f.url).want(t, 0, "offboarded", "")
	if f.last().body != `{"jobs":"cancel"}` {
		t.Error(f.last().body)
	}
}

// TestNarrowAndEnsure: what is not named is not sent, and a script sees whether
// the token was made just now.
func TestNarrowAndEnsure(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	stored := secretOf(token.Session)
	m.write(m.hosts(), "current: "+f.url+"\ntokens: {\""+f.url+"\": "+stored+"}\n", 0o600)
	f.on("PATCH /v1/tokens/laptop", laptop())
	m.run("", "token", "narrow", "laptop", "--scope", "jobs:read").want(t, 0, laptop().ID, "")
	if f.last().body != `{"scopes":["jobs:read"]}` {
		t.Error(f.last().body)
	}
	m.run("", "token", "narrow", "laptop", "--here").want(t, 0, laptop().ID, "")
	if f.last().body != `{"lock_to_last_address":true}` {
		t.Error(f.last().body)
	}
	m.run("", "token", "narrow", "laptop").want(t, 2, "", "Nothing is said of what to take away")

	f.on("PUT /v1/tokens/by-name/laptop", api.Ensured{Token: laptop()})
	m.run("", "token", "ensure", "laptop").want(t, 0, laptop().ID, "there already")
	m.run("", "token", "ensure", "laptop", "-o", "secret").want(t, 6, "", "gradegate token rotate laptop -o secret")
	made := issued(t)
	f.on("PUT /v1/tokens/by-name/laptop", api.Ensured{Created: true, Secret: made.Secret, Token: made.Token})
	m.run("", "token", "ensure", "laptop", "-o", "secret").want(t, 0, made.Secret, "")
	m.run("", "token", "ensure", "laptop", "-o", "json").want(t, 0, `"created": true`, "")
}
