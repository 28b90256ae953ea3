package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gradegate/api"
	"gradegate/internal/token"
)

// TestCredentialOrder: each place is used when those before it are empty, and
// those after it are named as shadowed.
func TestCredentialOrder(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{}
	order := []string{"--token-file", "stdin", "GRADEGATE_TOKEN", "GRADEGATE_TOKEN_FILE", "hosts.yaml", ".netrc"}
	for _, name := range order {
		secrets[name] = secretOf(token.Personal)
	}
	for i := range order {
		f, m := newFake(t), newMachine(t)
		f.on("GET /v1/whoami", api.Whoami{User: ptr(ann()), TokenID: "tok_1", Kind: "pat", Mode: "normal"})
		args, stdin := []string{"whoami", "--url", f.url}, ""
		for _, name := range order[i:] {
			s := secrets[name]
			switch name {
			case "--token-file":
				args = append(args, "--token-file", m.write("flag", s+"\n", 0o644))
			case "stdin":
				args, stdin = append(args, "--token-stdin"), s+"\n"
			case "GRADEGATE_TOKEN":
				m.env = append(m.env, "GRADEGATE_TOKEN="+s)
			case "GRADEGATE_TOKEN_FILE":
				m.env = append(m.env, "GRADEGATE_TOKEN_FILE="+m.write("env", s, 0o600))
			case "hosts.yaml":
				m.write(m.hosts(), "tokens: {\""+f.url+"\": "+s+"}\n", 0o600)
			case ".netrc":
				m.write(".netrc", "machine elsewhere login a password x\nmachine 127.0.0.1\n login ann password "+s+"\n", 0o600)
			}
		}
		got := m.run(stdin, args...)
		got.want(t, 0, order[i], "")
		if f.last().token != secrets[order[i]] {
			t.Errorf("%s was not used", order[i])
		}
		if n := strings.Count(got.errout, "is not used"); n != len(order)-1-i {
			t.Errorf("%s: %d shadowed, want %d: %s", order[i], n, len(order)-1-i, got.errout)
		}
		if strings.Contains(got.out+got.errout, secrets[order[i]]) {
			t.Error("a secret was printed")
		}
	}
}

func ptr[T any](v T) *T { return &v }

// TestTroubleWithAPlaceThatIsNotUsed: a stale file does not stop somebody who
// says which token to use.
func TestTroubleWithAPlaceThatIsNotUsed(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session), "GRADEGATE_TOKEN_FILE=/nowhere")
	f.on("GET /v1/whoami", api.Whoami{User: ptr(ann())})
	m.write(m.hosts(), "tokens: {}\n", 0o644)
	m.run("", "whoami", "--url", f.url).want(t, 0, "ann (user)", "")
}

func TestHostsFileMustBePrivate(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644} {
		f, m := newFake(t), newMachine(t)
		secret := secretOf(token.Personal)
		path := m.write(m.hosts(), "tokens: {\""+f.url+"\": "+secret+"}\n", mode)
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		for _, line := range [][]string{{"whoami"}, {"login", "--invite", secretOf(token.Invite)}} {
			got := m.run("", append(line, "--url", f.url)...)
			got.want(t, 4, "", "fix: chmod 600 "+path)
			if len(f.requests()) != 0 {
				t.Errorf("%o %s: something was sent", mode, line[0])
			}
		}
	}
}

func TestMalformedTokens(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.on("GET /v1/whoami", api.Whoami{User: ptr(ann())})
	good := secretOf(token.Personal)
	for secret, want := range map[string]string{
		good[:60]:       "67 characters",
		good[:66] + "-": "letters and digits",
		"ggxxx_" + good: "starts with",
	} {
		got := newMachine(t, "GRADEGATE_TOKEN="+secret).run("", "whoami", "--url", f.url)
		got.want(t, 4, "", want)
		if strings.Contains(got.errout, secret) || len(f.requests()) != 0 {
			t.Errorf("%q was repeated or sent: %s", secret, got.errout)
		}
	}
	legacy := "8f14e45f-ceea-467f-a9c1-000000000000"
	newMachine(t, "GRADEGATE_TOKEN="+legacy).run("", "whoami", "--url", f.url).want(t, 0, "ann", "")
	if f.last().token != legacy {
		t.Error("an imported token has no form of ours, and is the server's to judge")
	}
	newMachine(t).run(" \n", "whoami", "--token-stdin", "--url", f.url).want(t, 2, "", "stdin is empty")
	m := newMachine(t)
	m.run("", "whoami", "--url", f.url, "--token-file", m.write("empty", "\n", 0o600)).want(t, 2, "", "it is empty")
}

