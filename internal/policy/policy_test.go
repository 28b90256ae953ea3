package policy

import (
	"slices"
	"testing"

	"gradegate/internal/fault"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

func subject(role principal.Role, scopes ...string) *Subject {
	return &Subject{Principal: principal.Principal{ID: "usr_me", Role: role, Status: principal.Active}, Token: "tok_1", Kind: token.Personal, Scopes: scopes}
}

// R2.6: rights are token AND owner, and what is somebody else's does not exist.
func TestDecide(t *testing.T) {
	mine, theirs := Resource{Owner: "usr_me", Competition: "iris", Job: "job_1"}, Resource{Owner: "usr_you", Competition: "iris", Job: "job_2"}
	user, admin := subject(principal.User, UserScopes...), subject(principal.Admin, RoleScopes(principal.Admin)...)
	adminNarrow := subject(principal.Admin, UserScopes...)
	auditor := subject(principal.Auditor, RoleScopes(principal.Auditor)...)
	demoted := subject(principal.User, RoleScopes(principal.Admin)...)
	handle := &Subject{Principal: user.Principal, Kind: token.JobKind, Job: "job_1"}
	run := &Subject{Principal: user.Principal, Kind: token.Run, Job: "job_1"}
	quarantined := subject(principal.User, UserScopes...)
	quarantined.Mode = "quarantined"
	elsewhere := subject(principal.User, UserScopes...)
	elsewhere.Competitions = []string{"mnist"}
	local := &Subject{Local: true, LocalUID: 0}
	const ok = "ok"
	for _, c := range []struct {
		name string
		s    *Subject
		a    Action
		r    Resource
		want string
	}{
		{"own job", user, JobRead, mine, ok},
		{"their job", user, JobRead, theirs, "not_found"},
		{"their cancel", user, JobCancel, theirs, "not_found"},
		{"their token", user, TokenRevoke, theirs, "not_found"},
		{"no scope", subject(principal.User, ScopeRead), JobCancel, mine, "scope_missing"},
		{"people", user, UserManage, Resource{}, "denied"},
		{"admin people", admin, UserManage, Resource{}, ok},
		{"admin's narrow token", adminNarrow, UserManage, Resource{}, "scope_missing"},
		{"admin's narrow token, their job", adminNarrow, JobRead, theirs, "not_found"},
		{"admin, their job", admin, JobCancel, theirs, ok},
		{"admin may not rotate theirs", admin, TokenRotate, theirs, "not_found"},
		{"admin may not submit as them", admin, JobSubmit, theirs, "not_found"},
		{"lost the role", demoted, UserManage, Resource{}, "denied"},
		{"auditor reads", auditor, JobRead, theirs, ok},
		{"auditor cancels", auditor, JobCancel, theirs, "not_found"},
		{"auditor's trail", auditor, AuditRead, Resource{}, ok},
		{"user's trail", user, AuditRead, Resource{}, "denied"},
		{"handle, own job", handle, JobCancel, mine, ok},
		{"handle, other job of its owner", handle, JobRead, Resource{Owner: "usr_me", Job: "job_9"}, "not_found"},
		{"handle submits", handle, JobSubmit, mine, "denied"},
		{"handle rotates", handle, TokenRotate, mine, "denied"},
		{"run reads its job", run, JobRead, mine, ok},
		{"run cancels", run, JobCancel, mine, "denied"},
		{"quarantined cancels", quarantined, JobCancel, mine, ok},
		{"quarantined submits", quarantined, JobSubmit, mine, "denied"},
		{"quarantined creates", quarantined, TokenCreate, mine, "denied"},
		{"other competition", elsewhere, JobSubmit, mine, "competition_missing"},
		{"local manages", local, UserManage, Resource{}, ok},
		{"local reads", local, JobRead, theirs, ok},
		{"local submits", local, JobSubmit, Resource{}, "denied"},
		{"local makes tokens", local, TokenCreate, Resource{}, "denied"},
	} {
		err := Decide(c.s, c.a, c.r)
		got := ok
		if err != nil {
			got = fault.CodeOf(err)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A token never gives more than it has.
func TestNarrow(t *testing.T) {
	have := []string{ScopeRead, ScopeSubmit}
	if got, err := Narrow(nil, have); err != nil || len(got) != 2 {
		t.Error(got, err)
	}
	if got, err := Narrow([]string{ScopeRead, ScopeRead}, have); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
	for _, ask := range [][]string{{ScopeAdmin}, {ScopeRead, ScopeCancel}, {"jobs:*"}, {"JOBS:READ"}, {" jobs:read"}} {
		if got, err := Narrow(ask, have); err == nil {
			t.Errorf("%v gave %v", ask, got)
		}
	}
}

// R2.6: a refusal of a right names what is required, what there is, and what of
// it is missing, whichever way the right is lacking.
func TestRefusalsNameRights(t *testing.T) {
	user := subject(principal.User, ScopeRead, ScopeTokens)
	demoted := subject(principal.User, ScopeRead, ScopeAdmin)
	elsewhere := subject(principal.User, UserScopes...)
	elsewhere.Competitions = []string{"mnist"}
	handle := &Subject{Principal: user.Principal, Kind: token.JobKind, Job: "job_1"}
	_, widened := Narrow([]string{ScopeRead, ScopeSubmit}, user.Scopes)
	for name, c := range map[string]struct {
		err                        error
		required, granted, missing []string
	}{
		"scope":       {Decide(user, JobSubmit, Resource{}), []string{ScopeSubmit}, user.Scopes, []string{ScopeSubmit}},
		"role":        {Decide(user, UserManage, Resource{}), []string{ScopeAdmin}, user.Scopes, []string{ScopeAdmin}},
		"trail":       {Decide(user, AuditRead, Resource{}), []string{ScopeAudit}, user.Scopes, []string{ScopeAudit}},
		"lost role":   {Decide(demoted, UserManage, Resource{}), []string{ScopeAdmin}, []string{ScopeRead}, []string{ScopeAdmin}},
		"competition": {Decide(elsewhere, JobSubmit, Resource{Competition: "iris"}), []string{"iris"}, []string{"mnist"}, []string{"iris"}},
		"handle":      {Decide(handle, JobSubmit, Resource{}), []string{ScopeSubmit}, []string{}, []string{ScopeSubmit}},
		"widened":     {widened, []string{ScopeRead, ScopeSubmit}, user.Scopes, []string{ScopeSubmit}},
	} {
		f := fault.Of(c.err)
		for member, want := range map[string][]string{"required": c.required, "granted": c.granted, "missing": c.missing} {
			if got, ok := f.More[member].([]string); !ok || !slices.Equal(got, want) {
				t.Errorf("%s: %s is %v, want %v", name, member, f.More[member], want)
			}
		}
		if f.Kind != fault.Denied || f.Fix == "" {
			t.Errorf("%s: %v, fix %q", name, c.err, f.Fix)
		}
	}
}
