// Package token is the record of a bearer credential: its secret's form and
// digest, its clocks, its states and the transitions between them.
//
// Everything here is pure: a transition takes the present instant and returns
// a changed copy. Whether a token is active is computed from facts at the
// moment of use, and is never a stored word that something must keep current.
package token

import (
	"net/netip"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/principal"
)

// ID names a token: "tok_" and its public id. It may be logged.
type ID string

// Family ties the generations of a rotated token together: "fam_" and a random part.
type Family string

// Kind says what a secret is for.
type Kind uint8

// The kinds of secrets. Zero is none.
const (
	Personal Kind = iota + 1 // pat: a person's own
	Session                  // ses: at most 24 h
	Service                  // svc: a service account's
	JobKind                  // job: the handle of one job
	Run                      // run: what a running job holds
	Refresh                  // ref
	SCIM                     // scm
	Break                    // brk: break-glass
	Invite                   // inv: one-time enrolment
	Legacy                   // imported; its secrets have no form of ours
)

var kindNames = [...]string{"", "pat", "ses", "svc", "job", "run", "ref", "scm", "brk", "inv", "legacy"}

// String is the kind as it stands in secrets and in the API.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return ""
}

// ParseKind reads a kind's name; zero if there is none of that name.
func ParseKind(s string) Kind {
	for k := Personal; int(k) < len(kindNames); k++ {
		if kindNames[k] == s {
			return k
		}
	}
	return 0
}

func kindOf(a, b, c byte) Kind {
	for k := Personal; k <= Invite; k++ {
		if n := kindNames[k]; n[0] == a && n[1] == b && n[2] == c {
			return k
		}
	}
	return 0
}

// Standing is what somebody decided about a token. That time has passed is no
// standing: it is computed.
type Standing string

// The standings.
const (
	Standard    Standing = "standard"
	Suspended   Standing = "suspended"   // reversible
	Quarantined Standing = "quarantined" // leak suspected: own jobs may be read and cancelled
	Unproven    Standing = "unproven"    // after a restore that cannot show it is current
	Revoked     Standing = "revoked"     // final
)

// Reason is why a token was revoked, or who suspended it.
type Reason string

// The reasons. Leaked and Compromised also end the job handles of the token.
const (
	ByOwner     Reason = "owner"
	ByAdmin     Reason = "admin"
	Leaked      Reason = "leaked"
	Compromised Reason = "compromised"
	Reused      Reason = "reused" // an ended predecessor was presented for rotation
	Replaced    Reason = "replaced"
	Redeemed    Reason = "redeemed" // a one-time credential that was used
	Superseded  Reason = "superseded"
)

// Renewal says whether successful use moves ExpiresAt.
type Renewal string

// The renewals.
const (
	Sliding Renewal = "sliding"
	Fixed   Renewal = "fixed"
)

// Token is the record of one credential. Values are immutable; transitions
// return a changed copy with the next version.
type Token struct {
	ID      ID
	Version int64
	Kind    Kind
	Digest  Digest
	Name    string
	Owner   principal.ID
	// Epochs are its owner's at issue. Lower than the owner's present ones, the
	// token is dead.
	Epochs       principal.Epochs
	Scopes       []string
	Competitions []string // empty: all of the owner's
	CIDRs        []netip.Prefix
	// Observe: a use from outside of CIDRs is marked and not refused.
	Observe bool
	Parent  ID // session tokens die with it
	// Budget is the most that may be taken with it, its successors and all that
	// was made from it, together.
	Budget budget.Budget
	// Account is where that is booked, if not under its family: a successor made
	// after a sign-in begins a family, and fills no budget again.
	Account Family

	Standing  Standing
	Reason    Reason // of the revocation, or who suspended it
	RevokedAt time.Time
	// Jobs is what its revocation means for the jobs it submitted.
	Jobs Wish

	Family      Family
	Generation  int
	Predecessor ID
	Successor   ID
	// GraceUntil ends a predecessor after rotation; zero: not rotated.
	GraceUntil time.Time

	IssuedAt time.Time
	IssuedBy string        // actor: a principal or "local"
	Lifetime time.Duration // its own lifetime; what sliding renewal adds
	Renewal  Renewal
	// FixedEnd is the instant asked for at creation, or issue + Lifetime when
	// the renewal is fixed.
	FixedEnd time.Time
	// Idle is the idle timeout, and Unused the one that holds until first use.
	Idle, Unused    time.Duration
	BornAt          time.Time // of the family
	MaxLifetime     time.Duration
	RotateAfter     time.Duration
	EnforceRotation bool
	Note            string
	// RenewedAt is when its owner renewed it with another credential, which is
	// to its clocks as a use; zero: never.
	RenewedAt time.Time
}

// Networks are those that the token is limited to; none: it is not.
func (t *Token) Networks() []netip.Prefix {
	if t.Observe {
		return nil
	}
	return t.CIDRs
}

// Charged is where the use of a token is booked.
func (t *Token) Charged() Family {
	if t.Account != "" {
		return t.Account
	}
	return t.Family
}

// Use is what is remembered of a token's uses. It lives outside the token's
// record because it changes with every request.
type Use struct {
	At    time.Time
	Addr  netip.Addr
	Agent string
	Count int64
}

// Handle is the digest and public id of a secret that a job carries: its job
// handle, or what the running program holds.
type Handle struct {
	Public PublicID
	Digest Digest
}

// Handle is what a job keeps of a secret.
func (p Presented) Handle(peppers *keys.Peppers) Handle {
	return Handle{Public: p.Public, Digest: p.Digest.Under(peppers)}
}

// IsZero reports whether there is no such secret.
func (h Handle) IsZero() bool { return h.Public == PublicID{} }

// Wish is what the end of a credential means for the jobs behind it.
type Wish string

// The wishes, from mild to strict. The empty wish is Keep.
const (
	Keep         Wish = "keep"          // the jobs go on
	CancelQueued Wish = "cancel-queued" // what has not started does not start
	CancelAll    Wish = "cancel"        // running ones are stopped as well
)

// ParseWish reads a wish; the empty string is def.
func ParseWish(s string, def Wish) (Wish, error) {
	switch w := Wish(s); w {
	case "":
		return def, nil
	case Keep, CancelQueued, CancelAll:
		return w, nil
	}
	return "", fault.New(fault.Invalid, "jobs_unknown", "What happens to the jobs is keep, cancel-queued or cancel.").
		WithFix("Use one of: keep, cancel-queued, cancel.")
}

// Stricter is the stricter of two wishes.
func (w Wish) Stricter(o Wish) Wish {
	if o.rank() > w.rank() {
		return o
	}
	return w
}

func (w Wish) rank() int {
	switch w {
	case CancelQueued:
		return 1
	case CancelAll:
		return 2
	}
	return 0
}
