package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gradegate/api"
)

// site is the documented nginx that asks gradegate about requests to something
// else: to files, and to a service that remembers what reached it.
func site(t *testing.T, g *grader) (front, func() *http.Request) {
	t.Helper()
	program(t, "nginx")
	reached := make(chan *http.Request, 1)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached <- r
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(service.Close)
	dir := folder(t)
	f := front{address: freeAddress(t), roots: certificate(t, dir, "grade.example.org", "files.example.org"), host: "files.example.org"}
	if err := os.MkdirAll(filepath.Join(dir, "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "files", "data.csv"), "a,b\n1,2\n")
	nginx(t, dir, f.address, swap(t, block(t, "## nginx", "nginx")+block(t, "## Tokens for other services: auth_request", "nginx"),
		append(places(g, f, dir), "/srv/files", dir+"/files", "http://127.0.0.1:9000", service.URL)...))
	return f, func() *http.Request {
		select {
		case r := <-reached:
			return r
		default:
			return nil
		}
	}
}

// ask sends one request to the site.
func (f front) ask(t *testing.T, from, path, secret, lines string) answer {
	t.Helper()
	if secret != "" {
		lines += "Authorization: Bearer " + secret + "\r\n"
	}
	return f.send(t, from, "GET "+path+" HTTP/1.1\r\nHost: "+f.host+"\r\n"+lines+"\r\n")
}

// TestAuthRequest: a good token gets the file; every other one gets what the
// client needs to know, and never the file.
func TestAuthRequest(t *testing.T) {
	g := start(t, block(t, "# Behind nginx or HAProxy", "yaml"), 0)
	f, reached := site(t, g)
	limited, err := g.ann.CreateToken(context.Background(), api.CreateToken{Name: "limited", Scopes: []string{"tokens:self"}, Replace: "bound"})
	if err != nil {
		t.Fatal(err)
	}
	revoked := g.bound // replaced just now
	if a := f.ask(t, stranger, "/data.csv", g.free, ""); a.status != http.StatusOK || a.body != "a,b\n1,2\n" {
		t.Errorf("a good token: %+v", a)
	}
	for name, c := range map[string]struct {
		secret, challenge string
		status            int
	}{
		"no token":      {"", "Bearer", 401},
		"revoked token": {revoked, `error="invalid_token"`, 401},
		"nonsense":      {"ggpat_nonsense", `error="invalid_token"`, 401},
		"wrong scope":   {limited.Secret, "", 403},
	} {
		for _, path := range []string{"/data.csv", "/service/x", "/service/../data.csv", "//data.csv"} {
			a := f.ask(t, stranger, path, c.secret, "")
			if a.status != c.status || strings.Contains(a.body, "a,b") || !strings.Contains(a.header.Get("WWW-Authenticate"), c.challenge) {
				t.Errorf("%s, %s: %d %v", name, path, a.status, a.header)
			}
			if c.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `Bearer realm="gradegate"`) {
				t.Errorf("%s: the challenge is not gradegate's: %q", name, a.header.Get("WWW-Authenticate"))
			}
		}
	}
	if r := reached(); r != nil {
		t.Errorf("a refused request reached the service: %v", r.Header)
	}
	// Nobody asks the inner location directly.
	if a := f.ask(t, stranger, "/_gradegate", g.free, ""); a.status != http.StatusNotFound {
		t.Errorf("the inner location: %d", a.status)
	}
}

// TestAuthRequestHeaders: the service learns who asks from gradegate and not
// from the client, and does not get the token.
func TestAuthRequestHeaders(t *testing.T) {
	g := start(t, block(t, "# Behind nginx or HAProxy", "yaml"), 0)
	f, reached := site(t, g)
	me, err := g.ann.Whoami(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	forged := "X-Auth-Username: root\r\nx-auth-user-id: usr_root\r\nX-Auth-Scopes: admin:*\r\nX_Auth_Username: root\r\nX-Auth-Username: root\r\n" +
		"X-Original-Method: DELETE\r\nX-Original-URI: /else\r\nX-Forwarded-For: " + friend + "\r\n"
	if a := f.ask(t, stranger, "/service/run?x=1", g.free, forged); a.status != http.StatusNoContent {
		t.Fatalf("%+v", a)
	}
	r := reached()
	for name, want := range map[string]string{"X-Auth-Username": "ann", "X-Auth-User-Id": me.User.ID, "X-Auth-Scopes": strings.Join(me.Scopes, " ")} {
		if got := r.Header[name]; len(got) != 1 || got[0] != want || want == "" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, values := range r.Header {
		if text := strings.Join(values, " "); strings.Contains(text, "root") || strings.Contains(text, "gg") {
			t.Errorf("%s holds the token or a lie, and reached the service", name)
		}
	}
	// A token that is bound to friend's address works there and nowhere else.
	if a := f.ask(t, friend, "/service/", g.bound, ""); a.status != http.StatusNoContent {
		t.Errorf("from friend: %d", a.status)
	}
	if a := f.ask(t, stranger, "/service/", g.bound, "X-Forwarded-For: "+friend+"\r\n"); a.status != http.StatusForbidden {
		t.Errorf("from stranger: %d", a.status)
	}
}

// TestAuthRequestDown: when gradegate does not answer, a client is told to come
// back, and neither let in nor told that its token is wrong.
func TestAuthRequestDown(t *testing.T) {
	g := start(t, block(t, "# Behind nginx or HAProxy", "yaml"), 0)
	f, reached := site(t, g)
	g.stop()
	for _, path := range []string{"/data.csv", "/service/"} {
		a := f.ask(t, stranger, path, g.free, "")
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "2" || strings.Contains(a.body, "a,b") || reached() != nil {
			t.Errorf("%s: %+v", path, a)
		}
	}
}
