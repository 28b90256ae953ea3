package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: path, query: query}, &out)
	return out, err
}

func post[T any](ctx context.Context, c *Client, path string, body any) (out T, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: path, body: body, creates: true}, &out)
	return out, err
}

// list reads all pages of a list.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	all := []T{}
	if query == nil {
		query = url.Values{}
	}
	for {
		page, err := get[Page[T]](ctx, c, path, query)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.NextCursor == "" || page.NextCursor == query.Get("cursor") { // one that stands still would never end
			return all, nil
		}
		query.Set("cursor", page.NextCursor)
	}
}

func seg(s string) string { return url.PathEscape(s) }

// segments escapes each part of a path by itself.
func segments(path string) string {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = seg(parts[i])
	}
	return strings.Join(parts, "/")
}

// Whoami tells who the client's token belongs to.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	return get[Whoami](ctx, c, "/v1/whoami", nil)
}

// Tokens lists the caller's tokens.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return list[Token](ctx, c, "/v1/tokens", nil)
}

// TokenByID gives a token by id, name or "self".
func (c *Client) TokenByID(ctx context.Context, id string) (Token, error) {
	return get[Token](ctx, c, "/v1/tokens/"+seg(id), nil)
}

// CreateToken makes a personal token.
func (c *Client) CreateToken(ctx context.Context, r CreateToken) (Issued, error) {
	return post[Issued](ctx, c, "/v1/tokens", r)
}

// RotateToken gives a token a successor.
func (c *Client) RotateToken(ctx context.Context, id string, r RotateToken) (Issued, error) {
	return post[Issued](ctx, c, "/v1/tokens/"+seg(id)+"/rotate", r)
}

// RevokeToken ends a token for good.
func (c *Client) RevokeToken(ctx context.Context, id string, r RevokeToken) (out Revoked, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/tokens/" + seg(id), body: r}, &out)
	return out, err
}

// NarrowToken takes rights away from a token.
func (c *Client) NarrowToken(ctx context.Context, id string, r NarrowToken) (t Token, err error) {
	err = c.do(ctx, call{method: http.MethodPatch, path: "/v1/tokens/" + seg(id), body: r}, &t)
	return t, err
}

// EnsureToken gives one's token of a name, and makes it if there is none.
func (c *Client) EnsureToken(ctx context.Context, name string, r EnsureToken) (out Ensured, err error) {
	err = c.do(ctx, call{method: http.MethodPut, path: "/v1/tokens/by-name/" + seg(name), body: r, creates: true}, &out)
	return out, err
}

// RenewToken puts the end of a token off as far as the policies let it.
func (c *Client) RenewToken(ctx context.Context, id string) (Renewed, error) {
	return post[Renewed](ctx, c, "/v1/tokens/"+seg(id)+"/renew", nil)
}

// SuspendToken stops a token until it is resumed.
func (c *Client) SuspendToken(ctx context.Context, id string) (Token, error) {
	return post[Token](ctx, c, "/v1/tokens/"+seg(id)+"/suspend", nil)
}

// ResumeToken lets a suspended token go on.
func (c *Client) ResumeToken(ctx context.Context, id string) (Token, error) {
	return post[Token](ctx, c, "/v1/tokens/"+seg(id)+"/resume", nil)
}

// RevokeAllTokens ends all of the caller's tokens, save the one that asks if keep is "self".
func (c *Client) RevokeAllTokens(ctx context.Context, r RevokeAll) (User, error) {
	return post[User](ctx, c, "/v1/tokens/revoke-all", r)
}

// ReportLeaks reports leaked tokens. It needs no credential.
func (c *Client) ReportLeaks(ctx context.Context, tokens []string) (LeaksAccepted, error) {
	if err := checkURL(c.BaseURL, "secret"); err != nil {
		return LeaksAccepted{}, err
	}
	return post[LeaksAccepted](ctx, c, "/v1/leaks", Leaks{Tokens: tokens})
}

// VerifyToken asks for a decision about a token.
func (c *Client) VerifyToken(ctx context.Context, r Verify) (Decision, error) {
	return post[Decision](ctx, c, "/v1/verify", r)
}

// Users lists all users.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	return list[User](ctx, c, "/v1/users", nil)
}

// UserByID gives a user by id or name.
func (c *Client) UserByID(ctx context.Context, id string) (User, error) {
	return get[User](ctx, c, "/v1/users/"+seg(id), nil)
}

// CreateUser makes a user who holds no credential yet.
func (c *Client) CreateUser(ctx context.Context, r CreateUser) (User, error) {
	return post[User](ctx, c, "/v1/users", r)
}

