package cli

import (
	"context"
	"io"
	"strings"
	"testing"

	"gradegate/api"
	"gradegate/internal/token"
)

// hanging is an input that nobody types into: whoever reads it waits.
type hanging struct {
	asked chan struct{} // closed by the first read
	never chan struct{}
}

func (h hanging) Read([]byte) (int, error) {
	close(h.asked)
	<-h.never
	return 0, io.EOF
}

// TestInterruptedWhileItReads: one Ctrl-C ends every command that waits for
// somebody to type, and it has done nothing.
func TestInterruptedWhileItReads(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	defer close(never)
	for _, line := range []string{
		"leak report", "login --invite-file -", "whoami --token-stdin", "login --token-stdin",
		"token revoke self", "user offboard ann", "user invite ann", "login --invite " + secretOf(token.Invite),
	} {
		f := newFake(t)
		m, _ := signedIn(t, f, token.Personal)
		joined := ann()
		joined.EnrolledAt = &birth
		f.on("GET /v1/users/ann", joined).on("GET /v1/whoami", api.Whoami{User: ptr(ann())})
		ctx, interrupt := context.WithCancel(t.Context())
		in := hanging{make(chan struct{}), never}
		go func() {
			<-in.asked
			interrupt()
		}()
		var out, errout strings.Builder
		a := &app{args: append(strings.Fields(line), "--url", f.url), env: m.env, stdin: in, stdout: &out, stderr: &errout, attended: true, typed: true}
		if code := a.run(ctx); code != exitInterrupted || !strings.HasSuffix(errout.String(), "\nInterrupted. Nothing was done.\n") || out.String() != "" {
			t.Errorf("%s: %d %s%s", line, code, out.String(), errout.String())
		}
		for _, r := range f.requests() {
			if !strings.HasPrefix(r.route, "GET ") {
				t.Errorf("%s: sent %s", line, r.route)
			}
		}
		interrupt()
	}
}

// TestWaitingIsSaid: whoever sits before a terminal that says nothing is told
// what it waits for.
func TestWaitingIsSaid(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	for line, want := range map[string]string{"leak report": "Waiting for lines on stdin; Ctrl-D ends them.\n", "whoami --token-stdin": "Waiting for the token on stdin"} {
		var errout strings.Builder
		a := &app{args: append(strings.Fields(line), "--url", f.url), env: m.env, stdin: strings.NewReader(""), stdout: io.Discard, stderr: &errout, typed: true}
		if code := a.run(t.Context()); code != 2 || !strings.HasPrefix(errout.String(), want) {
			t.Errorf("%s: %d %s", line, code, errout.String())
		}
	}
}
