package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Service is a principal that is no person: two people, or the members of a
// group, answer for it and make its tokens.
type Service struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	// Owners are the people who answer for it, those included who are not active;
	// of a group only who is. Group is there in the place of a list of people.
	Owners []Owner `json:"owners"`
	Group  string  `json:"group,omitempty"`
	// ActiveOwners is how many of them are active.
	ActiveOwners int `json:"active_owners"`
	// OwnerlessSince is when the last one went. From QuarantineAt on its tokens read
	// and cancel its own jobs and do nothing else, until somebody answers for it.
	OwnerlessSince *time.Time `json:"ownerless_since,omitempty"`
	QuarantineAt   *time.Time `json:"quarantine_at,omitempty"`
	Warning        string     `json:"warning,omitempty"` // if there are too few
	CreatedAt      time.Time  `json:"created_at"`
	ETag           string     `json:"etag"`
}

// Owner is one of those who answer for a service.
type Owner struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Active bool   `json:"active"`
}

// CreateService asks for a service with two owners at least, or with a group.
type CreateService struct {
	Name   string   `json:"name"`
	Owners []string `json:"owners,omitempty"` // names or ids
	Group  string   `json:"group,omitempty"`
}

// UpdateService changes who answers for a service.
type UpdateService struct {
	AddOwners    []string `json:"add_owners,omitempty"`
	RemoveOwners []string `json:"remove_owners,omitempty"`
	Group        string   `json:"group,omitempty"` // in the place of all people
	// Force leaves it with fewer than two active owners; for administrators.
	Force bool `json:"force,omitempty"`
}

// Consent lets one principal hand in jobs that are another one's.
type Consent struct {
	ID           string     `json:"id"`
	From         Party      `json:"from"` // whose the jobs are
	To           Party      `json:"to"`   // who hands them in
	Competitions []string   `json:"competitions"`
	State        string     `json:"state"` // active, expired, withdrawn, ended (one of the two was off-boarded or suspended)
	CreatedAt    time.Time  `json:"created_at"`
	ExpiresAt    time.Time  `json:"expires_at"`
	WithdrawnAt  *time.Time `json:"withdrawn_at,omitempty"`
}

// Party is one side of a consent.
type Party struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"` // human or service
}

// GiveConsent asks for a consent of the caller.
type GiveConsent struct {
	To           string   `json:"to"`                   // name or id of a person or a service
	ExpiresIn    string   `json:"expires_in,omitempty"` // "30d" (default), at most "90d"
	Competitions []string `json:"competitions,omitempty"`
}

// Act says who acted for the owner of a job, and by which consent.
type Act struct {
	Sub     string `json:"sub"`
	Name    string `json:"name"`
	Consent string `json:"consent"`
}

// Services lists the services that the caller answers for; administrators and
// auditors see all.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	return list[Service](ctx, c, "/v1/services", nil)
}

// ServiceByID gives a service by id or name.
func (c *Client) ServiceByID(ctx context.Context, id string) (Service, error) {
	return get[Service](ctx, c, "/v1/services/"+seg(id), nil)
}

// CreateService makes a service that holds no token yet.
func (c *Client) CreateService(ctx context.Context, r CreateService) (Service, error) {
	return post[Service](ctx, c, "/v1/services", r)
}

// UpdateService changes who answers for a service.
func (c *Client) UpdateService(ctx context.Context, id string, r UpdateService) (v Service, err error) {
	err = c.do(ctx, call{method: http.MethodPatch, path: "/v1/services/" + seg(id), body: r}, &v)
	return v, err
}

// ServiceTokens lists the tokens of a service.
func (c *Client) ServiceTokens(ctx context.Context, id string) ([]Token, error) {
	return list[Token](ctx, c, "/v1/services/"+seg(id)+"/tokens", nil)
}

// CreateServiceToken makes a token of a service that the caller answers for.
func (c *Client) CreateServiceToken(ctx context.Context, id string, r CreateToken) (Issued, error) {
	return post[Issued](ctx, c, "/v1/services/"+seg(id)+"/tokens", r)
}

// Consents lists the consents that the caller gave and was given; user names
// somebody else, for administrators and auditors.
func (c *Client) Consents(ctx context.Context, user string) ([]Consent, error) {
	q := url.Values{}
	if user != "" {
		q.Set("user", user)
	}
	return list[Consent](ctx, c, "/v1/consents", q)
}

// GiveConsent lets somebody hand in jobs that are the caller's.
func (c *Client) GiveConsent(ctx context.Context, r GiveConsent) (Consent, error) {
	return post[Consent](ctx, c, "/v1/consents", r)
}

// WithdrawConsent ends a consent at once.
func (c *Client) WithdrawConsent(ctx context.Context, id string) (out Consent, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/consents/" + seg(id)}, &out)
	return out, err
}
