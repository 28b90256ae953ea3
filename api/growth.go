package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// ArchivedToken is a token that ended long ago. Of one that has been reduced to
// a tombstone only id, digest, end and segment are left in the database.
type ArchivedToken struct {
	ID           string     `json:"id"`
	Kind         string     `json:"kind,omitempty"`
	Name         string     `json:"name,omitempty"`
	UserID       string     `json:"user_id,omitempty"`
	User         string     `json:"user,omitempty"` // their name; not in segments
	Digest       string     `json:"digest"`         // of the secret, which is kept nowhere
	Scopes       []string   `json:"scopes,omitempty"`
	Competitions []string   `json:"competitions,omitempty"`
	Family       string     `json:"family,omitempty"`
	Parent       string     `json:"parent,omitempty"`
	Predecessor  string     `json:"predecessor,omitempty"`
	Successor    string     `json:"successor,omitempty"`
	CreatedAt    *time.Time `json:"created_at,omitempty"`
	CreatedBy    string     `json:"created_by,omitempty"`
	EndedAt      time.Time  `json:"ended_at"`
	State        string     `json:"state"`            // how it ended: expired, idle_expired, rotated or revoked
	Reason       string     `json:"reason,omitempty"` // of a revocation
	ArchivedAt   time.Time  `json:"archived_at"`
	LastUsed     *LastUse   `json:"last_used,omitempty"`
	Segment      string     `json:"segment,omitempty"` // the file that has the rest
}

// Sweep asks for a sweep.
type Sweep struct {
	DryRun bool `json:"dry_run,omitempty"` // change nothing, and say what would be done
}

// Swept says what a sweep did, or would do.
type Swept struct {
	DryRun    bool       `json:"dry_run"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Looked    int        `json:"looked"`
	Archived  int        `json:"archived"`
	// Classes are the archived by kind and how they ended; Kept why others that
	// have ended stay where they are.
	Classes  []SweepClass `json:"classes"`
	Kept     []SweepClass `json:"kept"`
	Reduced  int          `json:"reduced"` // rows of the archive that became tombstones
	Segments []string     `json:"segments"`
	More     bool         `json:"more"`              // there is more to do: ask again
	Skipped  string       `json:"skipped,omitempty"` // why nothing was done
}

// SweepClass counts tokens, with a few of their ids.
type SweepClass struct {
	Name     string   `json:"name"`
	Count    int      `json:"count"`
	Examples []string `json:"examples"`
}

// AddHold asks for a legal hold.
type AddHold struct {
	// Subject is a token's id, a user or a competition; user:NAME or
	// competition:NAME where there are both.
	Subject string     `json:"subject"`
	Reason  string     `json:"reason"`
	Until   *time.Time `json:"until,omitempty"` // left out: until it is removed
}

// Hold keeps what belongs to something from being archived, reduced or deleted.
type Hold struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind"` // user, token or competition
	SubjectID string     `json:"subject_id"`
	Name      string     `json:"name"`
	Reason    string     `json:"reason"`
	CreatedBy string     `json:"created_by"`
	CreatedAt time.Time  `json:"created_at"`
	Until     *time.Time `json:"until,omitempty"`
	Active    bool       `json:"active"`
	RemovedAt *time.Time `json:"removed_at,omitempty"`
	RemovedBy string     `json:"removed_by,omitempty"`
}

// Holds are legal holds.
type Holds struct {
	Items []Hold `json:"items"`
}

// Growth is how much there is of everything, and where that goes.
type Growth struct {
	At      time.Time `json:"at"`
	Level   int       `json:"level"` // of the highest alert: 0, 70, 85 or 95 (percent)
	Alerts  []string  `json:"alerts"`
	Rows    []Measure `json:"rows"`
	Bytes   []Measure `json:"bytes"`
	Disks   []Measure `json:"disks"` // bytes in use
	Minters []Minter  `json:"minters"`
}

// Measure is one thing that grows.
type Measure struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
	Limit int64  `json:"limit,omitempty"`
	Level int    `json:"level"`
	// PerDay is left out as long as the samples cover less than a day, and
	// FullInDays if the limit is not in sight.
	PerDay     *float64 `json:"per_day,omitempty"`
	FullInDays *int     `json:"full_in_days,omitempty"`
}

// Minter is a user who made unusually many tokens.
type Minter struct {
	UserID string `json:"user_id"`
	User   string `json:"user"`
	Tokens int    `json:"tokens"` // in seven days
}

// ArchivedTokens lists tokens of the archive that match.
func (c *Client) ArchivedTokens(ctx context.Context, q url.Values) (Page[ArchivedToken], error) {
	return get[Page[ArchivedToken]](ctx, c, "/v1/archive/tokens", q)
}

// ArchivedToken gives one token of the archive.
func (c *Client) ArchivedToken(ctx context.Context, id string) (ArchivedToken, error) {
	return get[ArchivedToken](ctx, c, "/v1/archive/tokens/"+seg(id), nil)
}

// Sweep archives what ended long ago.
func (c *Client) Sweep(ctx context.Context, r Sweep) (Swept, error) {
	return post[Swept](ctx, c, "/v1/sweep", r)
}

// Holds lists the legal holds that are in force, or all.
func (c *Client) Holds(ctx context.Context, all bool) (Holds, error) {
	q := url.Values{}
	if all {
		q.Set("all", "true")
	}
	return get[Holds](ctx, c, "/v1/holds", q)
}

// AddHold puts a legal hold on something.
func (c *Client) AddHold(ctx context.Context, r AddHold) (Hold, error) {
	return post[Hold](ctx, c, "/v1/holds", r)
}

// RemoveHold ends a legal hold.
func (c *Client) RemoveHold(ctx context.Context, id string) (h Hold, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/holds/" + seg(id)}, &h)
	return h, err
}

// Growth tells how much there is of everything.
func (c *Client) Growth(ctx context.Context) (Growth, error) {
	return get[Growth](ctx, c, "/v1/growth", nil)
}
