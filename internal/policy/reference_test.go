package policy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/internal/principal"
	"gradegate/internal/token"
)

var update = flag.Bool("update", false, "write the reference page anew")

// TestReference keeps docs/reference/policy.md the truth: it is computed from
// the code that decides.
func TestReference(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# What decides\n\nComputed from the code; `go test ./internal/policy -update` writes it anew.\n")
	clocks(&b)
	states(&b)
	rights(&b)
	file := filepath.Join("..", "..", "docs", "reference", "policy.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, b.Bytes()) {
		t.Errorf("the page is not what the code does; write it anew: go test ./internal/policy -update (%v)", err)
	}
}

func row(b *bytes.Buffer, cells ...string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }

func head(b *bytes.Buffer, title, text string, columns ...string) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n", title, text)
	row(b, columns...)
	row(b, strings.Split(strings.Repeat("--- ", len(columns)-1)+"---", " ")...)
}

// clocks computes, for each kind, when a token that is issued now and used once
// a day later ends by each clock.
func clocks(b *bytes.Buffer) {
	head(b, "The clocks of a token", "What ends a token that nobody ends, with no policy set. `max_expires_at` counts from the birth of the family: a rotation "+
		"does not move it, unless its owner has just signed in. `rotate_by` warns, and ends the token only where rotation is enforced. "+
		"A predecessor ends with its grace period, "+days(token.DefaultGrace)+" unless another was asked for and "+days(token.MaxGrace)+" at most; once its successor was used, "+
		days(token.RestTime)+" after its own last use.",
		"kind", "`expires_at`", "`idle_expires_at`, used", "`idle_expires_at`, never used", "`max_expires_at`", "`rotate_by`")
	terms := []token.Terms{token.PlatformTerms()}
	for _, k := range []token.Token{
		{Kind: token.Personal, Renewal: token.Sliding, Lifetime: token.DefaultLifetime},
		{Kind: token.Service, Renewal: token.Sliding, Lifetime: token.DefaultLifetime},
		{Kind: token.Session, Renewal: token.Fixed, FixedEnd: at(token.SessionLifetime), MaxLifetime: token.SessionMax},
		{Kind: token.Invite, Renewal: token.Fixed, FixedEnd: at(token.InviteLifetime)},
	} {
		k.IssuedAt, k.BornAt = t0, t0
		h := &token.Holder{Status: principal.Active, Terms: terms}
		used, fresh := k.Clocks(h, token.History{LastUse: at(day)}, at(day)), k.Clocks(h, token.History{}, t0)
		expires := days(fresh.Expires.At.Sub(t0))
		if k.Renewal == token.Sliding {
			expires += " after the last use"
		}
		row(b, k.Kind.String(), expires, after(used.Idle.At, at(day)), after(fresh.Idle.At, t0), after(fresh.Max.At, t0), after(fresh.Rotate.At, t0))
	}
	fmt.Fprintf(b, "\nA policy of the platform or of a group may set each of these spans, and enforce rotation; the strictest of all levels and of what was asked\n"+
		"for at creation decides, and every answer names its level. A token is asked for with %s to %s. Idle clocks stand still while uses\n"+
		"could not be recorded. Signed in with another credential, an owner brings back what idleness has ended, for %s.\n",
		days(token.MinLifetime), days(token.DefaultMaxLifetime), days(token.ReactivateWithin))
}

