// Package policy says who may do what: one pure function over the subject of a
// request, the action and the resource it is aimed at.
//
// Effective rights are those of the token AND those its owner has at this
// moment. Where a subject may not even know that a thing exists, the answer is
// "not found", built fresh, and not "denied".
package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Subject is a principal as seen in one request. It is a value: nothing later
// looks it up again.
type Subject struct {
	Principal principal.Principal
	Token     token.ID
	Kind      token.Kind
	Scopes    []string
	// Competitions limits the subject to these, what its projects hold included;
	// empty means all of its owner's.
	Competitions []string
	// CIDRs are the networks that its token is limited to; empty means all.
	CIDRs []netip.Prefix
	// Job is set for job handles and run tokens: the one job they are for.
	Job  string
	Addr netip.Addr
	// Outside is the level of policy whose networks it came from outside of: one
	// that only observes, or, of who was refused, the one that refused (the token's
	// own networks included).
	Outside string
	// Agent is what the client called itself.
	Agent string
	// Local is the administrator at the server's own socket; LocalUID is the
	// peer's uid, for the audit trail.
	Local    bool
	LocalUID uint32
	// Ownerless is since when nobody has answered for the service that it is.
	Ownerless time.Time
	// Mode is "", ModeQuarantined or ModeExpiredRead.
	Mode  string
	Ended time.Time   // of a token in ModeExpiredRead
	Until time.Time   // nearest clock of the token; zero: none
	By    token.Clock // which one it is
	Level string      // which level of policy says so
	// Due is when the rotation of its token is due; zero: never, or it was rotated.
	Due time.Time
	// SignedIn is when the holder of a session signed in; zero for other kinds.
	SignedIn time.Time
	// Request is the request's id, for the record.
	Request string
}

// The modes of a subject whose token is not simply active.
const (
	ModeQuarantined = "quarantined"  // a leak is suspected (B2)
	ModeExpiredRead = "expired-read" // its end was a clock, a day ago at most (R1.4)
	// ModeReplay: the token has ended, and asks again for the answer to a request
	// that it made while it was active. Nothing new is decided for it.
	ModeReplay = "replay"
	// ModeEnded: the token is not active any more, or not from there, and asks why
	// (B16). Nothing is decided for it.
	ModeEnded = "ended"
)

// Counts reports whether a use in that mode is one that keeps a token from
// ending unused.
func Counts(mode string) bool { return mode == "" || mode == ModeQuarantined }

// Actor is the subject's name in audit events.
func (s *Subject) Actor() string {
	if s.Local {
		return localName(s.LocalUID)
	}
	return string(s.Principal.ID)
}

// IsAdmin reports whether the subject's owner is an administrator right now.
// Whether its token carries the right as well is for Decide to say.
func (s *Subject) IsAdmin() bool { return s.Local || s.Principal.Role == principal.Admin }

// Action is what is asked for. Each needs one scope.
type Action struct {
	Name  string
	Scope string // "" means: any active token
	// Own: the owner of the resource may do it. Role: so may this role.
	Own  bool
	Role principal.Role // "" means: nobody but the owner
	// Handle and RunToken: the job's own handle, or what it holds while running, may do it.
	Handle, RunToken bool
	// Reads is set for what an auditor may see as well.
	Reads bool
	// Quarantined: still allowed to a quarantined token, on its own existing jobs;
	// Expired: to one that has just expired.
	Quarantined, Expired bool
}

// Scopes.
const (
	ScopeSubmit  = "jobs:submit"
	ScopeRead    = "jobs:read"
	ScopeCancel  = "jobs:cancel"
	ScopeResults = "results:read"
	ScopeTokens  = "tokens:self"
	ScopeVerify  = "tokens:verify"
	ScopeAudit   = "audit:read"
	ScopeAdmin   = "admin:*"
)

// UserScopes is what a personal token carries unless less is asked for.
var UserScopes = []string{ScopeSubmit, ScopeRead, ScopeCancel, ScopeResults, ScopeTokens}

// ServiceScopes is the most that the tokens of a service carry: what a program
// needs. It may rotate its own token; it makes no others.
var ServiceScopes = UserScopes

// Scopes lists every scope that exists.
var Scopes = []string{ScopeSubmit, ScopeRead, ScopeCancel, ScopeResults, ScopeTokens, ScopeVerify, ScopeAudit, ScopeAdmin}

