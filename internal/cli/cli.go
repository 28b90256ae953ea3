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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gradegate/internal/executor"
)

// app is what commands share: the outside world, and the flags of all.
type app struct {
	args, env      []string
	stdin          io.Reader
	stdout, stderr io.Writer

	url, data, output string
	tokenFile         string
	tokenStdin, quiet bool
	stdinTaken        bool
	// attended is set if somebody sits at a terminal and can be asked, and typed
	// if what is read from stdin comes from a keyboard.
	attended, typed bool
	// mistake is what the page of help that was asked for would have hidden.
	mistake    error
	credential source
	shadowed   []string
	// started is set once a command's own work begins: what fails before that
	// is a mistake in how it was called.
	started bool
	endsIn  atomic.Int64 // the token in use, as the server says; zero: not soon
	// inGrace is set if that is because it was rotated.
	inGrace  atomic.Bool
	rotateBy atomic.Pointer[time.Time] // since when its rotation has been due
	guesses  atomic.Int64              // wrong secrets with the id of the token in use
	follows  bool                      // a session that the next one follows by itself
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
	a := &app{args: args, env: env, stdin: stdin, stdout: stdout, stderr: stderr}
	a.typed = terminal(stdin)
	a.attended = a.typed && terminal(stderr)
	return a.run(ctx)
}

func (a *app) run(ctx context.Context) int {
	a.stdin = &interruptible{r: a.stdin, done: ctx.Done()}
	root := a.root()
	root.SetArgs(a.args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = a.mistake
	}
	if err == nil {
		return exitOK
	}
	if !a.started && !errors.As(err, new(usage)) {
		err = usage{groupMistake(cmd, err), cmd.CommandPath()}
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
	f.StringVarP(&a.output, "output", "o", "table", "table, json (errors too, on stderr), name or secret")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the token to use")
	f.BoolVar(&a.tokenStdin, "token-stdin", false, "read the token from stdin")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no hints and no progress")
	root.AddGroup(&cobra.Group{ID: "daily", Title: "Every day:"}, &cobra.Group{ID: "all", Title: "Everything else:"})
	daily := []*cobra.Command{a.login(), a.submit("submit COMPETITION PATH"), a.statusCmd(), a.cancel("cancel JOB"), a.doctor(), a.serve(), a.demo()}
	nouns := []*cobra.Command{
		a.tokenCmd(), a.jobCmd(), a.competitionCmd(), a.quotaCmd(), a.userCmd(), a.serviceCmd(), a.consentCmd(), a.policyCmd(), a.blockCmd(), a.auditCmd(), a.leakCmd(), a.clockCmd(), a.pepperCmd(),
		a.archiveCmd(), a.sweepCmd(), a.holdCmd(), a.growthCmd(),
		a.whoami(), a.explainCmd(), a.logout(), a.checkConfig(), a.version(),
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
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage{flagMistake(c, err), c.CommandPath()} })
	root.SetHelpCommand(a.help(root))
	root.SetHelpFunc(a.showHelp)
	a.guard(root)
	return root
}

// hint tells something that is not the answer. Programs that want JSON get
// nothing but that: what is on stderr then is the problem object alone.
func (a *app) hint(format string, args ...any) {
	if !a.quiet && !a.wantsJSON() {
		fmt.Fprintln(a.stderr, harmless(fmt.Sprintf(format, args...)))
	}
}

// warn tells what must not be missed, whoever reads it.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintln(a.stderr, harmless(fmt.Sprintf("warning: "+format, args...)))
}
