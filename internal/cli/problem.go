package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"gradegate/api"
	"gradegate/internal/fault"
)

// usage is a mistake in the command itself. An inner fault brings its own way
// on; for anything else it is the command's help.
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
	var over exit
	if errors.As(err, &over) {
		return int(over)
	}
	p, code := a.problem(ctx, err)
	switch {
	case a.wantsJSON():
		e := json.NewEncoder(a.stderr)
		e.SetEscapeHTML(false)
		_ = e.Encode(object(p)) // a stderr that cannot be written leaves the exit code
	case code == exitInterrupted:
		fmt.Fprintln(a.stderr, p.Detail)
	default:
		a.tell(p)
	}
	return code
}

// wantsJSON looks into the arguments as well: a mistake in them may have kept
// the flags from being read.
func (a *app) wantsJSON() bool {
	if a.output != "" && a.output != "table" {
		return a.output == "json"
	}
	for i, arg := range a.args {
		switch arg {
		case "--":
			return false
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			if i+1 < len(a.args) && a.args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}

// problem puts an error into the form in which the server tells its refusals,
// so that people and programs read one form, and gives its exit code.
func (a *app) problem(ctx context.Context, err error) (api.Problem, int) {
	var e *api.Error
	var u usage
	var s stopped
	refused, misused := errors.As(err, &e), errors.As(err, &u)
	switch {
	case errors.As(err, &s):
		return api.Problem{Code: "interrupted", Detail: "Interrupted. " + string(s)}, exitInterrupted
	case refused && e.Status != 0:
		return a.refusal(e), codeOf(e)
	case misused:
		p := api.Problem{Code: "usage", Detail: u.err.Error(), Fix: u.path + " --help"}
		if f, ok := errors.AsType[*fault.Error](u.err); ok {
			p = ofFault(f)
		}
		return p, exitUsage
	case ctx.Err() != nil:
		return api.Problem{Code: "interrupted", Detail: "Interrupted."}, exitInterrupted
	case refused:
		return e.Problem, codeOf(e)
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		if found, ok := errors.AsType[amiss](err); ok {
			return ofFault(f), found.code
		}
		if f.Code == waitTimeout {
			return ofFault(f), exitTimeout
		}
		return ofFault(f), codeOfKind(f.Kind)
	}
	p := api.Problem{Code: "failed", Detail: err.Error()}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Fix = "Check the path; a relative one begins in the folder you are in."
		return p, exitUsage
	case errors.Is(err, fs.ErrPermission):
		p.Fix = "Look at who may read and write it: ls -ld PATH"
	}
	return p, exitFailure
}

func ofFault(f *fault.Error) api.Problem {
	return api.Problem{Code: f.Code, Detail: f.Detail, Fix: f.Fix, More: f.More}
}

// refusal is what the server said, and what only this side knows: which
// credential it was about.
func (a *app) refusal(e *api.Error) api.Problem {
	p := e.Problem
	if p.Code == "token_missing" {
		p.Detail = "This needs a token, and nobody is signed in here to the server that was asked."
		p.Fix = "gradegate login --invite CODE (an administrator makes the code), or name a token of yours: --token-file FILE"
	}
	switch {
	case p.Fix != "":
	case strings.HasPrefix(p.Code, "http_"): // no problem document: perhaps a proxy, or somebody else's server
		p.Fix = "Check --url or GRADEGATE_URL: what answers there does not speak as a gradegate server does."
	case e.Status == 403:
		p.Fix = "gradegate whoami shows who you are and what your token may do; for what only they may do, ask an administrator."
	case e.Status == 404:
		p.Fix = "Look at how it is written, and at who you are: gradegate whoami"
	}
	if a.credential.from == "" {
		return p
	}
	if e.Status == 401 {
		p.More = maps.Clone(p.More)
		if p.More == nil {
			p.More = map[string]any{}
		}
		p.More["credential"] = a.credential.from
	}
	// The server's way on is for people with a token. This credential is good
	// for one thing, and signing in is not what its holder has forgotten.
	if strings.HasPrefix(a.credential.secret, "ggjob_") && (e.Status == 403 || e.Status == 404) {
		p.Fix = "What you use (from " + a.credential.from + ") is the handle of one job: gradegate whoami names it, and show, logs, wait, result and " +
			"cancel take it. For all else leave the handle out and use a token of yours."
	}
	return p
}

// object is a problem as JSON has it, its further members beside the standard ones.
func object(p api.Problem) map[string]any {
	m := maps.Clone(p.More)
	if m == nil {
		m = map[string]any{}
	}
	for name, v := range map[string]string{
		"type": p.Type, "title": p.Title, "detail": p.Detail, "code": p.Code, "fix": p.Fix, "request_id": p.RequestID,
	} {
		if v != "" {
			m[name] = v
		}
	}
	if p.Status != 0 {
		m["status"] = p.Status
	}
	return m
}

// telling are the members of a refusal that people are shown, in this order.
var telling = []string{"usage", "existing", "choices", "accepts", "missing", "granted", "files", "keys", "examples", "successor"}

// tell writes what went wrong, what belongs to it, and how to go on. Some of
// the words are a server's: nothing in them may move the cursor.
func (a *app) tell(p api.Problem) {
	fmt.Fprintln(a.stderr, "error: "+clean(p.Detail))
	for _, name := range telling {
		if text := words(p.More[name]); text != "" {
			fmt.Fprintf(a.stderr, "%s: %s\n", name, clean(text))
		}
	}
	if p.Fix != "" {
		fmt.Fprintln(a.stderr, "fix: "+clean(p.Fix))
	}
	if p.RequestID != "" {
		fmt.Fprintln(a.stderr, "request: "+clean(p.RequestID))
		if ask := a.why(p); ask != "" {
			fmt.Fprintln(a.stderr, "why: "+clean(ask))
		}
	}
	if from := words(p.More["credential"]); from != "" {
		fmt.Fprintln(a.stderr, "credential: "+clean(from))
	}
}

// why is the command that tells more of a refusal: of one that was decided about
// a token, and not of a slip in what was sent. It is "" where nobody could ask,
// since no token was used.
func (a *app) why(p api.Problem) string {
	about := p.Status == 401 || p.Status == 403 || p.Status == 429 && !quotaCode(p.Code)
	if !about || !strings.HasPrefix(p.RequestID, "req_") || p.Code == "token_missing" || p.Code == "token_unknown" || a.data == "" && a.credential.secret == "" {
		return ""
	}
	ask := "gradegate explain " + p.RequestID
	for _, f := range []struct{ name, value string }{{"--data", a.data}, {"--url", a.url}, {"--token-file", a.tokenFile}} {
		if f.value != "" {
			ask += " " + f.name + " " + quoted(f.value)
		}
	}
	if a.tokenStdin {
		ask += " --token-stdin"
	}
	return ask
}

// statusOf is the status of a server's refusal; 0 of any other error, and of none.
func statusOf(err error) int {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Status
	}
	return 0
}

// words writes a member of a refusal: a word, or a list of them.
func words(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return strings.Trim(fmt.Sprint(v), "[]")
}

// near is the word that was probably meant, or "": one that begins so, or one
// that is two letters away at most.
func near(typed string, among []string) string {
	best, least := "", 3
	for _, w := range among {
		d := distance(strings.ToLower(typed), strings.ToLower(w))
		if len(typed) > 1 && strings.HasPrefix(w, typed) {
			d = min(d, 1)
		}
		if d < least && d < len(w) {
			best, least = w, d
		}
	}
	return best
}

// distance is how many letters must be put in, taken out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0] // of the row above, one to the left
		row[0] = i + 1
		for j := range len(b) {
			d := last
			if a[i] != b[j] {
				d = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// didYouMean ends a message about a word that does not exist.
func didYouMean(typed string, among []string) string {
	slices.Sort(among)
	if w := near(typed, among); w != "" {
		return fmt.Sprintf("; did you mean %q?", w)
	}
	return "."
}