func days(d time.Duration) string {
	switch {
	case d%day == 0 && d > day:
		return fmt.Sprintf("%d d", d/day)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d h", d/time.Hour)
}

func after(end, from time.Time) string {
	if end.IsZero() {
		return "–"
	}
	return days(end.Sub(from))
}

// states asks of each state what its holder may still do.
func states(b *bytes.Buffer) {
	head(b, "What a state leaves", "What somebody decided comes before what a clock says, and the strictest first. \"Just ended\" is "+days(token.ReadAfter)+
		" from the end by a clock, for jobs that were submitted before.", "state", "own things", "read own jobs", "cancel own jobs", "who ends the state")
	old, fresh := at(-day), at(day)
	for _, x := range []struct {
		state string
		s     *Subject
		ends  string
	}{
		{"active", &Subject{}, "a clock, its owner, an administrator, whoever holds its secret"},
		{"quarantined (a leak is suspected)", &Subject{Mode: ModeQuarantined}, "an administrator"},
		{"just ended", &Subject{Mode: ModeExpiredRead, Ended: t0, Until: at(token.ReadAfter)}, "time; after idleness also its owner, signed in"},
		{"suspended", nil, "whoever suspended it: its owner, or an administrator"},
		{"unproven (after a restore)", nil, "nobody: a new sign-in or invite"},
		{"expired, rotated, revoked, owner inactive", nil, "nobody; an owner who is resumed has his tokens again"},
	} {
		cells := []string{x.state, "no", "no", "no", x.ends}
		if x.s != nil {
			x.s.Principal, x.s.Scopes = principal.Principal{ID: "usr_1", Role: principal.User}, UserScopes
			own := Resource{Owner: "usr_1", Submitted: old}
			cells[1] = yes(Decide(x.s, TokenCreate, Resource{Owner: "usr_1"}))
			cells[2], cells[3] = yes(Decide(x.s, JobRead, own)), yes(Decide(x.s, JobCancel, own))
			own.Submitted = fresh
			if cells[2] == "yes" && Decide(x.s, JobRead, own) != nil {
				cells[2], cells[3] = "older ones", "older ones"
			}
		}
		row(b, cells...)
	}
}

func yes(err error) string {
	if err == nil {
		return "yes"
	}
	return "no"
}

// everyAction is all that there are, in the order of the page.
var everyAction = []Action{
	WhoAmI, TokenCreate, TokenRead, TokenRotate, TokenRenew, TokenNarrow, TokenRevoke, TokenSuspend, TokenVerify, TokenImport,
	ServiceRead, ServiceOwn, ServiceCreate, ConsentGive, ConsentRead, ConsentEnd, JobSubmit, JobRead, JobCancel, JobResult, QuotaRead,
	CompetitionGet, CompetitionSet, UserRead, UserManage, PolicyRead, PolicyManage, BlockRead, BlockManage,
	SweepRun, ArchiveRead, HoldManage, AuditRead,
}

// TestReferenceIsWhole: every action of the code is on the page.
func TestReferenceIsWhole(t *testing.T) {
	code, err := os.ReadFile("policy.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`= Action\{Name: "([a-z.]+)"`).FindAllSubmatch(code, -1)
	for _, m := range found {
		if !slices.ContainsFunc(everyAction, func(a Action) bool { return a.Name == string(m[1]) }) {
			t.Errorf("%s is not on the page", m[1])
		}
	}
	if len(found) != len(everyAction) {
		t.Errorf("%d actions in the code, %d on the page", len(found), len(everyAction))
	}
}

// rights asks, for each action, who may do it.
func rights(b *bytes.Buffer) {
	head(b, "Who may do what", "Effective rights are those of the token and those that its owner has at this moment. \"Others'\": what belongs to somebody else; who may not, "+
		"gets 404. What is others' is reached with the scope of the role: `audit:read` of an auditor, `admin:*` of an administrator. "+
		"A job's handle and the token that its program holds are for that one job.",
		"action", "scope", "one's own", "others', user", "others', auditor", "others', administrator", "job handle", "run token")
	for _, a := range everyAction {
		by := func(role principal.Role, owner principal.ID) string {
			s := Subject{Kind: token.Personal, Principal: principal.Principal{ID: "usr_1", Role: role}, Scopes: RoleScopes(role)}
			return yes(Decide(&s, a, Resource{Owner: owner}))
		}
		handle := func(k token.Kind) string {
			return yes(Decide(&Subject{Kind: k, Job: "job_1"}, a, Resource{Owner: "usr_1", Job: "job_1"}))
		}
		scope := "`" + a.Scope + "`"
		if a.Scope == "" {
			scope = "any"
		}
		own := by(principal.User, "usr_1")
		if own == "no" && by(principal.Admin, "") == "yes" {
			own = "by role"
		}
		row(b, "`"+a.Name+"`", scope, own, by(principal.User, "usr_2"), by(principal.Auditor, "usr_2"), by(principal.Admin, "usr_2"), handle(token.JobKind), handle(token.Run))
	}
}
