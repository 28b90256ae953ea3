package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/policy"
	"gradegate/internal/server"
	"gradegate/internal/token"
)

func (x *examination) program() {
	x.ok("program", "gradegate %s (%s, %s)", server.Version, runtime.GOOS, runtime.GOARCH)
}

// address says which server is meant, and why.
func (x *examination) address() bool {
	a := x.app
	if a.data != "" {
		x.url = "the socket in " + a.data
		x.ok("address", "%s, as its local administrator (--data)", x.url)
		return true
	}
	u, err := a.server()
	if err != nil {
		x.fails(context.Background(), "address", err)
		return false
	}
	from := "the last login"
	switch {
	case a.url != "":
		from = "--url"
	case a.getenv("GRADEGATE_URL") != "":
		from = "GRADEGATE_URL"
	case a.getenv("GRADEGATE_HOST") != "":
		from = "GRADEGATE_HOST"
	default:
		if h, _ := a.loadHosts(); h.Current == "" { // it was just read
			from = "nobody named one"
		}
	}
	x.url = u
	x.ok("address", "%s (%s)", u, from)
	return true
}

// credential says which token is used, and which ones it hides.
func (x *examination) credential() {
	a := x.app
	if a.data != "" {
		x.skip("credential", "none is needed on the socket")
		x.client, _ = a.socket()
		return
	}
	found, shadowed, err := a.find(x.url)
	a.credential, a.shadowed = found, shadowed
	switch {
	case err != nil:
		x.fails(context.Background(), "credential", err)
		return
	case found.secret == "":
		x.bad("credential", "there is no token for this server: not in --token-file, GRADEGATE_TOKEN, GRADEGATE_TOKEN_FILE, "+orDash(a.hostsFile())+" or netrc",
			"gradegate login --url "+x.url+" --invite CODE (an administrator makes the code)", exitNoToken)
		return
	}
	client, err := a.client()
	if err != nil {
		x.fails(context.Background(), "credential", err)
		return
	}
	client.Retries = 1
	client.Agent = doctorAgent
	x.client = client
	x.ok("credential", "from %s", found.from)
	for _, s := range shadowed {
		x.warn("credential", "another one in "+s+" is not used, because "+found.from+" comes first", "Remove the one that you do not mean.")
	}
}

// files says who else can read what holds a token.
func (x *examination) files() {
	a := x.app
	checked := 0
	netrc := a.getenv("NETRC")
	if netrc == "" && a.getenv("HOME") != "" {
		netrc = filepath.Join(a.getenv("HOME"), ".netrc")
	}
	for _, path := range []string{a.tokenFile, a.getenv("GRADEGATE_TOKEN_FILE"), a.hostsFile(), netrc} {
		info, err := os.Stat(path)
		if path == "" || err != nil {
			continue // what is missing and needed was told before
		}
		checked++
		mode := info.Mode().Perm()
		switch {
		case mode&0o077 == 0:
		case path == a.hostsFile():
			x.bad("files", fmt.Sprintf("%s can be read by others (mode %04o), and is not used for that", path, mode), "chmod 600 "+path+"; then rotate the token: gradegate token rotate", exitNoToken)
		default:
			x.warn("files", fmt.Sprintf("%s can be read by others (mode %04o)", path, mode), "chmod 600 "+path)
		}
	}
	if n := len(x.Checks); checked > 0 && x.Checks[n-1].Name != "files" {
		x.ok("files", "only you can read what holds a token (%s)", count(checked, "file"))
	}
}

// form looks at the token without sending it anywhere.
func (x *examination) form() {
	secret := x.app.credential.secret
	switch {
	case secret == "" || x.client == nil:
		return
	case !strings.HasPrefix(secret, "gg"):
		x.warn("token form", fmt.Sprintf("it is not of this service's form (%d characters): good only if it was imported", len(secret)), "Compare it with where you copied it from.")
		return
	}
	p, err := token.Parse(secret)
	if err != nil {
		x.bad("token form", fmt.Sprintf("it is malformed: %v", err), "Copy it again, whole.", exitNoToken)
		return
	}
	x.ok("token form", "%s, %s: whole, and its checksum is right", p.Public.ID(), kindWord(p.Kind.String()))
}

// proxies names what stands between, by the variables that say so.
func (x *examination) proxies() {
	if x.app.data != "" {
		return
	}
	names := []string{"HTTPS_PROXY", "https_proxy"}
	if strings.HasPrefix(x.url, "http://") {
		names = []string{"HTTP_PROXY", "http_proxy"}
	}
	set := []string{}
	for _, name := range append(names, "NO_PROXY", "no_proxy", "GRADEGATE_CA_FILE") {
		v := x.app.getenv(name)
		if v == "" {
			continue
		}
		if u, err := url.Parse(v); err == nil && u.User != nil {
			v = u.Redacted()
		}
		set = append(set, name+"="+v)
	}
	if len(set) == 0 {
		x.ok("proxy", "no proxy and no authority is named in the environment")
		return
	}
	x.ok("proxy", "%s", strings.Join(set, " "))
}

