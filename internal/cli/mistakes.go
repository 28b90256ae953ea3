package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/internal/fault"
)

// misuse is a mistake in how a command was called, with the line that shows how
// it is called.
func misuse(c *cobra.Command, detail string) error {
	line := c.CommandPath() + args(c)
	if c.HasAvailableLocalFlags() {
		line += " [flags]"
	}
	f := fault.New(fault.Invalid, "usage", "%s", detail).With("usage", line).WithFix("%s --help", c.CommandPath())
	return usage{f, c.CommandPath()}
}

// unknownCommand is the refusal of a word that is no command.
func unknownCommand(c *cobra.Command, typed string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	detail := fmt.Sprintf("unknown command %q", typed)
	if c.HasParent() {
		detail += " of " + c.CommandPath()
	}
	f := fault.New(fault.Invalid, "usage", "%s", detail+didYouMean(typed, names)).WithFix("%s --help", c.CommandPath())
	if !c.HasParent() {
		f = belowNoun(c, typed, f.WithFix("gradegate help all"))
	}
	return usage{f, c.CommandPath()}
}

// belowNoun says where a verb is that was typed without its noun.
func belowNoun(root *cobra.Command, typed string, f *fault.Error) *fault.Error {
	var places []string
	for _, noun := range root.Commands() {
		for _, verb := range noun.Commands() {
			if verb.Name() == typed && verb.IsAvailableCommand() && noun.Name() != "completion" {
				places = append(places, verb.CommandPath())
			}
		}
	}
	if len(places) == 0 {
		return f
	}
	f = fault.New(fault.Invalid, "usage", "%q stands behind a noun: %s", typed, strings.Join(places, ", ")).WithFix("%s --help", places[0])
	if len(places) > 1 {
		f = f.WithFix("gradegate help all")
	}
	return f
}

// nameArguments makes a command say which of its arguments is missing or too
// much, or stands for nothing: an unset variable of a script is an empty word.
func nameArguments(c *cobra.Command) {
	count := c.Args
	if count == nil {
		count = cobra.ArbitraryArgs
	}
	c.Args = func(cmd *cobra.Command, given []string) error {
		err := count(cmd, given)
		if n := cmd.ArgsLenAtDash(); n >= 0 && strings.Contains(cmd.Use, "[--") {
			given = given[:n] // what follows -- is the program's
		}
		want := placeholders(cmd)
		for i, p := range want {
			optional := strings.HasPrefix(p, "[")
			p = strings.Trim(p, "[]")
			switch {
			case i >= len(given) && !optional:
				return misuse(cmd, p+" is missing.")
			case i >= len(given):
			case strings.TrimSpace(given[i]) == "":
				return misuse(cmd, p+" is empty; is a variable not set?")
			case (given[i] == "." || given[i] == "..") && p != "DIR" && p != "PATH":
				return misuse(cmd, fmt.Sprintf("%s is %q, which is the name of a folder and of nothing else.", p, given[i]))
			}
		}
		if err != nil && len(given) > len(want) {
			return misuse(cmd, fmt.Sprintf("%q is one argument too many.", given[len(want)]))
		}
		return err
	}
}

// placeholders are the arguments in a command's use line.
func placeholders(c *cobra.Command) (out []string) {
	for _, w := range strings.Fields(c.Use)[1:] {
		if w == "[--" {
			break
		}
		out = append(out, w)
	}
	return out
}

var (
	badValue   = regexp.MustCompile(`^invalid argument "(.*)" for "(?:-\w, )?--([\w-]+)" flag`)
	noValueFor = regexp.MustCompile(`^flag needs an argument: (?:'\w' in )?-{1,2}([\w-]+)`)
	noFlag     = regexp.MustCompile(`^unknown (?:shorthand )?flag: (?:'(\w)' in )?-{0,2}([\w-]+)`)
	exclusive  = regexp.MustCompile(`^if any flags in the group \[(.+?)\] are set none of the others can be`)
)

// wanted says for each type of flag what it takes.
var wanted = map[string]string{
	"duration": "a span of time such as 30s, 10m or 2h", "int": "a whole number", "bool": "true or false, or no value at all",
}

// flagMistake says in words of the command line what is wrong with a flag.
func flagMistake(c *cobra.Command, err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	if m := badValue.FindStringSubmatch(text); m != nil {
		what := "another value"
		if f := c.Flags().Lookup(m[2]); f != nil && wanted[f.Value.Type()] != "" {
			what = wanted[f.Value.Type()]
		}
		return fault.New(fault.Invalid, "usage", "--%s wants %s, and %q is none.", m[2], what, m[1]).WithFix("%s --help", c.CommandPath())
	}
	if m := noValueFor.FindStringSubmatch(text); m != nil {
		return fault.New(fault.Invalid, "usage", "--%s needs a value after it.", longName(c, m[1])).WithFix("%s --help", c.CommandPath())
	}
	if m := noFlag.FindStringSubmatch(text); m != nil {
		typed := "--" + m[2]
		if m[1] != "" {
			typed = "-" + m[1]
		}
		return fault.New(fault.Invalid, "usage", "unknown flag: %s%s", typed, didYouMean(typed, flagNames(c))).WithFix("%s --help", c.CommandPath())
	}
	return errors.New(text)
}

func longName(c *cobra.Command, name string) string {
	if len(name) == 1 {
		if f := c.Flags().ShorthandLookup(name); f != nil {
			return f.Name
		}
	}
	return name
}

// flagNames are all flags that a command takes, as they are typed.
func flagNames(c *cobra.Command) (out []string) {
	for _, line := range strings.Split(c.LocalFlags().FlagUsages()+c.InheritedFlags().FlagUsages(), "\n") {
		for _, w := range strings.Fields(line) {
			if strings.HasPrefix(w, "--") {
				out = append(out, strings.TrimRight(w, ","))
				break // the rest of the line is its meaning
			}
		}
	}
	return out
}

// groupMistake says of two flags that they exclude each other.
func groupMistake(c *cobra.Command, err error) error {
	if m := exclusive.FindStringSubmatch(err.Error()); m != nil {
		names := strings.Fields(m[1])
		return usage{fault.New(fault.Invalid, "usage", "--%s exclude each other.", strings.Join(names, " and --")).
			WithFix("Leave one of them out."), c.CommandPath()}
	}
	return err
}