// The actions.
var (
	WhoAmI         = Action{Name: "whoami", Own: true, Quarantined: true}
	TokenCreate    = Action{Name: "token.create", Scope: ScopeTokens, Own: true}
	TokenRead      = Action{Name: "token.read", Scope: ScopeTokens, Own: true, Role: principal.Admin, Reads: true}
	TokenRotate    = Action{Name: "token.rotate", Scope: ScopeTokens, Own: true}
	TokenRevoke    = Action{Name: "token.revoke", Scope: ScopeTokens, Own: true, Role: principal.Admin}
	TokenSuspend   = Action{Name: "token.suspend", Scope: ScopeTokens, Own: true, Role: principal.Admin}
	TokenNarrow    = Action{Name: "token.narrow", Scope: ScopeTokens, Own: true}
	TokenRenew     = Action{Name: "token.renew", Scope: ScopeTokens, Own: true}
	TokenVerify    = Action{Name: "token.verify", Scope: ScopeVerify, Own: true, Role: principal.Admin}
	ServiceRead    = Action{Name: "service.read", Scope: ScopeTokens, Own: true, Role: principal.Admin, Reads: true}
	ServiceOwn     = Action{Name: "service.owners", Scope: ScopeTokens, Own: true, Role: principal.Admin}
	ServiceCreate  = Action{Name: "service.create", Scope: ScopeAdmin, Role: principal.Admin}
	ConsentGive    = Action{Name: "consent.give", Scope: ScopeTokens, Own: true}
	ConsentRead    = Action{Name: "consent.read", Own: true, Role: principal.Admin, Reads: true}
	ConsentEnd     = Action{Name: "consent.withdraw", Scope: ScopeTokens, Own: true, Role: principal.Admin}
	UserManage     = Action{Name: "user.manage", Scope: ScopeAdmin, Role: principal.Admin}
	TokenImport    = Action{Name: "token.import", Scope: ScopeAdmin, Role: principal.Admin}
	UserRead       = Action{Name: "user.read", Scope: ScopeAdmin, Role: principal.Admin, Reads: true}
	PolicyRead     = Action{Name: "policy.read", Scope: ScopeAdmin, Role: principal.Admin, Reads: true}
	PolicyManage   = Action{Name: "policy.manage", Scope: ScopeAdmin, Role: principal.Admin}
	BlockRead      = Action{Name: "block.read", Scope: ScopeAdmin, Role: principal.Admin, Reads: true}
	BlockManage    = Action{Name: "block.manage", Scope: ScopeAdmin, Role: principal.Admin}
	CompetitionSet = Action{Name: "competition.apply", Scope: ScopeAdmin, Role: principal.Admin}
	CompetitionGet = Action{Name: "competition.read", Scope: ScopeRead, Own: true, Role: principal.Admin, Reads: true}
	JobSubmit      = Action{Name: "job.submit", Scope: ScopeSubmit, Own: true}
	JobRead        = Action{Name: "job.read", Scope: ScopeRead, Own: true, Role: principal.Admin, Handle: true, RunToken: true, Reads: true, Quarantined: true, Expired: true}
	JobCancel      = Action{Name: "job.cancel", Scope: ScopeCancel, Own: true, Role: principal.Admin, Handle: true, Quarantined: true, Expired: true}
	JobResult      = Action{Name: "job.result", Scope: ScopeResults, Own: true, Role: principal.Admin, Handle: true, Reads: true, Quarantined: true, Expired: true}
	QuotaRead      = Action{Name: "quota.read", Scope: ScopeRead, Own: true, Role: principal.Admin, Reads: true}
	// SweepRun, HoldManage and ArchiveRead are about what ended long ago.
	SweepRun    = Action{Name: "sweep.run", Scope: ScopeAdmin, Role: principal.Admin}
	HoldManage  = Action{Name: "hold.manage", Scope: ScopeAdmin, Role: principal.Admin}
	ArchiveRead = Action{Name: "archive.read", Scope: ScopeAdmin, Role: principal.Admin, Reads: true}
	AuditRead   = Action{Name: "audit.read", Scope: ScopeAudit, Role: principal.Auditor, Reads: true}
)

// ProjectPrefix makes an entry of a token's competitions a project: all that it
// holds when the token is used.
const ProjectPrefix = "project:"

// Resource is what an action is aimed at. Its zero value is "the service
// itself", which everybody may know of.
type Resource struct {
	Owner       principal.ID // "" if it has none
	Competition string       // "" if it is in none
	Job         string       // the job's id, for job handles
	Submitted   time.Time    // when the job was submitted
	// CoOwned: the subject answers for the service that owns it, or handed the
	// job in for its owner. It may then do what the owner may.
	CoOwned bool
}

