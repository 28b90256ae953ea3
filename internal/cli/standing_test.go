package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"gradegate/api"
	"gradegate/internal/token"
)

// signedIn is a machine that has stored a token of the kind for the fake.
func signedIn(t *testing.T, f *fake, k token.Kind) (*machine, string) {
	t.Helper()
	m, secret := newMachine(t), secretOf(k)
	m.write(m.hosts(), "current: "+f.url+"\ntokens: {\""+f.url+"\": "+secret+"}\n", 0o600)
	return m, secret
}

// answers runs a command of somebody at a terminal who types a line.
func (m *machine) answers(line string, args ...string) done {
	m.t.Helper()
	var out, errout strings.Builder
	a := &app{args: args, env: m.env, stdin: strings.NewReader(line), stdout: &out, stderr: &errout, attended: true}
	code := a.run(context.WithoutCancel(m.t.Context()))
	return done{code, out.String(), errout.String()}
}

// TestTokenInUse: nobody locks himself out without having said so, whatever
// name the token is given; what is not in use is not asked about.
func TestTokenInUse(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	m, secret := signedIn(t, f, token.Personal)
	own, other := laptop(), laptop()
	own.ID, other.Name = idOf(t, secret), "ci"
	f.on("GET /v1/tokens/laptop", own).on("GET /v1/tokens/ci", other).
		on("POST /v1/tokens/ci/suspend", other).on("DELETE /v1/tokens/ci", api.Revoked{Token: other})
	for _, line := range []string{
		"token suspend laptop", "token suspend self", "token suspend " + own.ID, "token revoke laptop", "token revoke self", "token revoke " + own.ID, "token revoke-all",
	} {
		m.answers("n\n", strings.Fields(line)...).want(t, 1, "", "Go on? [y/N] Nothing was done.\n")
		m.answers("", strings.Fields(line)...).want(t, 1, "", "Nothing was done.\n")
	}
	for _, a := range f.requests() {
		if !strings.HasPrefix(a.route, "GET ") {
			t.Errorf("sent %s", a.route)
		}
	}
	m.run("", "token", "suspend", "ci").want(t, 0, "ci", "gradegate token resume "+other.ID)
	m.run("", "token", "revoke", "ci").want(t, 0, "ci", "")

	own.State = "suspended"
	f.on("POST /v1/tokens/laptop/suspend", own).on("POST /v1/tokens/self/suspend", own)
	for _, got := range []done{m.run("", "token", "suspend", "laptop", "--yes"), m.answers("y\n", "token", "suspend", "self")} {
		got.want(t, 0, "suspended", "gradegate token resume laptop; else an administrator types: gradegate token resume "+own.ID)
	}
}

// TestRevokeAllForgets: a token that is known to be dead is not kept, and one
// that is spared is.
func TestRevokeAllForgets(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.on("POST /v1/tokens/revoke-all", ann())
	for flag, kept := range map[string]bool{"--keep-this": true, "--yes": false} {
		m, secret := signedIn(t, f, token.Personal)
		m.run("", "token", "revoke-all", flag).want(t, 0, "ann", "")
		if got := (&app{env: m.env}).stored(f.url, idOf(t, secret)); got != kept {
			t.Errorf("%s: stored %v", flag, got)
		}
	}
}

// TestQuoted: a word comes back as a shell takes it.
func TestQuoted(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{"laptop": "laptop", "my laptop": "'my laptop'", "it's": `'it'\''s'`, "": "''"} {
		if got := quoted(word); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestRevokeSelfTwice: an answer that was lost leaves the token revoked, which
// is what was asked for.
func TestRevokeSelfTwice(t *testing.T) {
	t.Parallel()
	for code, exit := range map[string]int{"token_revoked": 0, "token_suspended": 4} {
		f := newFake(t)
		m, secret := signedIn(t, f, token.Personal)
		f.handle("DELETE /v1/tokens/self", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 401, code, "It is so.", "") })
		got := m.run("", "token", "revoke", "self", "--yes")
		got.want(t, exit, "", "")
		if kept := (&app{env: m.env}).stored(f.url, idOf(t, secret)); kept != (exit != 0) {
			t.Errorf("%s: stored %v", code, kept)
		}
		if exit == 0 {
			got.want(t, 0, idOf(t, secret), "It was revoked before.")
		}
	}
}

// TestScopelessTokenRevokesItself: also by its name, though it may see no tokens.
func TestScopelessTokenRevokesItself(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	m, secret := signedIn(t, f, token.Personal)
	own := laptop()
	own.ID = idOf(t, secret)
	f.handle("GET /v1/tokens/laptop", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 403, "scope_missing", "No.", "") }).
		on("DELETE /v1/tokens/laptop", api.Revoked{Token: own})
	m.run("", "token", "revoke", "laptop").want(t, 0, own.ID, "This machine has forgotten it.")
}