// InviteUser makes a one-time code for a user, who is created if need be.
func (c *Client) InviteUser(ctx context.Context, name string, r Invite) (Invited, error) {
	return post[Invited](ctx, c, "/v1/users/"+seg(name)+"/invite", r)
}

// UpdateUser changes a user's role, address or groups.
func (c *Client) UpdateUser(ctx context.Context, id string, r UpdateUser) (u User, err error) {
	err = c.do(ctx, call{method: http.MethodPatch, path: "/v1/users/" + seg(id), body: r}, &u)
	return u, err
}

// Policies lists the policies that were set, and the defaults.
func (c *Client) Policies(ctx context.Context) (Policies, error) {
	return get[Policies](ctx, c, "/v1/policies", nil)
}

// PolicyByName gives the policy of the platform or of a group.
func (c *Client) PolicyByName(ctx context.Context, name string) (Policy, error) {
	return get[Policy](ctx, c, "/v1/policies/"+seg(name), nil)
}

// SetPolicy replaces a policy, or previews that.
func (c *Client) SetPolicy(ctx context.Context, name string, r SetPolicy) (out PolicySet, err error) {
	err = c.do(ctx, call{method: http.MethodPut, path: "/v1/policies/" + seg(name), body: r}, &out)
	return out, err
}

// Blocks lists the blocks by address, and who fails most.
func (c *Client) Blocks(ctx context.Context) (Blocks, error) {
	return get[Blocks](ctx, c, "/v1/blocks", nil)
}

// AddBlock refuses the failed attempts of an address or network.
func (c *Client) AddBlock(ctx context.Context, r AddBlock) (Block, error) {
	return post[Block](ctx, c, "/v1/blocks", r)
}

// RemoveBlock unblocks an address or network.
func (c *Client) RemoveBlock(ctx context.Context, network string) (out Unblocked, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/blocks/" + segments(network)}, &out)
	return out, err
}

// Clock gives the time that the server goes by.
func (c *Client) Clock(ctx context.Context) (Clock, error) {
	return get[Clock](ctx, c, "/v1/clock", nil)
}

// ConfirmClock makes the server believe its machine's clock.
func (c *Client) ConfirmClock(ctx context.Context) (Clock, error) {
	return post[Clock](ctx, c, "/v1/clock/confirm", nil)
}

// SuspendUser stops everything of a user until resumed.
func (c *Client) SuspendUser(ctx context.Context, id string) (User, error) {
	return post[User](ctx, c, "/v1/users/"+seg(id)+"/suspend", nil)
}

// ResumeUser lets a suspended user go on.
func (c *Client) ResumeUser(ctx context.Context, id string) (User, error) {
	return post[User](ctx, c, "/v1/users/"+seg(id)+"/resume", nil)
}

// OffboardUser ends everything of a leaver.
func (c *Client) OffboardUser(ctx context.Context, id string, r Offboard) (User, error) {
	return post[User](ctx, c, "/v1/users/"+seg(id)+"/offboard", r)
}

// RevokeAllOfUser ends all tokens of a user.
func (c *Client) RevokeAllOfUser(ctx context.Context, id string) (User, error) {
	return post[User](ctx, c, "/v1/users/"+seg(id)+"/revoke-all", nil)
}

// UserTokens lists a user's tokens.
func (c *Client) UserTokens(ctx context.Context, id string) ([]Token, error) {
	return list[Token](ctx, c, "/v1/users/"+seg(id)+"/tokens", nil)
}

// Redeem turns a one-time code into a session token. It needs no credential.
func (c *Client) Redeem(ctx context.Context, r Redeem) (Issued, error) {
	if err := checkURL(c.BaseURL, "secret"); err != nil {
		return Issued{}, err
	}
	return post[Issued](ctx, c, "/v1/invites/redeem", r)
}

// Competitions lists all competitions.
func (c *Client) Competitions(ctx context.Context) ([]Competition, error) {
	return list[Competition](ctx, c, "/v1/competitions", nil)
}

// CompetitionByName gives one competition.
func (c *Client) CompetitionByName(ctx context.Context, name string) (Competition, error) {
	return get[Competition](ctx, c, "/v1/competitions/"+seg(name), nil)
}

// Leaderboard gives the best of each user.
func (c *Client) Leaderboard(ctx context.Context, name string) (Leaderboard, error) {
	return get[Leaderboard](ctx, c, "/v1/competitions/"+seg(name)+"/leaderboard", nil)
}