// TestNobodysHome: without a home folder nothing is read from, or written to,
// the folder one happens to be in.
func TestNobodysHome(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{{}, {"HOME="}, {"HOME=."}, {"XDG_CONFIG_HOME=here"}} {
		a := &app{env: env}
		if p := a.hostsFile(); p != "" {
			t.Errorf("%v: %s", env, p)
		}
		if err := a.remember("https://grade.example.org", "x"); err == nil {
			t.Errorf("%v: stored somewhere", env)
		}
	}
}

func TestServerAddress(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(m.hosts(), "current: https://saved.example.org\n", 0o600)
	for _, x := range []struct {
		flag string
		env  []string
		want string
	}{
		{"https://a.example.org/", []string{"GRADEGATE_URL=https://b.example.org"}, "https://a.example.org"},
		{"", []string{"GRADEGATE_URL=https://b.example.org", "GRADEGATE_HOST=c.example.org"}, "https://b.example.org"},
		{"", []string{"GRADEGATE_HOST=c.example.org:8443"}, "https://c.example.org:8443"},
		{"HTTPS://Grade.Example.ORG/gg/", nil, "https://grade.example.org/gg"},
		{"127.0.0.1:8080", nil, "http://127.0.0.1:8080"},
		{"localhost", nil, "http://localhost"},
		{"", nil, "https://saved.example.org"},
	} {
		a := &app{url: x.flag, env: append(x.env, m.env...)}
		if got, err := a.server(); err != nil || got != x.want {
			t.Errorf("%s %v: %s, want %s (%v)", x.flag, x.env, got, x.want, err)
		}
	}
	if got, err := (&app{env: []string{"HOME=" + t.TempDir()}}).server(); err != nil || got != defaultURL {
		t.Error(got, err)
	}
}

func TestNoTokenOverPlainHTTP(t *testing.T) {
	t.Parallel()
	secret := secretOf(token.Personal)
	got := newMachine(t, "GRADEGATE_TOKEN="+secret).run("", "whoami", "--url", "http://grade.example.org")
	got.want(t, 2, "", "fix: Use https://")
}

func TestLogin(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	code, secret := secretOf(token.Invite), secretOf(token.Session)
	f.on("POST /v1/invites/redeem", api.Issued{Secret: secret, User: ptr(ann()), Token: laptop()}).
		on("GET /v1/whoami", api.Whoami{User: ptr(ann())})
	got := m.run(code+"\n", "login", "--url", f.url+"/", "--invite-file", "-", "--name", "box")
	got.want(t, 0, "ann (user)", "Signed in to "+f.url+" as ann (user).")
	if strings.Contains(got.out+got.errout, secret) {
		t.Error("the token was shown")
	}
	if want := `{"code":"` + code + `","name":"box"}`; f.last().body != want || f.last().token != "" {
		t.Errorf("sent %+v", f.last())
	}
	if info, err := os.Stat(m.hosts()); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	// The server is the one to talk to from now on, and the token the one to use.
	m.run("", "whoami").want(t, 0, m.hosts(), "")
	if f.last().token != secret {
		t.Error("the stored token is not used")
	}
	if got := m.run("", "token", "print"); got.out != secret+"\n" {
		t.Errorf("printed %q", got.out)
	}
	m.env = append(m.env, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	m.run("", "login", "--url", f.url, "--invite", code).want(t, 0, "", "warning: the token from GRADEGATE_TOKEN comes before the stored one")
}

func TestLoginSendsCodesOnly(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	m.run("", "login", "--url", f.url).want(t, 2, "", "needs the one-time code")
	m.run("", "login", "--url", f.url, "--invite", secretOf(token.Personal)).want(t, 2, "", "That is a token, and no invite code.")
	good := secretOf(token.Invite)
	swapped := []byte(good)
	if swapped[20]++; swapped[20] > 'z' || swapped[20] == ':' || swapped[20] == '[' {
		swapped[20] -= 2
	}
	for code, want := range map[string]string{
		good[:50]: "has 50 characters, and a code has 67; it was cut off", good + "x": "something was copied with it", string(swapped): "a character of it was changed",
		good[:60] + "-" + good[61:]: "no code has", "CODE": "the word that stands for one", "ann": "begins with gginv_",
	} {
		got := m.run(code, "login", "--url", f.url, "--invite-file", "-")
		got.want(t, 2, "", want)
		if strings.Contains(got.errout, "ggpat") || !strings.Contains(got.errout, "gradegate user invite NAME") {
			t.Errorf("%s: it is told about tokens, or no way on: %s", want, got.errout)
		}
	}
	m.run("", "login", "--url", f.url, "--invite-file", "/nowhere").want(t, 2, "", "/nowhere cannot be read")
	if left, err := os.ReadDir(m.home); err != nil || len(left) != 0 {
		t.Errorf("a login that failed left something behind: %v %v", left, err)
	}
	if len(f.requests()) != 0 {
		t.Errorf("sent %v", f.requests())
	}
}

func TestLoginWithTokenAtHand(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	secret := secretOf(token.Personal)
	f.on("GET /v1/whoami", api.Whoami{User: ptr(ann()), TokenID: "tok_1"})
	m.run(secret, "login", "--url", f.url, "--token-stdin").want(t, 0, "tok_1", "as ann (user)")
	if got := m.run("", "token", "print"); got.out != secret+"\n" {
		t.Errorf("printed %q", got.out)
	}
	f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 401, "token_revoked", "It was revoked.", "") })
	m2 := newMachine(t)
	m2.run(secret, "login", "--url", f.url, "--token-stdin").want(t, 4, "", "It was revoked.")
	m2.run("", "token", "print", "--url", f.url).want(t, 4, "", "Nobody is signed in here.")
}

