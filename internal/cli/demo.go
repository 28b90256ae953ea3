package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/examples"
)

func (a *app) demo() *cobra.Command {
	var leave bool
	var grace time.Duration
	c := &cobra.Command{
		Use: "demo", Short: "The whole story on a fresh server in a temporary folder", Args: cobra.NoArgs,
		Long: `Starts a real server on loopback, with its data in a temporary folder, and plays
the whole story through its API: people, tokens, jobs, grades, a leak, a crash.
A step that does not hold prints FAIL, keeps the folder and ends with an error.
Without --exit the server then stays up, until Ctrl-C ends it and removes the folder.`,
		Example: "  gradegate demo --exit",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.play(cmd.Context(), leave, grace)
		},
	}
	c.Flags().BoolVar(&leave, "exit", false, "stop at the end; otherwise the server stays up")
	c.Flags().DurationVar(&grace, "grace", 2*time.Second, "grace period of the rotation, shortened from 24h")
	return c
}

// stage is where the story plays: the folder, the server, and the people with
// their clients.
type stage struct {
	app     *app
	dir     string
	url     string
	invite  string
	sandbox string // as the server reports it
	child   *exec.Cmd
	out     *os.File
	grace   time.Duration

	admin, ann, joe      *api.Client
	token, successor     api.Issued
	program, predictions api.Job
	long                 api.Submitted
	rotatedAt            time.Time
}

// play goes through the story, one line and one time for each step.
func (a *app) play(ctx context.Context, leave bool, grace time.Duration) error {
	dir, err := os.MkdirTemp("", "gradegate-demo-")
	if err != nil {
		return err
	}
	s := &stage{app: a, dir: dir, grace: grace}
	if err := os.CopyFS(dir, examples.Iris); err != nil {
		return err
	}
	began := time.Now()
	for _, step := range story {
		start := time.Now()
		detail, err := step.do(s, ctx)
		took := time.Since(start).Round(time.Millisecond)
		if err != nil && ctx.Err() != nil {
			return errors.Join(stopped("The demo's server is stopped and its folder removed."), s.stop(syscall.SIGTERM), os.RemoveAll(dir))
		}
		if err != nil {
			fmt.Fprintf(a.stdout, "FAIL  %-52s %8s  %v\n", step.what, took, err)
			stopErr := s.stop(syscall.SIGTERM)
			a.hint("The folder is kept: %s", dir)
			a.hint("fix: look at %s for what the server said", filepath.Join(dir, "server.log"))
			return errors.Join(exit(exitFailure), stopErr)
		}
		fmt.Fprintf(a.stdout, "ok    %-52s %8s  %s\n", step.what, took, detail)
	}
	fmt.Fprintf(a.stdout, "\n%d steps in %s. Isolation of programs: %s.\n", len(story), time.Since(began).Round(100*time.Millisecond), s.sandbox)
	if leave {
		return errors.Join(s.stop(syscall.SIGTERM), os.RemoveAll(dir))
	}
	fmt.Fprintf(a.stdout, "The server stays up at %s with its data in %s; Ctrl-C ends it and removes its folder.\n", s.url, s.data())
	fmt.Fprintf(a.stdout, "Look around: gradegate competition leaderboard iris --data %s\n", s.data())
	<-ctx.Done()
	return errors.Join(s.stop(syscall.SIGTERM), os.RemoveAll(dir))
}

func (s *stage) data() string { return filepath.Join(s.dir, "data") }

var (
	urlRE     = regexp.MustCompile(`(?m)^gradegate +\S+ on (\S+)$`)
	jobsRE    = regexp.MustCompile(`(?m)^jobs +\S+: (.*)$`)
	inviteRE  = regexp.MustCompile(`--invite (gginv_\S+)`)
	startTime = 20 * time.Second
)

// start starts this very program as a server and waits until it serves.
func (s *stage) start(ctx context.Context, listen string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.out, err = os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	// The story ends the server itself, by name or by signal: not with ctx.
	s.child = exec.Command(self, "serve", "--data", s.data(), "--ledger", filepath.Join(s.dir, "ledger"), "--listen", listen)
	s.child.Env = bare(os.Environ())
	// Ctrl-C is for the demo, which then ends its server.
	s.child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.child.Stderr = s.out
	pipe, err := s.child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.child.Start(); err != nil {
		return err
	}
	said := make(chan string, 1)
	go func() { said <- greeting(pipe) }()
	select {
	case text := <-said:
		return s.read(text)
	case <-time.After(startTime):
		return errors.Join(errors.New("the server does not say that it serves"), s.stop(syscall.SIGKILL))
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.stop(syscall.SIGKILL))
	}
}

// bare is an environment without settings of ours: the demo must never reach a
// database or a folder that somebody configured for real.
func bare(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, "GRADEGATE_") })
}

// greeting reads what the server says at its start; the rest is dropped.
func greeting(r io.Reader) string {
	var b strings.Builder
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fmt.Fprintln(&b, lines.Text())
		if strings.HasPrefix(lines.Text(), "manage") {
			go func() { _, _ = io.Copy(io.Discard, r) }() // keeps the pipe from filling up
			break
		}
	}
	return b.String()
}

func (s *stage) read(text string) error {
	u, j := urlRE.FindStringSubmatch(text), jobsRE.FindStringSubmatch(text)
	if u == nil || j == nil {
		return fmt.Errorf("the server ended at its start; it said %q", text)
	}
	s.url, s.sandbox = u[1], j[1]
	if s.invite != "" {
		return nil
	}
	// The invite is written to stderr after the greeting.
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(filepath.Join(s.dir, "server.log"))
		if err != nil {
			return err
		}
		if m := inviteRE.FindSubmatch(data); m != nil {
			s.invite = string(m[1])
			return nil
		}
	}
	return errors.New("the server printed no invite for the first administrator")
}

// stop ends the server and waits for it.
func (s *stage) stop(sig syscall.Signal) error {
	if s.child == nil || s.child.Process == nil {
		return nil
	}
	err := s.child.Process.Signal(sig)
	wait := s.child.Wait()
	s.child = nil
	if sig == syscall.SIGKILL {
		wait = nil // it was not to end well
	}
	return errors.Join(err, wait, s.out.Close())
}

// person gives a client with a token; nobody sees it.
func (s *stage) person(secret string) (*api.Client, error) { return api.NewClient(s.url, secret) }

// redeem turns an invite code into a client.
func (s *stage) redeem(ctx context.Context, code, machine string) (*api.Client, api.Issued, error) {
	anybody, err := s.person("")
	if err != nil {
		return nil, api.Issued{}, err
	}
	made, err := anybody.Redeem(ctx, api.Redeem{Code: code, Name: machine})
	if err != nil {
		return nil, made, err
	}
	c, err := s.person(made.Secret)
	return c, made, err
}

// refused checks that an error is the refusal that was expected.
func refused(err error, status int, code string) error {
	var e *api.Error
	switch {
	case err == nil:
		return errors.New("it was allowed")
	case !errors.As(err, &e) || e.Status != status || code != "" && e.Code != code:
		return fmt.Errorf("expected %d %s, got: %w", status, code, err)
	}
	return nil
}
