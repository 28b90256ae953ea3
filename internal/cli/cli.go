// Package cli is the command line: sub-commands named noun verb, tables for
// people and -o json for programs. What was asked for goes to stdout, and
// everything else (progress, hints, warnings, errors) to stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/executor"
	"gradegate/internal/fault"
)

// Exit codes. Programs may rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNoToken     = 4
	exitForbidden   = 5
	exitConflict    = 6
	exitLimited     = 7
	exitUnreachable = 8
	exitJobFailed   = 9
	exitTimeout     = 124
	exitInterrupted = 130
)

// app is what commands share: the outside world, and the flags of all.
type app struct {
	env            []string
	stdin          io.Reader
	stdout, stderr io.Writer

	url, data, output string
	tokenFile         string
	tokenStdin, quiet bool
	stdinTaken        bool
	credential        source
	shadowed          []string
	// started is set once a command's own work begins: what fails before that
	// is a mistake in how it was called.
	started bool
	endsIn  atomic.Int64 // the token in use, as the server says; zero: not soon
}

// Run runs one command and returns its exit code. args are without the
// program's name.
func Run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The program is its own supervisor of jobs, started again.
	if len(args) > 0 {
		switch args[0] {
		case executor.SuperviseCommand:
			return executor.Supervise(args[1:])
		case executor.InitCommand:
			return executor.Init(args[1:])
		}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	a := &app{env: env, stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started && !errors.As(err, new(usage)) {
		err = usage{plainer(err), cmd.CommandPath()}
	}
	return a.fail(ctx, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "gradegate",
		Short: "Tokens and jobs of a machine-learning grading service",
		Long: `gradegate issues the API tokens of a grading service, checks one on every
request, and keeps a job in its owner's hands whatever happens to the token.`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.url, "url", "", "server, such as https://grade.example.org (GRADEGATE_URL)")
	f.StringVar(&a.data, "data", "", "data folder of a server on this machine: act as its local administrator")
	f.StringVarP(&a.output, "output", "o", "table", "table, json, name or secret")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the token to use")
	f.BoolVar(&a.tokenStdin, "token-stdin", false, "read the token from stdin")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no hints and no progress")
	root.AddGroup(&cobra.Group{ID: "daily", Title: "Every day:"}, &cobra.Group{ID: "all", Title: "Everything else:"})
	daily := []*cobra.Command{a.login(), a.submit("submit COMPETITION PATH"), a.statusCmd(), a.cancel("cancel JOB"), a.serve(), a.demo()}
	nouns := []*cobra.Command{
		a.tokenCmd(), a.jobCmd(), a.competitionCmd(), a.userCmd(), a.auditCmd(), a.leakCmd(),
		a.whoami(), a.logout(), a.checkConfig(), a.version(),
	}
	for _, c := range daily {
		c.GroupID = "daily"
	}
	nouns[0].GroupID = "daily"
	for _, c := range nouns[1:] {
		c.GroupID = "all"
	}
	root.AddCommand(append(daily, nouns...)...)
	root.SetHelpCommandGroupID("all")
	root.SetCompletionCommandGroupID("all")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.checkOutput() }
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage{err, c.CommandPath()} })
	root.SetHelpCommand(a.help(root))
	root.SetHelpFunc(a.showHelp)
	a.guard(root)
	return root
}

// usage is a mistake in the command itself.
type usage struct {
	err  error
	path string
}

func (u usage) Error() string { return u.err.Error() }
func (u usage) Unwrap() error { return u.err }

// exit is an error that has said what there is to say.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// fail tells what went wrong and how to go on, and gives the exit code.
func (a *app) fail(ctx context.Context, err error) int {
	var code exit
	if errors.As(err, &code) {
		return int(code)
	}
	var e *api.Error
	var u usage
	var f *fault.Error
	refused := errors.As(err, &e)
	switch {
	case refused && e.Status != 0:
		a.tell(e.Detail, e.More, e.Fix, e.RequestID)
		if e.Status == 401 && a.credential.from != "" {
			fmt.Fprintln(a.stderr, "credential: "+a.credential.from)
		}
		return codeOf(e)
	case errors.As(err, &u):
		a.tell(u.err.Error(), nil, u.path+" --help", "")
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(a.stderr, "interrupted")
		return exitInterrupted
	case refused:
		a.tell(e.Detail, nil, e.Fix, "")
		return codeOf(e)
	case errors.As(err, &f):
		a.tell(f.Detail, f.More, f.Fix, "")
		return codeOfKind(f.Kind)
	}
	a.tell(err.Error(), nil, "", "")
	return exitFailure
}

// telling are the members of a refusal that people are shown, in this order.
var telling = []string{"existing", "choices", "accepts", "competitions", "missing", "granted", "files", "examples", "successor"}

// tell writes what went wrong, what belongs to it, and how to go on. Some of
// the words are a server's: nothing in them may move the cursor.
func (a *app) tell(detail string, more map[string]any, fix, request string) {
	fmt.Fprintln(a.stderr, "error: "+clean(detail))
	for _, name := range telling {
		if v, ok := more[name]; ok && fmt.Sprint(v) != "" && fmt.Sprint(v) != "[]" {
			fmt.Fprintf(a.stderr, "%s: %s\n", name, clean(strings.Trim(fmt.Sprint(v), "[]")))
		}
	}
	if fix != "" {
		fmt.Fprintln(a.stderr, "fix: "+clean(fix))
	}
	if request != "" {
		fmt.Fprintln(a.stderr, "request: "+clean(request))
	}
}

func codeOfKind(k fault.Kind) int {
	switch k {
	case fault.NotFound:
		return exitNotFound
	case fault.Unauthenticated:
		return exitNoToken
	case fault.Denied:
		return exitForbidden
	case fault.Conflict:
		return exitConflict
	case fault.Unavailable:
		return exitUnreachable
	}
	return exitFailure
}

func codeOf(e *api.Error) int {
	switch e.Status {
	case 0:
		if e.Code != "unreachable" {
			return exitFailure
		}
		return exitUnreachable
	case 401:
		return exitNoToken
	case 403:
		return exitForbidden
	case 404:
		return exitNotFound
	case 409, 412, 422:
		return exitConflict
	case 429:
		if strings.HasPrefix(e.Code, "quota_") {
			return exitConflict
		}
		return exitLimited
	case 502, 503, 504:
		return exitUnreachable
	}
	return exitFailure
}

// hint tells something that is not the answer.
func (a *app) hint(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}