func TestLogout(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	f.on("POST /oauth2/revoke", api.Revoked{Token: laptop()})
	m.write(m.hosts(), "current: "+f.url+"\ntokens: {\""+f.url+"\": "+secretOf(token.Session)+", \"https://other\": x}\n", 0o600)
	m.run("", "logout").want(t, 0, "", "Signed out of "+f.url+"; the token is revoked.")
	if f.last().route != "POST /oauth2/revoke" {
		t.Error(f.last().route)
	}
	data, err := os.ReadFile(m.hosts())
	if err != nil || strings.Count(string(data), f.url) != 1 || !strings.Contains(string(data), "https://other: x") {
		t.Errorf("%s %v", data, err)
	}
	m.run("", "logout", "--url", f.url).want(t, 0, "", "Nobody is signed in")
}

// TestLogoutSparesOtherMachines: a personal token may be in use elsewhere, so
// that this machine only forgets it, unless it is said.
func TestLogoutSparesOtherMachines(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.on("POST /oauth2/revoke", api.Revoked{Token: laptop()})
	m, secret := signedIn(t, f, token.Personal)
	m.run("", "logout").want(t, 0, "", idOf(t, secret)+", which stays active. To end it, where its owner is signed in, or as an administrator: gradegate token revoke "+idOf(t, secret)+"\n")
	if len(f.requests()) != 0 || (&app{env: m.env}).stored(f.url, idOf(t, secret)) {
		t.Error("it was ended, or kept")
	}
	m, secret = signedIn(t, f, token.Personal)
	m.run("", "logout", "--revoke").want(t, 0, "", "the token is revoked")
	if last := f.last(); last.route != "POST /oauth2/revoke" || last.token != secret || (&app{env: m.env}).stored(f.url, idOf(t, secret)) {
		t.Errorf("%+v", last)
	}
}