func (x *examination) whoami(ctx context.Context) {
	if x.client == nil {
		return
	}
	me, err := x.client.Whoami(ctx)
	if err != nil {
		x.fails(ctx, "whoami", err)
		return
	}
	x.me = &me
	name := "the local administrator"
	if me.User != nil {
		name = me.User.Name + " (" + me.User.Role + ")"
	}
	if me.Mode == policy.ModeQuarantined {
		x.bad("whoami", name+"; the token is quarantined, since somebody reported it leaked: it may read and cancel its owner's own jobs, nothing else",
			"If it has leaked, end it: gradegate token revoke self. If not, ask an administrator to run: gradegate token resume "+me.TokenID, exitForbidden)
		return
	}
	if me.Mode != "normal" && me.Mode != "" {
		x.warn("whoami", name+", in the mode "+me.Mode, "gradegate token show self says why.")
		return
	}
	x.ok("whoami", "%s", name)
}

// ways are what people do every day, and the scope that each needs.
var ways = []struct{ does, scope string }{
	{"submit", policy.ScopeSubmit}, {"read jobs", policy.ScopeRead}, {"cancel", policy.ScopeCancel}, {"read grades", policy.ScopeResults},
}

// token says for how long and for what it is good, and from where.
func (x *examination) token(ctx context.Context) {
	if x.me == nil || x.app.data != "" {
		return
	}
	if x.me.Kind == token.JobKind.String() {
		x.ok("scopes", "it is the handle of the job %s, and good for that alone", x.me.Job)
		return
	}
	t, err := x.client.TokenByID(ctx, "self")
	if err != nil {
		x.fails(ctx, "token", err)
		return
	}
	x.session()
	x.end(t)
	x.scopes(t)
	x.network(t)
	x.sharing(t)
	x.guesses(t)
}

// guesses tells of wrong secrets with the id of the token. They open nothing; but
// its owner should know.
func (x *examination) guesses(t api.Token) {
	x.app.guesses.Store(0) // it is told here
	if t.Guesses != nil && time.Since(t.Guesses.Last) < 7*24*time.Hour {
		x.warn("guesses", "somebody knows the id of the token and not its secret: "+guessLine(*t.Guesses)+". Whoever guesses is slowed down, and you are not", "gradegate token rotate, for another id")
	}
}

// session says whether there is one, and how there is one again.
func (x *examination) session() {
	switch {
	case x.me.User == nil || x.me.Kind == token.Service.String():
	case x.me.Kind == token.Session.String():
		x.ok("session", "you are signed in with one")
	default:
		x.ok("session", "none: you go by a token. "+sessionAgain, x.me.User.Name)
	}
}

func (x *examination) end(t api.Token) {
	text := t.Ends
	if end := nearestEnd(t); end != "" {
		text += " (nearest: " + end + ")"
	}
	soon := 7 * 24 * time.Hour
	if t.Kind == token.Session.String() {
		soon = 30 * time.Minute
	}
	idle := t.EffectiveReason == string(token.ClockIdle) // this very use has set it back
	if t.EffectiveExpiresAt == nil || idle || x.app.follows || time.Until(*t.EffectiveExpiresAt) > soon {
		x.ok("end", "%s", text)
		return
	}
	fix := "gradegate token rotate"
	if t.Kind == token.Session.String() {
		fix = "gradegate token create --save"
	}
	x.warn("end", text, fix)
}

func (x *examination) scopes(t api.Token) {
	var missing []string
	fix := "gradegate token create --replace " + t.ID
	for _, s := range t.Scopes {
		fix += " --scope " + s
	}
	for _, w := range ways {
		if !slices.Contains(t.Scopes, w.scope) {
			missing = append(missing, w.does+" ("+w.scope+")")
			fix += " --scope " + w.scope
		}
	}
	if len(missing) == 0 {
		x.ok("scopes", "%s", strings.Join(t.Scopes, " "))
		return
	}
	x.warn("scopes", "it cannot "+strings.Join(missing, ", ")+"; it has "+orDash(strings.Join(t.Scopes, " ")),
		"If it should, with a credential that may do all of it: "+fix)
}

func (x *examination) network(t api.Token) {
	detail := "the server sees you at " + orDash(x.me.IP)
	if len(t.AllowedCIDRs) > 0 && !t.Observe {
		detail += "; it is good from " + strings.Join(t.AllowedCIDRs, " ")
	}
	x.ok("network", "%s", detail)
}

// sharedRE are names that a token of one person does not have.
var sharedRE = regexp.MustCompile(`(?i)(^|[^a-z])(team|shared|share|group|common|everyone|all|lab|default)([^a-z]|$)`)

// sharing teaches where it is needed (R3.8).
func (x *examination) sharing(t api.Token) {
	if t.Kind == token.Service.String() || !sharedRE.MatchString(t.Name) {
		x.ok("sharing", "its name %s does not look as if several people used it", quoted(t.Name))
		return
	}
	x.warn("sharing", "it is called "+quoted(t.Name)+", as if several people used it: nobody can tell then who did what, and it ends for all of you at once",
		"Everybody signs in with a token of his own (gradegate login --invite CODE); to name who made a submission: gradegate submit --submitted-by NAME")
}
