package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
)

// finding is what one check of the doctor came to.
type finding struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warning, problem or skipped
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
	code   int    // exit code of a problem
}

// examination is what the doctor found, in the order in which it looked.
type examination struct {
	Status string    `json:"status"` // the worst of all checks: ok, warning or problem
	Checks []finding `json:"checks"`

	app    *app
	url    string
	client *api.Client // with the credential; nil if there is none to use
	me     *api.Whoami // nil: the server does not say
	date   time.Time   // of the server, as it answered
	asked  time.Time
}

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look at everything that may keep you from being let in", Args: cobra.NoArgs,
		Long: `Looks at everything that may keep you from being let in, one line for each thing: the
server's address, which token is used and from where, who else can read it, whether it
is whole, whether the server answers, what it says of the token, how long and for what
it is good, and why its last requests were refused. What is wrong has a command that
mends it. It changes nothing, shows no secret, and works without a server and a token.

Exit code 0: nothing is in the way (warnings may be there). Otherwise the first problem
decides, such as 4: no token, or one that is no good (gradegate help exit-codes).`,
		Example: "  gradegate doctor\n  gradegate doctor -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			x := a.examine(cmd.Context())
			if err := a.print(result{json: x, name: x.Status, table: x.table}); err != nil {
				return err
			}
			for _, f := range x.Checks {
				if f.Status == "problem" {
					return exit(f.code)
				}
			}
			return nil
		},
	}
}

// examineTime is how long the doctor waits for a server, in all.
const examineTime = 20 * time.Second

func (a *app) examine(ctx context.Context) *examination {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	x := &examination{app: a, Checks: []finding{}}
	x.program()
	if x.address() {
		x.credential()
		x.files()
		x.form()
		x.proxies()
		if x.reach(ctx) {
			x.clock()
			x.whoami(ctx)
			x.token(ctx)
			x.refusals(ctx)
		}
	}
	x.Status = "ok"
	for _, f := range x.Checks {
		if f.Status == "problem" || f.Status == "warning" && x.Status == "ok" {
			x.Status = f.Status
		}
	}
	return x
}

func (x *examination) ok(name, detail string, args ...any) {
	x.Checks = append(x.Checks, finding{Name: name, Status: "ok", Detail: fmt.Sprintf(detail, args...)})
}

func (x *examination) warn(name, detail, fix string) {
	x.Checks = append(x.Checks, finding{Name: name, Status: "warning", Detail: detail, Fix: fix})
}

func (x *examination) bad(name, detail, fix string, code int) {
	x.Checks = append(x.Checks, finding{Name: name, Status: "problem", Detail: detail, Fix: fix, code: code})
}

func (x *examination) skip(name, detail string) {
	x.Checks = append(x.Checks, finding{Name: name, Status: "skipped", Detail: detail})
}

// fails is a problem that an error tells, in the words of every other command.
func (x *examination) fails(ctx context.Context, name string, err error) {
	p, code := x.app.problem(ctx, err)
	detail := p.Detail
	if ask := x.app.why(p); ask != "" {
		detail += " (" + ask + ")"
	}
	x.bad(name, detail, p.Fix, code)
}

func (x *examination) table(w io.Writer) {
	for _, f := range x.Checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Status, f.Name, clean(f.Detail))
		if f.Fix != "" {
			fmt.Fprintf(w, "\t\tfix: %s\n", clean(f.Fix))
		}
	}
	n := map[string]int{}
	for _, f := range x.Checks {
		n[f.Status]++
	}
	switch {
	case n["problem"] > 0:
		fmt.Fprintf(w, "%s.\n", count(n["problem"], "problem"))
	case n["warning"] > 0:
		fmt.Fprintf(w, "Nothing is in the way; %s.\n", count(n["warning"], "warning"))
	default:
		fmt.Fprintln(w, "Nothing is in the way.")
	}
}

// reach finds out whether the server answers, without a credential.
func (x *examination) reach(ctx context.Context) bool {
	client, err := x.app.open()
	if err != nil {
		x.fails(ctx, "server", err)
		return false
	}
	client.Retries = 0
	client.Answered = func(h http.Header) {
		x.asked = time.Now()
		x.date, _ = http.ParseTime(h.Get("Date")) // zero: it has none
	}
	v, err := client.Version(ctx)
	switch {
	case err != nil:
		p, code := x.app.problem(ctx, err)
		fix := p.Fix
		if strings.Contains(p.Detail, "x509:") || strings.Contains(p.Detail, "certificate") {
			fix = "If your company has an authority of its own, name its certificate: GRADEGATE_CA_FILE=FILE"
		}
		x.bad("server", p.Detail, fix, code)
		return false
	case v.Version == "":
		x.bad("server", "What answers at "+x.url+" does not say its version: it is no gradegate server.", "Check --url or GRADEGATE_URL.", exitUnreachable)
		return false
	}
	how := "over TLS"
	switch {
	case x.app.data != "":
		how = "through its own socket"
	case strings.HasPrefix(x.url, "http://"):
		how = "without TLS, on this machine"
	}
	x.ok("server", "it answers %s, version %s", how, v.Version)
	return true
}

// mostSkew is how far clocks may be apart before people are misled by them.
const mostSkew = time.Minute

func (x *examination) clock() {
	if x.date.IsZero() {
		x.skip("clock", "the server does not say what time it is")
		return
	}
	skew := x.asked.Sub(x.date).Round(time.Second)
	if skew > mostSkew || skew < -mostSkew {
		x.warn("clock", fmt.Sprintf("this machine's clock and the server's are %s apart; tokens end by the server's", skew.Abs()),
			"Set this machine's clock (timedatectl set-ntp true); if it is right, tell the operator.")
		return
	}
	x.ok("clock", "the same as the server's, within a minute")
}

// doctorAgent is what the doctor calls itself, so that it does not tell of what it
// was refused itself.
const doctorAgent = "gradegate doctor (" + runtime.GOOS + ")"

// refusals tells why the last requests with this token were refused, those of the
// doctor itself apart. What is an hour old is no warning any more.
func (x *examination) refusals(ctx context.Context) {
	if x.client == nil || x.app.data != "" {
		return
	}
	list, err := x.client.Refusals(ctx)
	switch {
	case dead(err):
		x.skip("refusals", "the server does not know this token, so that it cannot tell")
		return
	case err != nil:
		x.skip("refusals", "the server does not tell them: "+err.Error())
		return
	}
	list = slices.DeleteFunc(list, func(e api.Explanation) bool { return e.Agent == doctorAgent })
	if len(list) == 0 {
		x.ok("refusals", "none of this token in the last day that stands")
		return
	}
	slices.Reverse(list) // the newest first
	if last := list[0]; x.now().Sub(last.At) > time.Hour {
		x.ok("refusals", "none of this token in the last hour; the last one before: %s, %s (gradegate explain %s)", when(&last.At), last.Route, last.RequestID)
		return
	}
	alike := map[string]int{}
	for _, e := range list {
		alike[e.Route+e.Summary]++
	}
	for _, e := range list {
		n := alike[e.Route+e.Summary]
		if n == 0 {
			continue // told with a newer one
		}
		alike[e.Route+e.Summary] = 0
		often := ""
		if n > 1 {
			often = fmt.Sprintf(", and %s before", count(n-1, "time"))
		}
		x.warn("refusal", when(&e.At)+often+", "+e.Route+": "+e.Summary+" (gradegate explain "+e.RequestID+")", e.Fix)
	}
}

// now is the time by the clock of the server, if it says it.
func (x *examination) now() time.Time {
	if x.date.IsZero() {
		return time.Now()
	}
	return x.date
}