// CompetitionFile opens a public file.
func (c *Client) CompetitionFile(ctx context.Context, name, file string) (io.ReadCloser, error) {
	return c.stream(ctx, call{method: http.MethodGet, path: "/v1/competitions/" + seg(name) + "/files/" + segments(file)})
}

// Jobs lists jobs, newest first. The query may hold competition, state, user
// and limit.
func (c *Client) Jobs(ctx context.Context, query url.Values) (Page[Job], error) {
	return get[Page[Job]](ctx, c, "/v1/jobs", query)
}

// AllJobs goes through the jobs of all pages, newest first. It ends after an error.
func (c *Client) AllJobs(ctx context.Context, query url.Values) iter.Seq2[Job, error] {
	return func(yield func(Job, error) bool) {
		q := url.Values{}
		maps.Copy(q, query)
		for {
			page, err := c.Jobs(ctx, q)
			if err != nil {
				yield(Job{}, err)
				return
			}
			for _, j := range page.Items {
				if !yield(j, nil) {
					return
				}
			}
			if page.NextCursor == "" || page.NextCursor == q.Get("cursor") {
				return
			}
			q.Set("cursor", page.NextCursor)
		}
	}
}

// JobByID gives one job.
func (c *Client) JobByID(ctx context.Context, id string) (Job, error) {
	return get[Job](ctx, c, "/v1/jobs/"+seg(id), nil)
}

// CancelJob asks for the end of a job.
func (c *Client) CancelJob(ctx context.Context, id string) (CancelJob, error) {
	return post[CancelJob](ctx, c, "/v1/jobs/"+seg(id)+"/cancel", nil)
}

// JobResult gives the grade of a job.
func (c *Client) JobResult(ctx context.Context, id string) (Result, error) {
	return get[Result](ctx, c, "/v1/jobs/"+seg(id)+"/result", nil)
}

// JobLogs opens what a job has printed, from an offset; with follow it stays
// open until the job ends.
func (c *Client) JobLogs(ctx context.Context, id string, offset int64, follow bool) (io.ReadCloser, error) {
	q := url.Values{"offset": {strconv.FormatInt(offset, 10)}}
	if follow {
		q.Set("follow", "true")
	}
	return c.stream(ctx, call{method: http.MethodGet, path: "/v1/jobs/" + seg(id) + "/logs", query: q})
}

// AuditEvents searches the trail.
func (c *Client) AuditEvents(ctx context.Context, query url.Values) (Page[AuditEvent], error) {
	return get[Page[AuditEvent]](ctx, c, "/v1/audit/events", query)
}

// AuditCheckpoint gives the newest signed checkpoint of a stream.
func (c *Client) AuditCheckpoint(ctx context.Context, stream string) (string, error) {
	return c.text(ctx, "/v1/audit/checkpoint", url.Values{"stream": {stream}})
}

// AuditTrims lists what was dropped from the trail, with the signed records.
func (c *Client) AuditTrims(ctx context.Context) (Page[Trim], error) {
	return get[Page[Trim]](ctx, c, "/v1/audit/trims", nil)
}

// AuditTrimPreview tells what would be dropped from the trail now.
func (c *Client) AuditTrimPreview(ctx context.Context) (Page[Trim], error) {
	return get[Page[Trim]](ctx, c, "/v1/audit/trim", nil)
}

// TrimAudit drops from the trail what is older than it is kept.
func (c *Client) TrimAudit(ctx context.Context) (Page[Trim], error) {
	return post[Page[Trim]](ctx, c, "/v1/audit/trim", nil)
}

// TrailKey gives the key that verifies the trail.
func (c *Client) TrailKey(ctx context.Context) (string, error) {
	return c.text(ctx, "/.well-known/gradegate-trail-key", nil)
}

func (c *Client) text(ctx context.Context, path string, query url.Values) (string, error) {
	body, err := c.stream(ctx, call{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }()
	data, err := io.ReadAll(io.LimitReader(body, 1<<20))
	return string(data), err
}

// Version tells the server's version. It needs no credential.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/version", once: true}, &v)
	return v, err
}

// Health tells how the server is.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.do(ctx, call{method: http.MethodGet, path: "/healthz", once: true}, &h)
	// A server that is unfit says so with 503, and in the same form.
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusServiceUnavailable && e.More["checks"] != nil {
		text, err := json.Marshal(e.More)
		if err != nil {
			return h, e
		}
		return h, json.Unmarshal(text, &h)
	}
	return h, err
}

// ServerVersion tells which version the server has.
func (c *Client) ServerVersion(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "/version", nil)
}
