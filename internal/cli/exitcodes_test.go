package cli

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

var update = flag.Bool("update", false, "write the pages of the reference anew")

// reference compares a page with what the code says, or writes it.
func reference(t *testing.T, page, want string) {
	t.Helper()
	path := "../../docs/reference/" + page
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is not what the code says (%v): go test ./internal/cli -run Reference -update", page, err)
	}
}

// The page of exit codes is the list that the help shows.
func TestExitCodesReference(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Exit codes\n\nThe same for every command; `gradegate help exit-codes` shows them too. With `-o json` an error is one JSON object on stderr, whose `code` says\n" +
		"[which one it is](problems.md). The list is made from the code.\n\n| code | meaning | answers of the server |\n|---|---|---|\n")
	for _, x := range exitCodes {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", x.code, x.means, x.status)
	}
	reference(t, "exit-codes.md", b.String())
	got := newMachine(t).run("", "help", "exit-codes")
	for _, x := range exitCodes {
		got.want(t, 0, fmt.Sprintf("%5d  %s\n", x.code, x.means), "")
	}
}

// A failure has the same exit code whichever side finds it, and each answer's
// status is that of one line of the list.
func TestOneExitCode(t *testing.T) {
	for kind, status := range map[fault.Kind]int{
		fault.Internal: 500, fault.Invalid: 400, fault.Unauthenticated: 401, fault.Denied: 403, fault.NotFound: 404, fault.Conflict: 409, fault.TooLarge: 413,
		fault.Unsupported: 415, fault.Limited: 429, fault.Unavailable: 503, fault.Mismatched: 422,
	} {
		theirs, ours := codeOf(&api.Error{Problem: api.Problem{Status: status}}), codeOfKind(kind)
		listed := -1
		for _, x := range exitCodes {
			if strings.Contains(x.status, fmt.Sprint(status)) {
				listed = x.code
			}
		}
		if theirs != ours || theirs != listed {
			t.Errorf("%s: the server's has %d, ours %d, the list %d", kind, theirs, ours, listed)
		}
	}
	a := &app{}
	if _, code := a.problem(t.Context(), amiss{fault.New(fault.Invalid, "x", "It is not in order."), exitJobFailed}); code != exitJobFailed {
		t.Error(code)
	}
	if _, code := a.problem(t.Context(), usage{errors.New("x"), "gradegate"}); code != exitUsage {
		t.Error(code)
	}
}

// Who was refused is sent to explain only where that could tell something, and
// with what it takes to ask the same server as the same person.
func TestWhyIsForWhoCanAsk(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	no := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(401)
		_, _ = fmt.Fprint(w, `{"status":401,"code":"invite_invalid","detail":"No.","request_id":"req_1"}`)
	}
	f.handle("POST /v1/invites/redeem", no).handle("GET /v1/whoami", no)
	m := newMachine(t)
	if got := m.run("", "login", "--invite", secretOf(token.Invite), "--url", f.url); got.code != 4 || strings.Contains(got.errout, "why:") {
		t.Errorf("nobody is signed in: %d %s", got.code, got.errout)
	}
	file := m.write("token", secretOf(token.Personal), 0o600)
	m.run("", "whoami", "--token-file", file, "--url", f.url).want(t, 4, "", "why: gradegate explain req_1 --url "+f.url+" --token-file "+file+"\n")
	stored := newMachine(t, "GRADEGATE_URL="+f.url, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	stored.run("", "whoami").want(t, 4, "", "why: gradegate explain req_1\n")
}

// Who gives somebody a role hears at once that it waits for a new sign-in.
func TestNewRoleWaits(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	before, now := ann(), ann()
	before.EnrolledAt, now.EnrolledAt = &birth, &birth
	now.Role = "admin"
	f.on("GET /v1/users/ann", before).on("PATCH /v1/users/ann", now)
	m.run("", "user", "set", "ann", "--role", "admin", "--url", f.url).want(t, 0, "admin", "has no right of an administrator. It takes a new sign-in, which ends what they hold now: gradegate user invite ann --re-enrol\n")
	f.on("GET /v1/users/ann", now).on("PATCH /v1/users/ann", before)
	if got := m.run("", "user", "set", "ann", "--role", "user", "--url", f.url); strings.Contains(got.errout, "sign-in") {
		t.Errorf("a role that is taken away is gone at once: %s", got.errout)
	}
}