// TestReplaceKeepsThisMachineGoing: what takes the place of the stored token
// takes its place in the file.
func TestReplaceKeepsThisMachineGoing(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	m, secret := signedIn(t, f, token.Personal)
	own, made := laptop(), issued(t)
	own.ID = idOf(t, secret)
	f.on("GET /v1/tokens/laptop", own).on("POST /v1/tokens", made)
	got := m.run("", "token", "create", "--name", "new", "--replace", "laptop")
	got.want(t, 0, made.Token.ID, "Stored in "+m.hosts())
	if strings.Contains(got.out, made.Secret) || strings.Contains(got.errout, "may still be active") {
		t.Errorf("%s%s", got.out, got.errout)
	}
	if body := f.last().body; !strings.Contains(body, `"replace":"`+own.ID+`"`) {
		t.Error(body)
	}
	if got := m.run("", "token", "print", "-o", "json"); !strings.Contains(got.out, `"secret": "`+made.Secret+`"`) || !strings.Contains(got.out, `"id": "`+made.Token.ID+`"`) {
		t.Errorf("%s", got.out)
	}
	if got := m.run("", "token", "print", "-o", "name"); got.out != made.Token.ID+"\n" {
		t.Errorf("%s", got.out)
	}
}

// TestForeignTokenIsReplacedByItsOwner: a token that came from elsewhere is not
// ours to overwrite, so that its successor is shown, and where it belongs.
func TestForeignTokenIsReplacedByItsOwner(t *testing.T) {
	t.Parallel()
	f, secret, made := newFake(t), secretOf(token.Personal), issued(t)
	own := laptop()
	own.ID, own.Ends = idOf(t, secret), "was rotated; ends tomorrow"
	made.Predecessor = &own
	f.on("POST /v1/tokens/self/rotate", made).on("POST /v1/tokens", made).on("GET /v1/tokens/laptop", own)
	m := newMachine(t)
	file := m.write("my-token", secret, 0o600)
	for from, env := range map[string]string{"GRADEGATE_TOKEN": "GRADEGATE_TOKEN=" + secret, "GRADEGATE_TOKEN_FILE " + file: "GRADEGATE_TOKEN_FILE=" + file} {
		m := newMachine(t, env)
		m.run("", "token", "rotate", "--url", f.url).want(t, 0, made.Secret, "warning: the token that you are using comes from "+from+": put the new one there. The old one was rotated; ends tomorrow")
		m.run("", "token", "create", "--replace", "laptop", "--url", f.url).want(t, 0, made.Secret, "came from "+from+" and is dead: put the new one there")
		if _, err := os.Stat(m.hosts()); err == nil {
			t.Error("it was stored")
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != secret {
		t.Error("a file of somebody's own was changed", err)
	}
}

// TestNameAloneLosesNoSecret: beside the id alone, the secret is on stderr, unless
// it is stored.
func TestNameAloneLosesNoSecret(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	m, secret := signedIn(t, f, token.Personal)
	own, other, made := laptop(), laptop(), issued(t)
	own.ID, other.Name = idOf(t, secret), "ci"
	f.on("GET /v1/tokens/ci", other).on("POST /v1/tokens/ci/rotate", made).on("POST /v1/tokens", made)
	for _, line := range [][]string{{"token", "rotate", "ci", "-o", "name"}, {"token", "create", "-o", "name"}} {
		if got := m.run("", line...); got.code != 0 || got.out != made.Token.ID+"\n" || !strings.Contains(got.errout, made.Secret) {
			t.Errorf("%v: %d %s%s", line, got.code, got.out, got.errout)
		}
	}
	made.Predecessor = &own
	f.on("POST /v1/tokens/self/rotate", made)
	if got := m.run("", "token", "rotate", "-o", "name"); got.code != 0 || got.out != made.Token.ID+"\n" || strings.Contains(got.errout, made.Secret) {
		t.Errorf("%d %s%s", got.code, got.out, got.errout)
	}
}

// TestSessionEndsWithItsPlace: a session whose secret was overwritten does not
// live on unseen; another token that was stored there is named.
func TestSessionEndsWithItsPlace(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	m, session := signedIn(t, f, token.Session)
	made := issued(t)
	f.on("POST /v1/tokens", made).on("POST /oauth2/revoke", api.Revoked{Token: laptop()})
	m.run("", "token", "create", "--save").want(t, 0, made.Token.ID, "The session of the login ("+idOf(t, session)+") was ended")
	if last := f.last(); last.route != "POST /oauth2/revoke" || last.token != session {
		t.Errorf("%s with another token than the session", last.route)
	}

	m, session = signedIn(t, f, token.Session)
	f.handle("POST /oauth2/revoke", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 500, "internal", "No.", "") })
	m.run("", "token", "create", "--save").want(t, 0, made.Token.ID, "warning: the session of the login ("+idOf(t, session)+") could not be ended")

	m, secret := signedIn(t, f, token.Personal)
	n := len(f.requests())
	m.run("", "token", "create", "--save").want(t, 0, made.Token.ID, idOf(t, secret)+", which was stored here before, may still be active")
	if all := f.requests(); len(all) != n+1 {
		t.Error("a token that is not a session was ended")
	}
}

// TestGraceIsAnnounced: a rotated token is not to be rotated once more.
func TestGraceIsAnnounced(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Token-Expires-In", "3600")
		w.Header().Set("X-Token-Expires-Reason", "grace_until")
		_ = json.NewEncoder(w).Encode(api.Whoami{})
	})
	m.run("", "whoami", "--url", f.url).want(t, 0, "", "It was rotated: put its successor in its place in GRADEGATE_TOKEN")
}