// Decide returns nil if the subject may perform the action on the resource.
// Otherwise it is a fault: NotFound where the subject may not know of the
// resource, Denied with the scopes required, granted and missing elsewhere.
func Decide(s *Subject, a Action, r Resource) error {
	if s.Kind == token.JobKind || s.Kind == token.Run {
		return decideHandle(s, a, r)
	}
	if s.Local {
		return decideLocal(a, r)
	}
	own := a.Own && (r.Owner == "" || r.Owner == s.Principal.ID || r.CoOwned && s.Mode == "")
	if s.Mode == ModeExpiredRead && !(a.Expired && own) {
		return Expired(s)
	}
	byRole := hasRole(s.Principal.Role, a)
	if !own && !byRole {
		if r.Owner != "" {
			return hidden()
		}
		return roleMissing(s, a)
	}
	if s.Mode == ModeExpiredRead && (r.Submitted.IsZero() || !r.Submitted.Before(s.Ended)) {
		return hidden()
	}
	if s.Mode == ModeQuarantined && !(a.Quarantined && own) {
		return quarantined(s, a)
	}
	// What is not one's own needs the administrative scope: a submit token of
	// an administrator sees its owner's things only.
	scope := a.Scope
	if !own && byRole {
		scope = roleScope(s.Principal.Role)
	}
	if !Granted(s.Scopes, scope) || !roleHas(s.Principal.Role, scope) {
		if !own && r.Owner != "" {
			return hidden()
		}
		return missing(s, a, scope)
	}
	if r.Competition != "" && len(s.Competitions) > 0 && !slices.Contains(s.Competitions, r.Competition) {
		return fault.New(fault.Denied, "competition_missing", "The token is limited to other competitions.").
			Lacking([]string{r.Competition}, s.Competitions).With("action", a.Name).
			WithFix("Use a token that is for %s: gradegate token create --competition %s", fault.Word(r.Competition), fault.Word(r.Competition))
	}
	return nil
}

func quarantined(s *Subject, a Action) error {
	if s.Ownerless.IsZero() {
		return denied(a, "The token is quarantined: it may read and cancel its own jobs, nothing else.")
	}
	return fault.New(fault.Denied, "service_ownerless", "Nobody has answered for the service %s since %s: its tokens may read and cancel its own jobs, nothing else.", s.Principal.Name, s.Ownerless.UTC().Format(time.RFC3339)).
		With("action", a.Name).WithFix("Ask an administrator to run: gradegate service owners %s --add NAME --add NAME", s.Principal.Name)
}

func decideHandle(s *Subject, a Action, r Resource) error {
	allowed := s.Kind == token.JobKind && a.Handle || s.Kind == token.Run && a.RunToken || a.Name == WhoAmI.Name
	if !allowed {
		return denied(a, "A job's own token is for that job only.").Lacking([]string{a.Scope}, nil).WithFix("Use a token of yours: --token-file FILE, or what gradegate login has stored")
	}
	if a.Name != WhoAmI.Name && r.Job != s.Job {
		return hidden()
	}
	return nil
}

// decideLocal: the local administrator manages people and reads everything,
// but is nobody's person: it submits nothing and holds no tokens.
func decideLocal(a Action, r Resource) error {
	if a.Role == "" && a.Scope != "" {
		return denied(a, "The local administrator has no jobs and tokens of its own.").
			WithFix("Sign in as a person: gradegate login --url URL --invite CODE")
	}
	_ = r
	return nil
}

func hasRole(role principal.Role, a Action) bool {
	switch role {
	case principal.Admin:
		return a.Role == principal.Admin || a.Role == principal.Auditor
	case principal.Auditor:
		return a.Reads && (a.Role == principal.Admin || a.Role == principal.Auditor)
	}
	return false
}

// MayNeed are the scopes that a decision about an action may have asked for, of an
// owner of a role: what the action needs, and, as it may have been about somebody
// else's things, what the role does.
func MayNeed(a Action, role principal.Role) (scopes []string) {
	if a.Scope != "" {
		scopes = append(scopes, a.Scope)
	}
	if hasRole(role, a) {
		scopes = append(scopes, roleScope(role))
	}
	return scopes
}

