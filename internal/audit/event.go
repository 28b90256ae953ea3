// Package audit is the record of what was decided and what was changed: its
// one canonical encoding, and the list of actions that exist.
//
// There are two kinds of lines. A decision says what a request was allowed or
// refused; it is written before the answer. An effect says what a transaction
// changed; it is stored with the change itself and copied to the trail.
// Neither ever holds a secret: tokens appear by their public id.
package audit

import (
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Action is a dotted verb, such as "token.revoke". The list is closed.
type Action string

// The actions that change something.
const (
	TokenIssue       Action = "token.issue"
	TokenImport      Action = "token.import"
	TokenRotate      Action = "token.rotate"
	TokenRevoke      Action = "token.revoke"
	TokenSuspend     Action = "token.suspend"
	TokenResume      Action = "token.resume"
	TokenLeak        Action = "token.leak"
	TokenReuse       Action = "token.reuse"
	TokenUnprove     Action = "token.unprove"
	TokenRenew       Action = "token.renew"
	TokenNarrow      Action = "token.narrow"
	TokenRehash      Action = "token.rehash" // kept under the newest pepper from now on
	TokenGuess       Action = "token.guess"  // wrong secrets with the id of a token, counted
	TokenArchive     Action = "token.archive"
	ArchiveReduce    Action = "archive.reduce"
	HoldAdd          Action = "hold.add"
	HoldRemove       Action = "hold.remove"
	PolicySet        Action = "policy.set"
	BlockAdd         Action = "block.add"
	BlockRemove      Action = "block.remove"
	ServiceCreate    Action = "service.create"
	ServiceOwners    Action = "service.owners"
	ServiceOrphan    Action = "service.orphan" // fewer than two active owners are left
	ConsentGive      Action = "consent.give"
	ConsentWithdraw  Action = "consent.withdraw"
	QuotaGrant       Action = "quota.grant"
	QuotaEnd         Action = "quota.end" // of a grant, before its time
	InviteIssue      Action = "invite.issue"
	InviteRedeem     Action = "invite.redeem"
	UserCreate       Action = "user.create"
	UserUpdate       Action = "user.update"
	UserEnrol        Action = "user.enrol"
	UserReenrol      Action = "user.reenrol"
	UserSuspend      Action = "user.suspend"
	UserResume       Action = "user.resume"
	UserOffboard     Action = "user.offboard"
	UserRevokeAll    Action = "user.revoke_all"
	CompetitionApply Action = "competition.apply"
	JobSubmit        Action = "job.submit"
	JobCancel        Action = "job.cancel"
	JobState         Action = "job.state"
	ServerStart      Action = "server.start"
	ServerStop       Action = "server.stop"
	StoreRecover     Action = "store.recover"
	TrailGap         Action = "trail.gap"  // a sink was away; the other one has the lines
	TrailTrim        Action = "trail.trim" // lines whose time was over were dropped from a sink
)

// Actions are all that a line can say, those of the other list included.
var Actions = []Action{
	TokenIssue, TokenImport, TokenRotate, TokenRevoke, TokenSuspend, TokenResume, TokenLeak, TokenReuse, TokenUnprove, TokenRenew, TokenNarrow, TokenRehash, TokenGuess, PolicySet, QuotaGrant, QuotaEnd,
	ServiceCreate, ServiceOwners, ServiceOrphan, ConsentGive, ConsentWithdraw,
	BlockAdd, BlockRemove, InviteIssue, InviteRedeem,
	TokenArchive, ArchiveReduce, HoldAdd, HoldRemove,
	UserCreate, UserUpdate, UserEnrol, UserReenrol, UserSuspend, UserResume, UserOffboard, UserRevokeAll,
	CompetitionApply, JobSubmit, JobCancel, JobState,
	ServerStart, ServerStop, StoreRecover, TrailGap, TrailTrim,
	Request, Authenticate, Aggregate,
}

// Tightens reports whether the action only ever takes rights away. Such
// operations survive what voids all others, and are never held up by a broken
// spare disk. A mixed operation, such as a rotation, does not tighten.
func (a Action) Tightens() bool {
	switch a {
	case TokenRevoke, TokenSuspend, TokenLeak, TokenReuse, TokenUnprove,
		UserSuspend, UserOffboard, UserRevokeAll, ServiceOrphan, ConsentWithdraw:
		return true
	}
	return false
}

// The actions that only decide.
const (
	Request      Action = "request"           // one HTTP request
	Authenticate Action = "authenticate"      // a refused credential
	Aggregate    Action = "authenticate.more" // further refusals of one source or of one token, counted
)

// Outcome is how it ended.
type Outcome string

// The outcomes.
const (
	Allow Outcome = "allow"
	Deny  Outcome = "deny"
	Done  Outcome = "done"
)

// Event is one line. Empty members are left out. Values are immutable after
// they were handed to a store or the trail.
type Event struct {
	ID      string    `json:"id"` // unique; effect lines are deduplicated by it
	At      time.Time `json:"at"`
	Action  Action    `json:"action"`
	Outcome Outcome   `json:"outcome"`
	// Actor is the principal that acted: a user id, "local:<uid>" for the
	// admin socket, "system" for the server itself, "" when unknown.
	Actor   string `json:"actor,omitempty"`
	Token   string `json:"token,omitempty"`  // id of the token that was used
	Kind    string `json:"kind,omitempty"`   // its kind
	Target  string `json:"target,omitempty"` // id of what was changed or asked for
	Owner   string `json:"owner,omitempty"`  // the principal whose thing it is
	Reason  string `json:"reason,omitempty"`
	Mode    string `json:"mode,omitempty"` // "expired-read", "degraded"; normal is left out
	Addr    string `json:"addr,omitempty"`
	Agent   string `json:"agent,omitempty"`
	Route   string `json:"route,omitempty"`
	Request string `json:"request,omitempty"`
	Status  int    `json:"status,omitempty"`
	// Scope is what a proxy asked for, and Competition what the request is about.
	Scope       string `json:"scope,omitempty"`
	Competition string `json:"competition,omitempty"`
	Count       int64  `json:"count,omitempty"`
	Seq         int64  `json:"seq,omitempty"` // of the store's batch, in effect lines
	// Detail holds further facts by name, in sorted order.
	Detail map[string]string `json:"detail,omitempty"`
}

// agentMax bounds what a client can make us write per line.
const agentMax = 200

// Encode is the one canonical form: a JSON object on one line, HTML left
// alone, control and direction characters of foreign text replaced.
func (e Event) Encode() []byte { return e.Append(nil) }

// Decode reads a line that Encode wrote.
func Decode(line []byte) (Event, error) {
	var e Event
	err := json.Unmarshal(line, &e)
	return e, err
}

// Clean makes foreign text safe to print on one terminal line: control,
// direction-changing and invalid characters become "?", and it is cut to at
// most limit bytes at a character border.
func Clean(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
		for range utf8.UTFMax - 1 { // a character that the cut went through
			if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return '?'
		}
		return r
	}, s)
}