// TestLoginTakesAPlace: what was stored before is named with its owner, and what
// becomes of it is said; a session is ended by its own secret, another token is not.
func TestLoginTakesAPlace(t *testing.T) {
	t.Parallel()
	code, joe := secretOf(token.Invite), ann()
	joe.ID, joe.Name = "usr_2", "joe"
	for _, k := range []token.Kind{token.Session, token.Personal} {
		f, fresh := newFake(t), secretOf(token.Session)
		m, old := signedIn(t, f, k)
		f.on("POST /v1/invites/redeem", api.Issued{Secret: fresh, User: ptr(joe), Token: laptop()}).
			on("GET /v1/whoami", api.Whoami{User: ptr(ann())}).on("POST /oauth2/revoke", api.Revoked{})
		becomes := "is ended."
		if k == token.Personal {
			becomes = "stays active, and this machine forgets it."
		}
		m.answers("n\n", "login", "--invite", code).want(t, 1, "", idOf(t, old)+", ann's, which gives way to the new one: it "+becomes+"\nGo on? [y/N] Nothing was done.")
		if f.last().route != "GET /v1/whoami" || !(&app{env: m.env}).stored(f.url, idOf(t, old)) {
			t.Error("a no was taken for a yes")
		}
		got := m.run("", "login", "--invite", code)
		ended, last := f.last().route == "POST /oauth2/revoke" && f.last().token == old, "Ended the session "+idOf(t, old)+", ann's, which was stored here.\n"
		if k == token.Personal {
			last = "This machine has forgotten the token " + idOf(t, old) + ", ann's, which stays active. To end it, where its owner is signed in, or as an administrator: gradegate token revoke " + idOf(t, old) + "\n"
		}
		got.want(t, 0, "joe", last)
		if ended != (k == token.Session) || strings.Contains(got.errout, "warning") || !(&app{env: m.env}).stored(f.url, idOf(t, fresh)) {
			t.Errorf("%v: ended %v %s", k, ended, got.errout)
		}
	}
}

// TestLoginAsksForStrangersOnly: one's own token, and one that is dead, give way
// without a question.
func TestLoginAsksForStrangersOnly(t *testing.T) {
	t.Parallel()
	f, fresh := newFake(t), secretOf(token.Personal)
	m, old := signedIn(t, f, token.Session)
	file, joe := m.write("token", fresh, 0o600), ann()
	joe.ID, joe.Name = "usr_2", "joe"
	owner := map[string]api.User{fresh: ann(), old: joe}
	f.handle("GET /v1/whoami", func(w http.ResponseWriter, r *http.Request) {
		u := owner[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		_ = json.NewEncoder(w).Encode(api.Whoami{User: &u})
	}).on("POST /oauth2/revoke", api.Revoked{})
	m.answers("\n", "login", "--token-file", file).want(t, 1, "", "joe's, which gives way to the new one: it is ended.\nGo on? [y/N] Nothing was done.")
	owner[old] = ann()
	m.answers("", "login", "--token-file", file).want(t, 0, "ann", "Ended the session")
	m.answers("", "login", "--token-file", file).want(t, 0, "ann", "Signed in") // the same once more
	if f.last().route != "GET /v1/whoami" {
		t.Error("it ended itself")
	}
	owner[fresh] = joe
	m.answers("", "login", "--token-file", m.write("other", old, 0o600), "--yes").want(t, 0, "ann", "has forgotten the token "+idOf(t, fresh)+", joe's,")

	f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 401, "token_revoked", "No.", "") }).
		on("POST /v1/invites/redeem", api.Issued{Secret: fresh, User: ptr(ann()), Token: laptop()})
	if got := m.answers("", "login", "--invite", secretOf(token.Invite)); got.code != 0 || strings.Contains(got.errout, idOf(t, old)) {
		t.Errorf("a session that is over was spoken of: %s", got.errout)
	}
	// A token that lasted is: an invite to its own person has ended it.
	m, old = signedIn(t, f, token.Personal)
	m.run("", "login", "--invite", secretOf(token.Invite)).want(t, 0, "ann", "had stored the token "+idOf(t, old)+", which has ended")
}

// TestLogoutWithoutServer: whoever leaves a machine wants the token gone from
// there, whether the server hears of it or not.
func TestLogoutWithoutServer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{0, 503} {
		f, m := newFake(t), newMachine(t)
		u, secret := "http://127.0.0.1:1", secretOf(token.Session)
		if status != 0 {
			u = f.url
			f.handle("POST /oauth2/revoke", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, status, "store_unavailable", "No.", "") })
		}
		m.write(m.hosts(), "current: "+u+"\ntokens: {\""+u+"\": "+secret+"}\n", 0o600)
		m.run("", "logout").want(t, 0, "", "warning: this machine has forgotten its token, but "+u+" could not be told")
		m.run("", "logout", "-q").want(t, 0, "", "")
		if data, err := os.ReadFile(m.hosts()); err != nil || strings.Contains(string(data), secret) {
			t.Errorf("it is still there: %v", err)
		}
	}
}