func roleScope(role principal.Role) string {
	if role == principal.Auditor {
		return ScopeAudit
	}
	return ScopeAdmin
}

// Granted reports whether the granted scopes include the wanted one.
// "admin:*" includes reading the audit trail; it does not include submitting.
func Granted(granted []string, want string) bool {
	if want == "" || slices.Contains(granted, want) {
		return true
	}
	return want == ScopeAudit && slices.Contains(granted, ScopeAdmin)
}

// RoleScopes is the most that tokens of a role can carry.
func RoleScopes(role principal.Role) []string {
	switch role {
	case principal.Admin:
		return append(slices.Clone(UserScopes), ScopeAudit, ScopeAdmin, ScopeVerify)
	case principal.Auditor:
		return append(slices.Clone(UserScopes), ScopeAudit)
	}
	return slices.Clone(UserScopes)
}

// roleHas reports whether an owner of the role may have the scope at present: a
// token that was made when its owner had more does not keep it.
func roleHas(role principal.Role, scope string) bool {
	switch scope {
	case ScopeAdmin, ScopeVerify:
		return role == principal.Admin
	case ScopeAudit:
		return role == principal.Admin || role == principal.Auditor
	}
	return true
}

// Narrow returns the scopes a new token gets: all that the parent has if none
// are asked for, else exactly those asked for, which must all be granted.
func Narrow(asked, granted []string) ([]string, error) {
	if len(asked) == 0 {
		return slices.Clone(granted), nil
	}
	var out []string
	for _, s := range asked {
		if !slices.Contains(Scopes, s) {
			return nil, fault.New(fault.Invalid, "scope_unknown", "There is no such scope.").
				WithFix("Use some of: %s", strings.Join(Scopes, " "))
		}
		if !slices.Contains(granted, s) {
			return nil, fault.New(fault.Denied, "scope_widened", "A token cannot give more than it has.").Lacking(asked, granted).
				WithFix("Ask for less, or with a credential that has all of it: gradegate whoami")
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Expired is the refusal of everything that R1.4 does not allow.
func Expired(s *Subject) error {
	code := "token_expired"
	if s.By == token.ClockIdle {
		code = "token_idle_expired"
	}
	return fault.New(fault.Unauthenticated, code, "The token ended at %s. Until %s it still reads and cancels jobs that were submitted before, and does nothing else.",
		s.Ended.Format(time.RFC3339), s.Until.Format(time.RFC3339)).WithFix("Sign in again: gradegate login --invite CODE")
}

func hidden() error {
	return fault.New(fault.NotFound, "not_found", "There is no such thing, or it is not yours.")
}

func denied(a Action, detail string, args ...any) *fault.Error {
	return fault.New(fault.Denied, "denied", detail, args...).With("action", a.Name)
}

// roleMissing is the refusal of what only certain roles may do.
func roleMissing(s *Subject, a Action) error {
	who := "an administrator"
	if a.Role == principal.Auditor || a.Reads {
		who = "an administrator or an auditor"
	}
	return denied(a, "Only %s may do this.", who).Lacking([]string{roleScope(a.Role)}, effective(s)).
		WithFix("Ask an administrator; gradegate whoami shows who you are.")
}

// effective are the scopes of the token that its owner may have at present.
func effective(s *Subject) []string {
	return slices.DeleteFunc(slices.Clone(s.Scopes), func(scope string) bool { return !roleHas(s.Principal.Role, scope) })
}

func missing(s *Subject, a Action, scope string) error {
	name := fault.Word(s.Principal.Name)
	// No token makes one that may do more: what helps is another one, or a sign-in,
	// which has all that the role has.
	f := fault.New(fault.Denied, "scope_missing", "The token lacks the scope %s.", scope).
		Lacking([]string{scope}, effective(s)).With("action", a.Name).
		WithFix("Use another token of yours that has it (--token-file FILE), or sign in anew: an administrator runs gradegate user invite %s --re-enrol, "+
			"which ends what you hold, and you gradegate login --invite CODE", name)
	switch {
	case !roleHas(s.Principal.Role, scope):
		return f.WithFix("Ask an administrator: your role does not have it. They give another one with: gradegate user set %s --role ROLE", name)
	case s.Principal.Kind == principal.Service:
		return f.WithFix("Ask one of its owners to run: gradegate token create --service %s --name NAME --scope %s", name, scope)
	}
	return f
}

func localName(uid uint32) string { return "local:" + strconv.FormatUint(uint64(uid), 10) }
