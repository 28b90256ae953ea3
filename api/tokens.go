package api

import "time"

// Token is a credential as the API shows it. Its secret is never in it.
type Token struct {
	ID           string   `json:"id"`
	Kind         string   `json:"kind"` // pat, ses, svc, legacy, inv
	Name         string   `json:"name"`
	UserID       string   `json:"user_id"`
	State        string   `json:"state"`
	Reason       string   `json:"reason,omitempty"` // of a revocation
	Scopes       []string `json:"scopes"`
	Competitions []string `json:"competitions"` // "project:NAME" is all that it holds; ["*"]: all of the owner's
	AllowedCIDRs []string `json:"allowed_cidrs"`
	Observe      bool     `json:"observe,omitempty"` // a use from elsewhere is marked, not refused
	// Budget is the token's own, with its successors and all that was made from
	// it; AtMost is what it can take under all budgets that bear on it.
	Budget *Spending `json:"budget,omitempty"`
	AtMost string    `json:"at_most,omitempty"`
	Note   string    `json:"note,omitempty"`
	// Warnings are about the change that this answers, and that rotation is due.
	Warnings []Warning `json:"warnings,omitempty"`

	CreatedAt     time.Time  `json:"created_at"`
	CreatedBy     string     `json:"created_by"`
	Renewal       string     `json:"renewal"` // sliding or fixed
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`
	IdleExpiresAt *time.Time `json:"idle_expires_at,omitempty"`
	MaxExpiresAt  *time.Time `json:"max_expires_at,omitempty"`
	RotateBy      *time.Time `json:"rotate_by,omitempty"`
	RevokedAt     *time.Time `json:"revoked_at,omitempty"`
	// The nearest of the clocks, which one it is, and one sentence for people.
	EffectiveExpiresAt *time.Time `json:"effective_expires_at,omitempty"`
	EffectiveReason    string     `json:"effective_reason,omitempty"`
	EffectivePolicy    string     `json:"effective_policy,omitempty"` // platform, group:NAME or token: who set that clock
	Ends               string     `json:"ends"`

	LastUsed *LastUse `json:"last_used,omitempty"`
	Guesses  *Guesses `json:"guesses,omitempty"`
	Family   Family   `json:"family"`
	ETag     string   `json:"etag"`
}

// LastUse is the latest use of a token.
type LastUse struct {
	At    time.Time `json:"at"`
	IP    string    `json:"ip,omitempty"`
	Agent string    `json:"agent,omitempty"`
	Count int64     `json:"count"`
}

// Guesses are wrong secrets that somebody tried with the id of a token. They
// end nothing and hold nobody up but whoever guesses.
type Guesses struct {
	Count   int64     `json:"count"`
	Sources int       `json:"sources"` // about so many
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
}

// Family places a token among its generations.
type Family struct {
	ID          string     `json:"id"`
	Generation  int        `json:"generation"`
	Predecessor string     `json:"predecessor,omitempty"`
	Successor   string     `json:"successor,omitempty"`
	GraceUntil  *time.Time `json:"grace_until,omitempty"`
}

// Issued is a new credential. This answer is the only place where its secret appears.
type Issued struct {
	Secret string `json:"secret"`
	// RefreshToken gives the next session of a sign-in: POST /oauth2/token.
	RefreshToken string `json:"refresh_token,omitempty"`
	Token        Token  `json:"token"`
	User         *User  `json:"user,omitempty"` // after redeeming an invite
	Predecessor  *Token `json:"predecessor,omitempty"`
	// Replayed is set when the same Idempotency-Key was answered before.
	Replayed bool `json:"replayed,omitempty"`
}

// Renewed says what a renewal did.
type Renewed struct {
	Token   Token `json:"token"`
	Renewed bool  `json:"renewed"` // the end is later than before
	// LimitedBy is why it is no later: max_lifetime, fixed, grace, rotation or policy.
	LimitedBy    string     `json:"limited_by,omitempty"`
	Policy       string     `json:"policy,omitempty"` // platform, group:NAME or token: who set the limit
	EndedBefore  *time.Time `json:"ended_before,omitempty"`
	EffectiveEnd *time.Time `json:"effective_expires_at,omitempty"`
}

// CreateToken asks for a personal token.
type CreateToken struct {
	Name         string     `json:"name"`
	Scopes       []string   `json:"scopes,omitempty"`
	Competitions []string   `json:"competitions,omitempty"`
	ExpiresIn    string     `json:"expires_in,omitempty"` // "90d", "12h": renewed by use
	ExpiresAt    *time.Time `json:"expires_at,omitempty"` // an instant: not renewed
	AllowedCIDRs []string   `json:"allowed_cidrs,omitempty"`
	Observe      bool       `json:"observe,omitempty"`
	Budget       *Budget    `json:"budget,omitempty"`
	Note         string     `json:"note,omitempty"`
	Replace      string     `json:"replace,omitempty"` // id or name of the one it takes the place of
}

// NarrowToken takes rights away from a token; what is left out stays.
type NarrowToken struct {
	Scopes       []string `json:"scopes,omitempty"`
	Competitions []string `json:"competitions,omitempty"`
	AllowedCIDRs []string `json:"allowed_cidrs,omitempty"`
	Observe      *bool    `json:"observe,omitempty"` // mark a use from elsewhere; false: refuse it from now on
	Budget       *Budget  `json:"budget,omitempty"`  // of which what is left out stays
	// LockToLastAddress limits it to the address (an IPv6 /64) of its last use.
	LockToLastAddress bool    `json:"lock_to_last_address,omitempty"`
	Note              *string `json:"note,omitempty"`
	Force             bool    `json:"force,omitempty"` // networks that you are not in
}

// EnsureToken says what a token is to be like if it has to be made; one that is
// there is not changed.
type EnsureToken struct {
	Scopes       []string   `json:"scopes,omitempty"`
	Competitions []string   `json:"competitions,omitempty"`
	ExpiresIn    string     `json:"expires_in,omitempty"`
	ExpiresAt    *time.Time `json:"expires_at,omitempty"`
	AllowedCIDRs []string   `json:"allowed_cidrs,omitempty"`
	Observe      bool       `json:"observe,omitempty"`
	Budget       *Budget    `json:"budget,omitempty"`
	Note         string     `json:"note,omitempty"`
}

// Ensured is one's token of a name. Its secret is here only if it was made now.
type Ensured struct {
	Created bool   `json:"created"`
	Secret  string `json:"secret,omitempty"`
	Token   Token  `json:"token"`
}

// RotateToken asks for a successor.
type RotateToken struct {
	Grace         string `json:"grace,omitempty"` // "24h"; 0 to 7 days
	Compromised   bool   `json:"compromised,omitempty"`
	ReplaceUnused bool   `json:"replace_unused,omitempty"`
}

// RevokeToken says why a token ends and what becomes of its jobs.
type RevokeToken struct {
	Reason string `json:"reason,omitempty"` // free text, for the audit trail
	Jobs   string `json:"jobs,omitempty"`   // keep (default), cancel-queued, cancel
}

// Revoked confirms that a token has ended.
type Revoked struct {
	Token    Token `json:"token"`
	Already  bool  `json:"already,omitempty"`
	Revision int64 `json:"revision,omitempty"`
}

// RevokeAll ends all tokens of a user.
type RevokeAll struct {
	Keep string `json:"keep,omitempty"` // "self" keeps the token that asks
}

// Leaks is a report of leaked tokens.
type Leaks struct {
	Tokens []string `json:"tokens"`
}

// LeaksAccepted answers every report alike.
type LeaksAccepted struct {
	Accepted int    `json:"accepted"` // lines read, whatever they were
	Detail   string `json:"detail"`
}