// TestHostsFileIsALink: who keeps the file elsewhere goes on to do so.
func TestHostsFileIsALink(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	target := m.write("dotfiles/hosts.yaml", "tokens: {a: b}\n", 0o600)
	if err := os.MkdirAll(filepath.Dir(m.hosts()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, m.hosts()); err != nil {
		t.Fatal(err)
	}
	a := &app{env: m.env}
	if err := a.remember("https://grade.example.org", "secret"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(m.hosts()); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced", err)
	}
	if h, err := a.loadHosts(); err != nil || len(h.Tokens) != 2 {
		t.Error(h, err)
	}
}

// TestHostsFileAtOnce: many commands at once lose nothing.
func TestHostsFileAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	done := make(chan error)
	const many = 20
	for i := range many {
		go func() { done <- (&app{env: m.env}).remember(string(rune('a'+i)), "x") }()
	}
	for range many {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if h, err := (&app{env: m.env}).loadHosts(); err != nil || len(h.Tokens) != many {
		t.Error(len(h.Tokens), err)
	}
}

// TestSessionsFollow: a session that has expired is followed by the next one,
// once for many commands at a time; a sign-in that is over is told by what the
// server says of the session.
func TestSessionsFollow(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	first, next := secretOf(token.Session), secretOf(token.Session)
	refresh := []string{secretOf(token.Refresh), secretOf(token.Refresh)}
	var mu sync.Mutex
	asked := 0
	f.handle("POST /oauth2/token", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if r.FormValue("refresh_token") != refresh[0] || r.FormValue("install_id") == "" || asked > 1 {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":"invalid_grant","code":"token_rotated","detail":"It was used."}`)
			return
		}
		_ = json.NewEncoder(w).Encode(api.Refreshed{AccessToken: next, RefreshToken: refresh[1], ExpiresIn: 43200})
	})
	f.handle("GET /v1/whoami", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+next {
			f.refuse(w, 401, "token_expired", "The token has expired.", "Sign in again.")
			return
		}
		_ = json.NewEncoder(w).Encode(api.Whoami{User: ptr(ann())})
	})
	m.write(m.hosts(), "current: "+f.url+"\ntokens: {\""+f.url+"\": "+first+"}\nrefresh: {\""+f.url+"\": "+refresh[0]+"}\n", 0o600)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { m.run("", "whoami").want(t, 0, "ann", "") })
	}
	wg.Wait()
	data, err := os.ReadFile(m.hosts())
	if err != nil || asked != 1 || !strings.Contains(string(data), next) || !strings.Contains(string(data), refresh[1]) || strings.Contains(string(data), first) {
		t.Errorf("asked %d times: %s %v", asked, data, err)
	}
	f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
		f.refuse(w, 401, "token_expired", "The token has expired.", "Sign in again.")
	})
	m.run("", "whoami").want(t, 4, "", "The token has expired.")
	if data, err := os.ReadFile(m.hosts()); err != nil || strings.Contains(string(data), "ggref_") {
		t.Errorf("what does not refresh is kept: %s %v", data, err)
	}
	// One that comes from elsewhere is nobody's to refresh.
	m.env = append(m.env, "GRADEGATE_TOKEN="+first)
	m.run("", "whoami").want(t, 4, "", "The token has expired.")
}

// TestSecretsStayOffTheWire: neither a code nor what has leaked goes over plain
// HTTP to another machine, signed in or not.
func TestSecretsStayOffTheWire(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	leaked := m.write("leaked", secretOf(token.Personal)+"\n", 0o600)
	for _, line := range [][]string{{"login", "--invite", secretOf(token.Invite)}, {"leak", "report", "--file", leaked}} {
		m.run("", append(line, "--url", "http://192.0.2.1:8080")...).want(t, 2, "", "not sent over plain HTTP")
	}
}

// TestHarmless: what a stranger's program prints moves no cursor.
func TestHarmless(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	l := &logWriter{w: &out, harmless: true}
	for _, piece := range []string{"a\x1b[2Jb\u009bc\u202ed\te\n", "gr\xc3", "\xbcn \xff\xe2\x82", "\xac\n"} {
		if _, err := l.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := out.String(), "a?[2Jb?c?d\te\ngrün ?€\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
