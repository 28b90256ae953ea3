package httpapi

import (
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"gradegate/internal/policy"
)

// route is one row of the table.
type route struct {
	method, path string
	id           string // operation id
	class        Class
	is           trait
	// needs is asked of policy before anything else where the answer does not
	// depend on the thing itself; nil leaves it to the use case alone.
	needs   *policy.Action
	summary string
	mount   func(*API, huma.API, *route)
}

// trait is what is special about a route.
type trait uint32

const (
	open      trait = 1 << iota // needs no credential
	unwritten                   // says nothing about anybody: no line in the trail
	changes                     // is written down durably before it is carried out
	tightens                    // only takes rights away: goes on without the trail
	creates                     // accepts an Idempotency-Key
	accepted                    // answers 202
	created                     // answers 201
	admins                      // for administrators: may have a listener of its own
	long                        // reads or writes more than a minute's worth
	bulky                       // JSON body of up to 1 MiB
	late                        // still open to a token that has just expired (R1.4)
	inForm                      // its credential is a member of its form (OAuth)
	probe                       // tells how the server is: asked often, and never limited
	direct                      // does not go through this pipeline
	ended                       // still open to a token that is not active, about itself (B16)
	jsonBody                    // its body is JSON, if it has one; set by the adapter
	bodiless                    // there is nothing that its body could say; set by the adapter
)

func (r *route) has(t trait) bool { return r.is&t == t }

func (r *route) pattern() string { return strings.TrimSpace(r.method + " " + r.path) }

func (r *route) status() int {
	switch {
	case r.has(created):
		return http.StatusCreated
	case r.has(accepted):
		return http.StatusAccepted
	}
	return http.StatusOK
}

// bodyLimit is the most that a JSON body may have.
func (r *route) bodyLimit() int64 {
	if r.has(bulky) {
		return 1 << 20
	}
	return 64 << 10
}

const (
	get   = http.MethodGet
	post  = http.MethodPost
	put   = http.MethodPut
	patch = http.MethodPatch
	del   = http.MethodDelete
)

