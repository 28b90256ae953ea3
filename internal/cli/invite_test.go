package cli

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gradegate/api"
	"gradegate/internal/server"
	"gradegate/internal/token"
)

func TestInvite(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	code := secretOf(token.Invite)
	f.on("POST /v1/users/ann/invite", api.Invited{Code: code, User: ann(), ExpiresAt: birth})
	got := m.run("", "user", "invite", "ann", "--role", "auditor", "--url", f.url)
	got.want(t, 0, "code         "+code, "")
	got.want(t, 0, "gradegate login --url "+f.url+" --invite "+code+"\n", "")
	if f.last().body != `{"role":"auditor"}` {
		t.Error(f.last().body)
	}
	if got := m.run("", "user", "invite", "ann", "-o", "secret", "--url", f.url); got.out != code+"\n" || strings.Contains(got.errout, code) {
		t.Errorf("%q %q", got.out, got.errout)
	}
	n := len(f.requests())
	for _, name := range []string{"Ann Lee", "a..b", "x/y", "local", "-"} {
		for _, verb := range []string{"invite", "create", "show", "offboard"} {
			m.run("", "user", verb, "--url", f.url, "--", name).want(t, 2, "", "A user name has 1 to 63 of a-z")
		}
	}
	if len(f.requests()) != n {
		t.Error("a bad name was sent")
	}
}

// TestReenrolmentIsAsked: an invite that takes something away says what, and
// one that does not is not held up.
func TestReenrolmentIsAsked(t *testing.T) {
	t.Parallel()
	enrolled, suspended, waiting := ann(), ann(), ann()
	enrolled.EnrolledAt, suspended.Status = &birth, "suspended"
	for name, x := range map[string]struct {
		user api.User
		says string
	}{
		"who has signed in": {enrolled, "ann has signed in before"}, "who is suspended": {suspended, "ann is suspended: an invite makes them active again"},
		"who never came in": {waiting, ""},
	} {
		f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
		code := secretOf(token.Invite)
		f.on("GET /v1/users/ann", x.user).on("POST /v1/users/ann/invite", api.Invited{Code: code, User: x.user, ExpiresAt: birth, Reenrolled: x.says != ""})
		line := []string{"user", "invite", "ann", "--url", f.url}
		if x.says == "" {
			m.run("", line...).want(t, 0, code, "")
			continue
		}
		m.answers("\n", line...).want(t, 1, "", "Nothing was done.")
		if f.last().route != "GET /v1/users/ann" {
			t.Errorf("%s: %s", name, f.last().route)
		}
		m.run("", line...).want(t, 0, code, "warning: "+x.says)
		m.run("", append(line, "--re-enrol")...).want(t, 0, code, "warning: ann held credentials before: they are dead now")
		m.answers("y\n", line...).want(t, 0, code, x.says)
	}
}

// atSocket serves the fake at a server's own socket, in a data folder.
func atSocket(t *testing.T, f *fake) (data string) {
	t.Helper()
	data, err := os.MkdirTemp("", "gg") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) })
	l, err := net.Listen("unix", filepath.Join(data, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f} //nolint:gosec // one client, and that is this test
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return data
}

// TestInviteNamesTheServer: at the server's own socket the command to be typed
// names the address that the server left beside it.
func TestInviteNamesTheServer(t *testing.T) {
	t.Parallel()
	code := secretOf(token.Invite)
	for left, want := range map[string]string{"http://127.0.0.1:4711\n": "http://127.0.0.1:4711", "https://grade.example.org\n": "https://grade.example.org", "": "URL"} {
		f, m := newFake(t), newMachine(t)
		data := atSocket(t, f)
		if left != "" {
			if err := os.WriteFile(filepath.Join(data, server.AddressName), []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f.on("POST /v1/users/ann/invite", api.Invited{Code: code, User: ann(), ExpiresAt: birth})
		got := m.run("", "user", "invite", "ann", "--data", data)
		got.want(t, 0, "gradegate login --url "+want+" --invite "+code+"\n", "")
		if strings.Contains(got.errout, "in the place of URL") != (want == "URL") {
			t.Errorf("%q: %s", left, got.errout)
		}
	}
}
