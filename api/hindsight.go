package api

import (
	"context"
	"net/http"
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

// DryRunPolicy asks what rules of a level would have refused of what was allowed.
type DryRunPolicy struct {
	Rules Rules  `json:"rules"`
	Since string `json:"since,omitempty"`                          // RFC 3339, or a span back from now; default 30d
	Top   int    `json:"top,omitempty" minimum:"1" maximum:"1000"` // how many tokens, addresses and notices are listed; default 20
}

// DryRun is what rules would have refused, had they been in force since then.
type DryRun struct {
	Policy string     `json:"policy"`
	Rules  Rules      `json:"rules"`
	Since  time.Time  `json:"since"`
	Until  time.Time  `json:"until"`            // as far as was read
	Begins *time.Time `json:"begins,omitempty"` // when the trail begins, if that is later
	// Complete is false if the time was over first: what lies behind Until was not
	// looked at.
	Complete bool `json:"complete"`
	// Decisions were allowed in that time. Each was judged, or is counted by why not.
	Decisions  int            `json:"decisions"`
	Judged     int            `json:"judged"`
	NotJudged  map[string]int `json:"not_judged"`
	NotClaimed []string       `json:"not_claimed"` // demands that recorded uses tell nothing of
	Refused    int            `json:"refused"`
	Marked     int            `json:"marked"` // by networks that only observe

	ByRule      []DryRunRule    `json:"by_rule"`
	Tokens      []DryRunToken   `json:"tokens"` // the most used first
	TokensTotal int             `json:"tokens_total"`
	Addresses   []DryRunAddress `json:"addresses"`
	Notices     []DryRunNotice  `json:"notices"` // drafts; nobody was sent one
	UsersTotal  int             `json:"users_total"`
}

// DryRunRule is what one demand would have refused.
type DryRunRule struct {
	Rule    string    `json:"rule"`
	Policy  string    `json:"policy"` // whose demand it is
	Uses    int       `json:"uses"`
	Submits int       `json:"submits"`
	Tokens  int       `json:"tokens"`
	Users   int       `json:"users"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// DryRunToken is a token of which uses would have been refused.
type DryRunToken struct {
	TokenID   string    `json:"token_id"`
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	UserID    string    `json:"user_id"`
	User      string    `json:"user"`
	Rules     []string  `json:"rules"`
	Uses      int       `json:"uses"`
	Submits   int       `json:"submits"`
	Jobs      []string  `json:"jobs"`      // that would not have been made; some of them
	Addresses []string  `json:"addresses"` // some of them
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// DryRunAddress is where refused uses would have come from.
type DryRunAddress struct {
	IP   string `json:"ip"`
	Uses int    `json:"uses"`
}

// DryRunNotice is the draft of what a person is told before.
type DryRunNotice struct {
	UserID string `json:"user_id"`
	User   string `json:"user"`
	Email  string `json:"email,omitempty"`
	Text   string `json:"text"`
}

// DryRunPolicy plays recorded decisions again under other rules of a level.
func (c *Client) DryRunPolicy(ctx context.Context, level string, r DryRunPolicy) (out DryRun, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/policies/" + seg(level) + "/dry-run", body: r, once: true}, &out)
	return out, err
}

// Advice is which rights of a token were used lately, and what it could do without.
type Advice struct {
	TokenID string     `json:"token_id"`
	Name    string     `json:"name"`
	Kind    string     `json:"kind"`
	UserID  string     `json:"user_id"`
	User    string     `json:"user"`
	Since   time.Time  `json:"since"` // what is known begins here
	Until   time.Time  `json:"until"`
	Days    int        `json:"days"`
	Uses    int        `json:"uses"` // of it, its predecessors and its children
	LastUse *time.Time `json:"last_use,omitempty"`

	Scopes           []string `json:"scopes"` // that it has
	UsedScopes       []string `json:"used_scopes"`
	UnusedScopes     []string `json:"unused_scopes"`
	Competitions     []string `json:"competitions"`
	UsedCompetitions []string `json:"used_competitions"`
	UsedNetworks     []string `json:"used_networks"`

	// Narrow is the request that takes away what was not used; left out: nothing is
	// to be taken away, or nothing is advised, and Untold says why.
	Narrow     *NarrowToken `json:"narrow,omitempty"`
	Command    string       `json:"command,omitempty"`
	Confidence string       `json:"confidence"` // high, medium, low, or none: it is too early to say
	// EnoughAt is from when on enough is known, if it is too early now.
	EnoughAt *time.Time `json:"enough_at,omitempty"`
	Detail   string     `json:"detail"`
	Untold   []string   `json:"untold"`
}

// AdviseToken says which rights of a token were not used; since "" is 30 days.
func (c *Client) AdviseToken(ctx context.Context, id, since string) (Advice, error) {
	return get[Advice](ctx, c, "/v1/tokens/"+seg(id)+"/advice", sinceQuery(since))
}

// AdviseTokens does so for the caller's active tokens, or for everybody's.
func (c *Client) AdviseTokens(ctx context.Context, since string, all bool) ([]Advice, error) {
	q := sinceQuery(since)
	if all {
		q.Set("all", "true")
	}
	page, err := get[Page[Advice]](ctx, c, "/v1/advice", q)
	return page.Items, err
}

func sinceQuery(since string) url.Values {
	q := url.Values{}
	if since != "" {
		q.Set("since", since)
	}
	return q
}
