package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Budget is the most that may be taken of the cluster; what is left out is not
// bounded.
type Budget struct {
	GPUHours float64 `json:"gpu_hours,omitempty"`
	// Per is the stretch of time that the GPU hours are for: 1d (default) to 31d.
	// It rolls: a job that has ended counts for so long.
	Per        string `json:"per,omitempty"`
	Concurrent int    `json:"concurrent,omitempty"` // jobs that are not over
}

// Spending is a budget and what is taken of it. All budgets hold at once.
type Spending struct {
	Level      string     `json:"level"` // platform, group:NAME, user or token: who says so
	TokenID    string     `json:"token_id,omitempty"`
	Token      string     `json:"token,omitempty"` // its name
	Per        string     `json:"per,omitempty"`
	GPUHours   *Amount    `json:"gpu_hours,omitempty"`
	Concurrent *Used      `json:"concurrent,omitempty"`
	Granted    *Budget    `json:"granted,omitempty"` // part of the limits
	Why        string     `json:"why"`
	FreeAt     *time.Time `json:"free_at,omitempty"` // when all is free again, at the latest
}

// Amount is GPU hours against their limit.
type Amount struct {
	Limit    float64 `json:"limit"`
	Used     float64 `json:"used"`
	Reserved float64 `json:"reserved"` // by jobs that are not over
	Left     float64 `json:"left"`
}

// Used is a count against its limit (zero: no limit).
type Used struct {
	Used  int `json:"used"`
	Limit int `json:"limit"`
}

// Quota is what somebody has used of everything that bounds them.
type Quota struct {
	UserID       string             `json:"user_id"`
	AtMost       string             `json:"at_most,omitempty"` // what all budgets together allow, in words
	Budgets      []Spending         `json:"budgets"`
	Grants       []Grant            `json:"grants"`
	Competitions []CompetitionQuota `json:"competitions"`
}

// CompetitionQuota is what somebody has used of a competition's limits today.
type CompetitionQuota struct {
	Competition string    `json:"competition"`
	Submissions Used      `json:"submissions"`
	Concurrent  Used      `json:"concurrent"`
	GPUHours    float64   `json:"gpu_hours"` // used or reserved by what was submitted today
	ResetsAt    time.Time `json:"resets_at"`
	Why         string    `json:"why"`
}

// QuotaEntry is one line of the quota ledger. Lines are only ever added, and
// their sum is what was taken.
type QuotaEntry struct {
	ID          string    `json:"id"`
	At          time.Time `json:"at"`
	Kind        string    `json:"kind"`   // reserve, settle or refund
	Reason      string    `json:"reason"` // one stable word
	Why         string    `json:"why"`
	Job         string    `json:"job"`
	Competition string    `json:"competition"`
	UserID      string    `json:"user_id"`
	Family      string    `json:"family,omitempty"` // of the token
	Submissions int       `json:"submissions"`
	GPUSeconds  int64     `json:"gpu_seconds"`
}

// GrantQuota raises what bounds a person for a while.
type GrantQuota struct {
	GPUHours   float64 `json:"gpu_hours,omitempty"`
	Concurrent int     `json:"concurrent,omitempty"`
	For        string  `json:"for"` // "7d"
	Reason     string  `json:"reason"`
}

// Grant raises what bounds a person until it ends.
type Grant struct {
	ID         string    `json:"id"`
	GPUHours   float64   `json:"gpu_hours,omitempty"`
	Concurrent int       `json:"concurrent,omitempty"`
	At         time.Time `json:"at"`
	Until      time.Time `json:"until"`
	Reason     string    `json:"reason"`
	By         string    `json:"by"`
}

// Quota tells what somebody has used. The query may hold competition, and user
// for administrators and auditors.
func (c *Client) Quota(ctx context.Context, query url.Values) (Quota, error) {
	return get[Quota](ctx, c, "/v1/quota", query)
}

// QuotaEntries lists the quota ledger, newest first. The query may hold user,
// token_id (or a name, or self), competition, job, limit and cursor.
func (c *Client) QuotaEntries(ctx context.Context, query url.Values) (Page[QuotaEntry], error) {
	return get[Page[QuotaEntry]](ctx, c, "/v1/quota/entries", query)
}

// GrantQuota raises what bounds a user for a while.
func (c *Client) GrantQuota(ctx context.Context, user string, r GrantQuota) (Grant, error) {
	return post[Grant](ctx, c, "/v1/users/"+seg(user)+"/grants", r)
}

// EndGrant ends a grant before its time.
func (c *Client) EndGrant(ctx context.Context, user, id string) (g Grant, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/users/" + seg(user) + "/grants/" + seg(id)}, &g)
	return g, err
}