// table is every route that exists.
func table() []route {
	return []route{
		{get, "/v1/whoami", "whoami", Reading, 0, nil, "Tell who the credential belongs to", handle((*API).whoami)},

		{get, "/v1/tokens", "listTokens", Reading, 0, nil, "List one's own tokens", handle((*API).listTokens)},
		{post, "/v1/tokens", "createToken", Changing, changes | creates | created, &policy.TokenCreate, "Create a personal token", handle((*API).createToken)},
		{post, "/v1/tokens/import", "importTokens", Changing, changes | admins | bulky, &policy.TokenImport, "Take over tokens of an earlier system (on the server's machine)", handle((*API).importTokens)},
		{post, "/v1/tokens/revoke-all", "revokeAllTokens", Changing, changes | tightens, &policy.TokenRevoke, "End all of one's own tokens", handle((*API).revokeAllTokens)},
		{get, "/v1/tokens/{id}", "getToken", Reading, 0, nil, "Show a token by id, name or \"self\"", handle((*API).getToken)},
		{get, "/v1/tokens/{id}/advice", "adviseToken", Reading, long, nil, "Tell which rights of a token were not used", handle((*API).adviseToken)},
		{get, "/v1/advice", "adviseTokens", Reading, long, nil, "Tell which rights of one's tokens, or of everybody's, were not used", handle((*API).adviseAll)},
		{put, "/v1/tokens/by-name/{id}", "ensureToken", Changing, changes | creates, &policy.TokenCreate, "Give one's token of a name, and make it if there is none", handle((*API).ensureToken)},
		{patch, "/v1/tokens/{id}", "narrowToken", Changing, changes, nil, "Take rights away from a token", handle((*API).narrowToken)},
		{del, "/v1/tokens/{id}", "revokeToken", Changing, changes | tightens, nil, "Revoke a token for good", handle((*API).revokeToken)},
		{post, "/v1/tokens/{id}/rotate", "rotateToken", Changing, changes | creates | created, &policy.TokenRotate, "Give a token a successor", handle((*API).rotateToken)},
		{post, "/v1/tokens/{id}/renew", "renewToken", Changing, changes, nil, "Put the end of a token off", handle((*API).renewToken)},
		{post, "/v1/tokens/{id}/suspend", "suspendToken", Changing, changes | tightens, nil, "Stop a token until it is resumed", handle((*API).suspendToken)},
		{post, "/v1/tokens/{id}/resume", "resumeToken", Changing, changes, nil, "Let a suspended token go on", handle((*API).resumeToken)},
		{post, "/v1/leaks", "reportLeaks", Reporting, open | tightens | accepted | bulky, nil, "Report leaked tokens", handle((*API).reportLeaks)},
		{post, "/v1/verify", "verifyToken", Verifying, 0, &policy.TokenVerify, "Decide about somebody's token", handle((*API).verify)},

		{get, "/v1/services", "listServices", Reading, 0, &policy.ServiceRead, "List the services that one answers for, or all of them", handle((*API).listServices)},
		{post, "/v1/services", "createService", Changing, changes | creates | created | admins, &policy.ServiceCreate, "Make a service with two owners or a group", handle((*API).createService)},
		{get, "/v1/services/{id}", "getService", Reading, 0, nil, "Show a service by id or name", handle((*API).getService)},
		{patch, "/v1/services/{id}", "updateService", Changing, changes, nil, "Change who answers for a service", handle((*API).updateService)},
		{get, "/v1/services/{id}/tokens", "listServiceTokens", Reading, 0, nil, "List the tokens of a service", handle((*API).listServiceTokens)},
		{post, "/v1/services/{id}/tokens", "createServiceToken", Changing, changes | creates | created, nil, "Make a token of a service that one answers for", handle((*API).createServiceToken)},

		{get, "/v1/consents", "listConsents", Reading, 0, &policy.ConsentRead, "List the consents that one gave and was given", handle((*API).listConsents)},
		{post, "/v1/consents", "giveConsent", Changing, changes | creates | created, &policy.ConsentGive, "Let somebody hand in jobs that are one's own", handle((*API).giveConsent)},
		{del, "/v1/consents/{id}", "withdrawConsent", Changing, changes | tightens, &policy.ConsentEnd, "End a consent at once", handle((*API).withdrawConsent)},

		{get, "/v1/users", "listUsers", Reading, admins, &policy.UserRead, "List users", handle((*API).listUsers)},
		{post, "/v1/users", "createUser", Changing, changes | creates | created | admins, &policy.UserManage, "Create a user without a credential", handle((*API).createUser)},
		{get, "/v1/users/{id}", "getUser", Reading, admins, &policy.UserRead, "Show a user by id or name", handle((*API).getUser)},
		{patch, "/v1/users/{id}", "updateUser", Changing, changes | admins, &policy.UserManage, "Change a user's role, address or groups", handle((*API).updateUser)},
		{get, "/v1/users/{id}/tokens", "listUserTokens", Reading, admins, &policy.UserRead, "List a user's tokens", handle((*API).listUserTokens)},
		{post, "/v1/users/{id}/invite", "inviteUser", Changing, changes | creates | created | admins, &policy.UserManage, "Make a one-time code for a person", handle((*API).inviteUser)},
		{post, "/v1/users/{id}/suspend", "suspendUser", Changing, changes | tightens | admins, &policy.UserManage, "Stop everything of a user until resumed", handle((*API).suspendUser)},
		{post, "/v1/users/{id}/resume", "resumeUser", Changing, changes | admins, &policy.UserManage, "Let a suspended user go on", handle((*API).resumeUser)},
		{post, "/v1/users/{id}/offboard", "offboardUser", Changing, changes | tightens | admins, &policy.UserManage, "End everything of a leaver", handle((*API).offboardUser)},
		{post, "/v1/users/{id}/grants", "grantQuota", Changing, changes | creates | created | admins, &policy.UserManage, "Raise what bounds a user for a while", handle((*API).grantQuota)},
		{del, "/v1/users/{id}/grants/{grant}", "endGrant", Changing, changes | admins, &policy.UserManage, "End a grant before its time", handle((*API).endGrant)},
		{post, "/v1/users/{id}/revoke-all", "revokeAllOfUser", Changing, changes | tightens | admins, &policy.UserManage, "End all tokens of a user", handle((*API).revokeAllOfUser)},

		{get, "/v1/policies", "listPolicies", Reading, admins, &policy.PolicyRead, "List the policies", handle((*API).listPolicies)},
		{get, "/v1/policies/{id}", "getPolicy", Reading, admins, &policy.PolicyRead, "Show the policy of the platform or of a group", handle((*API).getPolicy)},
		{post, "/v1/policies/{id}/dry-run", "dryRunPolicy", Changing, admins | long, &policy.PolicyRead, "Tell what rules would have refused of what was allowed", handle((*API).dryRunPolicy)},
		{put, "/v1/policies/{id}", "setPolicy", Changing, changes | admins, &policy.PolicyManage, "Replace a policy, or preview whom that affects", handle((*API).setPolicy)},

		{get, "/v1/blocks", "listBlocks", Reading, admins, &policy.BlockRead, "List the blocks by address, and who fails most", handle((*API).listBlocks)},
		{post, "/v1/blocks", "addBlock", Changing, changes | created | admins, &policy.BlockManage, "Refuse the failed attempts of an address or network", handle((*API).addBlock)},
		{del, "/v1/blocks/{prefix...}", "removeBlock", Changing, changes | admins, &policy.BlockManage, "Unblock an address or network", handle((*API).removeBlock)},

		{post, "/v1/invites/redeem", "redeemInvite", Enrolling, open | creates | created, nil, "Turn a one-time code into a session", handle((*API).redeem)},

		{get, "/v1/competitions", "listCompetitions", Reading, 0, &policy.CompetitionGet, "List competitions", handle((*API).listCompetitions)},
		{get, "/v1/competitions/{id}", "getCompetition", Reading, 0, &policy.CompetitionGet, "Show a competition", handle((*API).getCompetition)},
		{put, "/v1/competitions/{id}", "applyCompetition", Changing, changes | long | admins, &policy.CompetitionSet, "Make or change a competition", stream((*API).applyCompetition, applyForm)},
		{get, "/v1/competitions/{id}/leaderboard", "getLeaderboard", Reading, 0, &policy.CompetitionGet, "Show the best of each user", handle((*API).leaderboard)},
		{get, "/v1/competitions/{id}/files/{name...}", "getCompetitionFile", Reading, long, &policy.CompetitionGet, "Fetch a public file", stream((*API).competitionFile, binaryAnswer)},
		{post, "/v1/competitions/{id}/jobs", "submitJob", Submitting, changes | creates | accepted | long, &policy.JobSubmit, "Hand in a submission", stream((*API).submit, submitForm)},
		{get, "/v1/quota", "getQuota", Reading, 0, &policy.QuotaRead, "Show what is left of one's quotas and budgets", handle((*API).quota)},
		{get, "/v1/quota/entries", "listQuotaEntries", Reading, 0, &policy.QuotaRead, "List what was charged and given back, newest first", handle((*API).quotaEntries)},

		{get, "/v1/jobs", "listJobs", Reading, late, nil, "List jobs, newest first", handle((*API).listJobs)},
		{get, "/v1/jobs/{id}", "getJob", Reading, late, nil, "Show a job", handle((*API).getJob)},
		{post, "/v1/jobs/{id}/cancel", "cancelJob", Canceling, changes | tightens | late, nil, "Ask for the end of a job", handle((*API).cancelJob)},
		{get, "/v1/jobs/{id}/result", "getResult", Reading, late, nil, "Show the grade of a job", handle((*API).result)},
		{get, "/v1/jobs/{id}/logs", "getLogs", Reading, long | late, nil, "Read or follow what a job prints", stream((*API).logs, logAnswer)},

		{post, "/oauth2/token", "oauthToken", Changing, inForm | changes, nil, "Exchange a token for a narrower child (RFC 8693)", oauth((*API).oauthToken, tokenForm)},
		{post, "/oauth2/revoke", "oauthRevoke", Changing, inForm | changes | tightens, nil, "Revoke the token that is presented (RFC 7009)", oauth((*API).oauthRevoke, revokeForm)},
		{post, "/oauth2/introspect", "oauthIntrospect", Verifying, 0, nil, "Tell whether a token is active (RFC 7662)", oauth((*API).oauthIntrospect, introspectForm)},
		{get, "/.well-known/oauth-authorization-server", "oauthServer", Reading, open | unwritten, nil, "Describe the endpoints (RFC 8414)", stream((*API).oauthServer, documentAnswer)},
		{get, "/.well-known/oauth-authorization-server/{path...}", "oauthServerAt", Reading, open | unwritten, nil, "Describe the endpoints of a service whose address has a path (RFC 8414)", stream((*API).oauthServer, documentAnswer)},
		{get, "/.well-known/oauth-protected-resource", "oauthResource", Reading, open | unwritten, nil, "Describe the API as a resource (RFC 9728)", stream((*API).oauthResource, documentAnswer)},
		{get, "/.well-known/oauth-protected-resource/{path...}", "oauthResourceAt", Reading, open | unwritten, nil, "Describe the API of a service whose address has a path (RFC 9728)", stream((*API).oauthResource, documentAnswer)},

		{get, "/v1/explain", "explainRefusals", Reading, ended, nil, "Tell why the last requests with this token were refused", handle((*API).explainRefusals)},
		{get, "/v1/explain/{id}", "explainRequest", Reading, ended, nil, "Tell why a request was decided as it was", handle((*API).explain)},

		{get, "/v1/clock", "getClock", Reading, admins, &policy.PolicyRead, "Tell what time it is, and whether the machine's clock is believed", handle((*API).clockState)},
		{post, "/v1/clock/confirm", "confirmClock", Changing, changes | admins, &policy.PolicyManage, "Believe a clock that has leapt ahead", handle((*API).confirmClock)},

		{get, "/v1/sweep", "getSweep", Reading, admins, &policy.ArchiveRead, "Tell what the last sweep did", handle((*API).lastSweep)},
		{post, "/v1/sweep", "sweep", Changing, changes | long | admins, &policy.SweepRun, "Archive what ended long ago, or say what that is", handle((*API).sweep)},
		{get, "/v1/archive/tokens", "listArchive", Reading, admins, &policy.ArchiveRead, "Search the tokens that ended long ago", handle((*API).listArchive)},
		{get, "/v1/archive/tokens/{id}", "getArchived", Reading, admins, &policy.ArchiveRead, "Show a token that ended long ago", handle((*API).getArchived)},
		{get, "/v1/holds", "listHolds", Reading, admins, &policy.ArchiveRead, "List the legal holds", handle((*API).listHolds)},
		{post, "/v1/holds", "addHold", Changing, changes | created | admins, &policy.HoldManage, "Keep what belongs to a user, token or competition", handle((*API).addHold)},
		{del, "/v1/holds/{id}", "removeHold", Changing, changes | admins, &policy.HoldManage, "End a legal hold", handle((*API).removeHold)},
		{get, "/v1/growth", "getGrowth", Reading, admins, &policy.ArchiveRead, "Tell how much there is of everything, and where that goes", handle((*API).growth)},

		{get, "/v1/audit/events", "searchAudit", Reading, admins, &policy.AuditRead, "Search the audit trail", handle((*API).searchAudit)},
		{get, "/v1/audit/checkpoint", "getCheckpoint", Reading, admins, &policy.AuditRead, "Fetch the newest signed checkpoint", stream((*API).checkpoint, checkpointAnswer)},
		{get, "/v1/audit/trims", "listTrims", Reading, admins, &policy.AuditRead, "List what was dropped from the audit trail, with the signed records", handle((*API).listTrims)},
		{get, "/v1/audit/trim", "previewTrim", Reading, admins, &policy.AuditRead, "Tell what would be dropped from the audit trail now", handle((*API).previewTrim)},
		{post, "/v1/audit/trim", "trimAudit", Changing, changes | admins, &policy.PolicyManage, "Drop from the audit trail what is older than it is kept", handle((*API).trimAudit)},
		{get, "/.well-known/gradegate-trail-key", "getTrailKey", Reading, open | unwritten, nil, "Fetch the key that verifies the trail", stream((*API).trailKey, textAnswer)},

		{get, "/livez", "livez", Reading, open | unwritten | probe, nil, "Tell that the process runs", stream((*API).livez, textAnswer)},
		{get, "/readyz", "readyz", Reading, open | unwritten | probe, nil, "Tell whether tokens can be verified", stream((*API).readyz, textAnswer)},
		{get, "/healthz", "healthz", Reading, open | unwritten | probe, nil, "Tell the state of every part", stream((*API).healthz, healthAnswer)},
		{get, "/version", "version", Reading, open | unwritten | probe, nil, "Tell the version", handle((*API).version)},
		{get, "/problems/{code}", "problem", Reading, open | unwritten, nil, "Tell what a problem's code means", stream((*API).problemPage, textAnswer)},
		{get, "/openapi.json", "openapi", Reading, open | unwritten, nil, "This document", stream((*API).openapi, documentAnswer)},
		{get, "/metrics", "metrics", Reading, open | unwritten | probe | admins, nil, "Metrics for Prometheus; admin listener only", stream((*API).metrics, textAnswer)},

		{"", "/authz/nginx", "authzNginx", Verifying, direct, nil, "Decide for nginx auth_request: 200, 401 or 403", authzDoc},
		{"", "/authz/forward", "authzForward", Verifying, direct, nil, "Decide for Traefik ForwardAuth and Caddy forward_auth", authzDoc},
	}
}

// mount builds the mux and the specification from the table.
func (a *API) mount() error {
	h := a.newHuma()
	for _, r := range table() {
		a.routes[plainPattern(r.pattern())] = &r
		r.mount(a, h, &r)
	}
	a.mux.HandleFunc("/", a.nowhere)
	return a.finishSpec(h)
}
