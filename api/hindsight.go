package api

import (
	"context"
	"net/url"
	"time"
)

// Explanation is why a request was decided as it was.
type Explanation struct {
	RequestID string    `json:"request_id"`
	At        time.Time `json:"at"`
	Decision  string    `json:"decision"` // allow or deny
	Reason    string    `json:"reason"`   // ok, or the code of the refusal
	Status    int       `json:"status,omitempty"`
	Route     string    `json:"route"`
	Summary   string    `json:"summary"`
	Fix       string    `json:"fix,omitempty"`

	TokenID   string `json:"token_id,omitempty"`
	TokenName string `json:"token_name,omitempty"`
	Kind      string `json:"kind,omitempty"`
	UserID    string `json:"user_id,omitempty"`
	Username  string `json:"username,omitempty"`
	Job       string `json:"job,omitempty"` // whose handle it was
	Mode      string `json:"mode,omitempty"`
	IP        string `json:"ip,omitempty"`
	Agent     string `json:"agent,omitempty"`

	// Checks are in the order in which a request meets them.
	Checks []ExplainedCheck `json:"checks"`
	// What the check that failed knows: scopes, a clock and when it ended, a budget,
	// the level of policy, and how the address was found out.
	Required      []string   `json:"required,omitempty"`
	Granted       []string   `json:"granted,omitempty"`
	Missing       []string   `json:"missing,omitempty"`
	Clock         string     `json:"clock,omitempty"`
	Ended         *time.Time `json:"ended,omitempty"`
	Policy        string     `json:"policy,omitempty"` // platform, group:NAME or token
	LimitedBy     string     `json:"limited_by,omitempty"`
	Class         string     `json:"class,omitempty"`
	Proxy         string     `json:"proxy,omitempty"`          // that named the address
	ProxyHeader   string     `json:"proxy_header,omitempty"`   // in which it did
	IgnoredHeader string     `json:"ignored_header,omitempty"` // of a peer that is no trusted proxy
}

// ExplainedCheck is one step of the way of a request.
type ExplainedCheck struct {
	Name   string `json:"name"`
	Result string `json:"result"` // passed, failed or not_reached
	Detail string `json:"detail,omitempty"`
}

// Refusals tells why the last requests with the client's token were refused, the
// newest last. The token may have ended.
func (c *Client) Refusals(ctx context.Context) ([]Explanation, error) {
	page, err := get[Page[Explanation]](ctx, c, "/v1/explain", nil)
	return page.Items, err
}

// Explain tells why a request was decided as it was. The request's own token is
// enough to ask, also once it has ended.
func (c *Client) Explain(ctx context.Context, request string) (Explanation, error) {
	return get[Explanation](ctx, c, "/v1/explain/"+seg(request), url.Values{})
}
