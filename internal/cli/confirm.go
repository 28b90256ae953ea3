package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"gradegate/api"
	"gradegate/internal/token"
)

// confirm asks before something that whoever does it could not take back. At a
// terminal it is a question, unless the flag was given; a script is warned and
// means what it says. what is a sentence that says what will be lost.
func (a *app) confirm(given bool, what string) error {
	if given {
		return nil
	}
	if !a.attended {
		if a.output != "json" { // whoever reads JSON reads no warnings
			a.warn("%s", what)
		}
		return nil
	}
	fmt.Fprintf(a.stderr, "%s\nGo on? [y/N] ", clean(what))
	line, err := bufio.NewReader(io.LimitReader(a.stdin, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(a.stderr) // behind the question
		return err
	}
	if yes := strings.ToLower(strings.TrimSpace(line)); yes != "y" && yes != "yes" {
		fmt.Fprintln(a.stderr, "Nothing was done.")
		return exit(exitFailure)
	}
	return nil
}

// quoted is a word as a shell takes it.
func quoted(w string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if w != "" && strings.IndexFunc(w, func(r rune) bool { return !plain(r) }) < 0 {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// target is a token that a command is about to change.
type target struct {
	id, name string
	// inUse is set if it is the token of this very command, and stored if it is
	// the one that this machine keeps for the server.
	inUse, stored bool
}

// aim looks a token up before something is done to it. The credential of a
// local administrator is none, so that nothing is ever in use there.
func (a *app) aim(ctx context.Context, client *api.Client, name string) (target, error) {
	own := ""
	if p, err := token.Parse(a.credential.secret); err == nil {
		own = string(p.Public.ID())
	}
	t := target{id: own, name: name}
	if name != "self" && name != own {
		found, err := client.TokenByID(ctx, name)
		if err != nil {
			return t, err
		}
		t.id, t.name = found.ID, found.Name
	} else if own == "" && client.Token != "" { // an imported token does not tell its id
		me, err := client.Whoami(ctx)
		if err != nil {
			return t, err
		}
		t.id = me.TokenID
	}
	t.inUse = client.Token != "" && (name == "self" || t.id == own && own != "")
	t.stored = a.data == "" && t.id != "" && a.stored(client.BaseURL, t.id)
	return t, nil
}
