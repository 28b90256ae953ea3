package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/internal/fault"
)

// secretCommands are those with which -o secret makes sense. All others refuse
// it before they do anything.
var secretCommands = map[string]bool{
	"gradegate login": true, "gradegate submit": true, "gradegate job submit": true, "gradegate user invite": true,
	"gradegate token create": true, "gradegate token ensure": true, "gradegate token rotate": true, "gradegate token print": true,
}

// guard wraps every command: a noun without a known verb is a mistake and not
// a page of help with exit code 0, since a script that mistypes "revoke" must
// hear of it.
func (a *app) guard(c *cobra.Command) {
	for _, sub := range c.Commands() {
		a.guard(sub)
	}
	if run := c.RunE; run != nil {
		nameArguments(c)
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if a.output == "secret" && !secretCommands[cmd.CommandPath()] {
				f := fault.New(fault.Invalid, "usage", "%s makes no secret, so there is none to print.", cmd.CommandPath()).WithFix("Use -o table, json or name.")
				return usage{f, cmd.CommandPath()}
			}
			a.started = true
			defer a.warnOfEnd()
			defer a.warnOfGuesses()
			defer a.warnOfRotation()
			return run(cmd, args)
		}
		return
	}
	if !c.HasSubCommands() {
		return
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
}

// daily are the commands of the first page, in the order in which people meet them.
var daily = []string{"login", "submit", "status", "cancel", "token", "doctor", "serve", "demo", "help"}

func (a *app) help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help with a command; help all lists every one",
		Long:    "Help with a command. \"help all\" lists every command, and \"help exit-codes\" what the exit codes mean.",
		Example: "  gradegate help all\n  gradegate help exit-codes\n  gradegate help token rotate",
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && args[0] == "all":
				every(a.stdout, root)
				return nil
			case len(args) == 1 && args[0] == "exit-codes":
				exitTable(a.stdout)
				return nil
			}
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(c, rest[0])
			}
			return c.Help()
		},
	}
}

// every writes one line for each command that does something.
func every(w io.Writer, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.HasSubCommands() {
			every(w, sub)
		} else if sub.IsAvailableCommand() {
			fmt.Fprintf(w, "  %-38s %s\n", strings.TrimPrefix(sub.CommandPath(), "gradegate ")+args(sub), sub.Short)
		}
	}
}

// args is what follows a command's name in its use line.
func args(c *cobra.Command) string {
	if _, rest, ok := strings.Cut(c.Use, " "); ok {
		return " " + rest
	}
	return ""
}

// showHelp writes the page of one command. The first page is short on purpose:
// nine commands are what most people ever need.
func (a *app) showHelp(c *cobra.Command, _ []string) {
	if typed := c.Flags().Args(); len(typed) > 0 && c.HasSubCommands() {
		a.mistake = unknownCommand(c, typed[0]) // --help behind a word that is no command
		return
	}
	w := a.stdout
	about := c.Long
	if about == "" {
		about = c.Short + "."
	}
	fmt.Fprintf(w, "%s\n\n", about)
	if c.HasParent() {
		fmt.Fprintf(w, "Usage:\n  %s\n", c.UseLine())
	}
	if c.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	if c.HasSubCommands() {
		list := c.Commands()
		if !c.HasParent() {
			list = a.first(c)
		} else {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, "Commands:")
		for _, sub := range list {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				fmt.Fprintf(w, "  %-14s %s\n", sub.Name(), sub.Short)
			}
		}
	}
	if own := c.LocalNonPersistentFlags(); own.HasAvailableFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", own.FlagUsages())
	}
	if !c.HasParent() {
		fmt.Fprintf(w, "\nFlags of every command:\n%s\nAll commands: gradegate help all\nOne command:  gradegate COMMAND --help\nExit codes:   gradegate help exit-codes\n", c.PersistentFlags().FlagUsages())
		return
	}
	fmt.Fprintln(w, "\nFlags of every command: gradegate --help")
}

// first are the commands of the first page that exist.
func (a *app) first(root *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, name := range daily {
		for _, c := range root.Commands() {
			if c.Name() == name {
				out = append(out, c)
			}
		}
	}
	return out
}
