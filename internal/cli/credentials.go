package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/server"
	"gradegate/internal/token"
)

// defaultURL is where a server listens that nobody configured.
const defaultURL = "http://127.0.0.1:8080"

// source is a credential and where it was found.
type source struct {
	secret, from string
}

// String leaves the credential out.
func (s source) String() string { return s.from }

func (a *app) getenv(name string) string {
	for _, kv := range a.env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// server is the URL of the server to talk to.
func (a *app) server() (string, error) {
	for _, u := range []string{a.url, a.getenv("GRADEGATE_URL"), a.getenv("GRADEGATE_HOST")} {
		if u != "" {
			return canonical(u), nil
		}
	}
	h, err := a.loadHosts()
	if err != nil {
		return "", err
	}
	if h.Current != "" {
		return h.Current, nil
	}
	return defaultURL, nil
}

// canonical writes a server's address in one way, since tokens are kept by it.
// A bare host is one that is reached over TLS, save this machine itself.
func canonical(u string) string {
	u = strings.TrimRight(strings.TrimSpace(u), "/")
	if !strings.Contains(u, "://") {
		host, _, _ := strings.Cut(u, ":")
		if host == "localhost" || strings.HasPrefix(host, "127.") || strings.HasPrefix(u, "[::1]") {
			return "http://" + u
		}
		u = "https://" + u
	}
	p, err := url.Parse(u)
	if err != nil {
		return u // the client says what is wrong with it
	}
	p.Scheme, p.Host = strings.ToLower(p.Scheme), strings.ToLower(p.Host)
	return p.String()
}

// client makes a client with the credential of this machine.
func (a *app) client() (*api.Client, error) {
	if a.data != "" {
		return a.socket()
	}
	u, err := a.server()
	if err != nil {
		return nil, err
	}
	if a.credential, a.shadowed, err = a.find(u); err != nil {
		return nil, err
	}
	c, err := api.NewClient(u, a.credential.secret)
	if err == nil {
		c.Answered = a.noteEnd
	}
	if err == nil && a.credential.from == a.hostsFile() && a.hostsFile() != "" {
		c.Refresh = func(ctx context.Context, ended string) (string, error) { return a.refresh(ctx, u, ended) }
		h, _ := a.loadHosts() // it was just read
		a.follows = h.Refresh[u] != ""
	}
	return c, err
}

// refresh gives the session that follows one that has ended. Several commands
// at once meet at the lock of the file: the first refreshes, and the others find
// what it has stored.
func (a *app) refresh(ctx context.Context, u, ended string) (fresh string, err error) {
	trouble := a.change(func(h *hosts) {
		if fresh = h.Tokens[u]; fresh != ended || h.Refresh[u] == "" {
			return
		}
		fresh = ""
		if h.Install == "" {
			h.Install = rand.Text()
		}
		var client *api.Client
		if client, err = api.NewClient(u, ""); err != nil {
			return
		}
		var next api.Refreshed
		if next, err = client.RefreshSession(ctx, h.Refresh[u], h.Install); err == nil {
			fresh = next.AccessToken
			h.put(u, next.AccessToken, next.RefreshToken)
		} else if isOver(err) {
			delete(h.Refresh, u) // the sign-in is over
		}
	})
	if fresh == ended {
		fresh = "" // nothing newer
	}
	return fresh, errors.Join(err, trouble)
}

// isOver reports whether a refresh was answered, and with no.
func isOver(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Status == http.StatusBadRequest
}

// noteEnd remembers when the token in use ends, as an answer tells. The idle
// clock is left out: this very use has set it back.
func (a *app) noteEnd(h http.Header) {
	s, err := strconv.Atoi(h.Get("X-Token-Expires-In"))
	reason := h.Get("X-Token-Expires-Reason")
	if err == nil && reason != "idle_expires_at" {
		a.endsIn.Store(int64(time.Duration(s) * time.Second))
	}
	if due, err := time.Parse(time.RFC3339, h.Get("X-Token-Rotate-By")); err == nil {
		a.rotateBy.Store(&due)
	}
	a.inGrace.Store(reason == "grace_until")
	if n, err := strconv.ParseInt(h.Get("X-Token-Guesses"), 10, 64); err == nil {
		a.guesses.Store(n)
	}
}

// warnOfGuesses says that somebody knows the id of the token in use.
func (a *app) warnOfGuesses() {
	if n := a.guesses.Load(); n > 0 {
		a.hint("note: somebody tried %s with the id of the token in use; it holds. From where: gradegate token show self", count(int(n), "wrong secret"))
	}
}

// warnOfRotation says on every command that the rotation of the token in use is due.
func (a *app) warnOfRotation() {
	if due := a.rotateBy.Load(); due != nil {
		a.hint("note: the rotation of the token in use has been due since %s: gradegate token rotate", when(due))
	}
}

// warnOfEnd says in good time, and on every command, that the token in use ends.
// A session lives for hours: there, only the last half hour is news.
func (a *app) warnOfEnd() {
	left, soon := time.Duration(a.endsIn.Load()), 7*24*time.Hour
	how := "Your jobs go on; for a new one: gradegate token rotate"
	switch {
	case a.inGrace.Load():
		how = "It was rotated: put its successor in its place in " + a.credential.from
	case a.follows:
		return // by the next session
	case strings.HasPrefix(a.credential.secret, "ggses_"):
		soon, how = 30*time.Minute, "Your jobs go on; for a new one: gradegate token create --save"
	case strings.HasPrefix(a.credential.secret, "ggjob_"):
		return // a job's handle ends with its job and has no successor
	}
	if left > 0 && left < soon {
		a.hint("note: the token in use ends in %s. %s", config.FormatDuration(left.Round(time.Minute)), how)
	}
}

// socket makes a client of the server's own socket: the local administrator.
func (a *app) socket() (*api.Client, error) {
	dir, err := filepath.Abs(a.data)
	if err != nil {
		return nil, err
	}
	return api.NewClient("unix://"+filepath.Join(dir, server.SocketName), "")
}

// open makes a client that shows no credential, and so works where the stored
// one is damaged.
func (a *app) open() (*api.Client, error) {
	if a.data != "" {
		return a.socket()
	}
	u, err := a.server()
	if err != nil {
		return nil, err
	}
	return api.NewClient(u, "")
}

// find looks for a token in the documented order, and names the places that
// would have had one too.
func (a *app) find(u string) (found source, shadowed []string, err error) {
	places := []func() (source, error){
		func() (source, error) { return a.fromFile(a.tokenFile, "--token-file") },
		a.fromStdin,
		func() (source, error) { return source{a.getenv("GRADEGATE_TOKEN"), "GRADEGATE_TOKEN"}, nil },
		func() (source, error) { return a.fromFile(a.getenv("GRADEGATE_TOKEN_FILE"), "GRADEGATE_TOKEN_FILE") },
		func() (source, error) {
			h, err := a.loadHosts()
			return source{h.Tokens[u], a.hostsFile()}, err
		},
		func() (source, error) { return a.fromNetrc(u) },
	}
	for _, place := range places {
		s, err := place()
		if err != nil && found.secret == "" {
			return found, nil, err
		}
		if err != nil {
			continue // trouble with a place that would not be used is none
		}
		s.secret = strings.TrimSpace(s.secret)
		switch {
		case s.secret == "":
		case found.secret == "":
			found = s
		case s.secret != found.secret:
			shadowed = append(shadowed, s.from)
		}
	}
	// A token of ours has a checksum, so that a slip is found here. What does not
	// look like one may be an imported token and is the server's to judge.
	if strings.HasPrefix(found.secret, "gg") {
		if _, err := token.Parse(found.secret); err != nil {
			return found, nil, fault.New(fault.Unauthenticated, "token_malformed", "The token from %s is malformed: %v; it has %d characters.", found.from, err, len(found.secret)).
				WithFix("Copy it again, whole, or sign in: gradegate login --invite CODE")
		}
	}
	return found, shadowed, nil
}

func (a *app) fromFile(path, from string) (source, error) {
	if path == "" {
		return source{}, nil
	}
	text, err := readFile(path, from)
	return source{text, from + " " + path}, err
}

// readFile reads a file that a flag or a variable names; an empty one is a
// mistake.
func readFile(path, from string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(data)) == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fault.Wrap(fault.Invalid, "file_unreadable", fmt.Sprintf("%s: %s cannot be read: %v.", from, path, plainly(err)), err).
			WithFix("Name a file that is there and has something in it with %s.", from)
	}
	return string(data), nil
}

// plainly is an error of the system without the operation and the path, which
// the message around it has.
func plainly(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

func (a *app) fromStdin() (source, error) {
	if !a.tokenStdin || a.stdinTaken {
		return source{}, nil
	}
	a.stdinTaken = true
	if a.typed {
		a.hint("Waiting for the token on stdin; Ctrl-D ends it.")
	}
	data, err := io.ReadAll(io.LimitReader(a.stdin, 4096))
	if err == nil && strings.TrimSpace(string(data)) == "" {
		err = fault.New(fault.Invalid, "token_stdin", "--token-stdin is given, and stdin is empty.").WithFix("printf %s \"$TOKEN\" | gradegate whoami --token-stdin")
	}
	return source{string(data), "stdin"}, err
}
