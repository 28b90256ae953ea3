package httpapi

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// The OAuth endpoints speak the forms and errors of their RFCs, so that clients
// that know nothing of gradegate work: RFC 6749 (errors), 7009 (revocation),
// 7662 (introspection), 8693 (token exchange), 8414 and 9728 (metadata).

const (
	grantRefresh  = "refresh_token"
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
)

// oauth is the adapter for their forms.
func oauth(use func(*API, *call, url.Values) (any, error), doc func(*API, *huma.Operation)) func(*API, huma.API, *route) {
	return func(a *API, h huma.API, r *route) {
		op := r.operation()
		a.document(h, r, &op, doc)
		a.HandleFunc(r.pattern(), func(_ http.ResponseWriter, req *http.Request) {
			c := callOf(req.Context())
			out, err := a.oauthForm(c, req, use)
			if err == nil {
				err = c.oauthAnswer(out)
			}
			if err != nil {
				c.oauthFail(err)
			}
		})
	}
}

func (a *API) oauthForm(c *call, r *http.Request, use func(*API, *call, url.Values) (any, error)) (any, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, fault.New(fault.Invalid, "content_type", "The body is a form and says so.").WithFix("Content-Type: application/x-www-form-urlencoded")
	}
	limit := c.route.bodyLimit()
	data, err := io.ReadAll(http.MaxBytesReader(c.ResponseWriter, r.Body, limit))
	if err != nil {
		return nil, bodyFault(err, limit)
	}
	_ = http.NewResponseController(c.ResponseWriter).SetReadDeadline(time.Time{}) // not every test writer has one
	form, err := url.ParseQuery(string(data))
	if err != nil {
		return nil, fault.New(fault.Invalid, "form_invalid", "The form cannot be read.").WithFix("Encode it as application/x-www-form-urlencoded.")
	}
	for name, values := range form {
		if len(values) > 1 && name != "resource" && name != "audience" {
			return nil, fault.New(fault.Invalid, "field_twice", "The form has a field twice: %s.", place(name)).WithFix("Send it once.")
		}
	}
	return use(a, c, form)
}

// oauthAnswer is a JSON object that nobody keeps; nil is an empty answer.
func (c *call) oauthAnswer(out any) error {
	c.Header().Set("Pragma", "no-cache")
	if out == nil {
		c.WriteHeader(http.StatusOK)
		return nil
	}
	return c.json(http.StatusOK, out)
}

// oauthFail answers with the error of RFC 6749, section 5.2, and what a problem
// of ours tells beside it.
func (c *call) oauthFail(err error) {
	p := c.refuse(err)
	status, word := c.oauthError(p.fault)
	c.Header().Set("Content-Type", "application/json")
	if c.route.has(inForm) {
		c.Header().Del("WWW-Authenticate") // the form's token was refused, and not a client's
	}
	c.WriteHeader(status)
	_ = json.NewEncoder(c).Encode(map[string]string{ // a client that has gone needs no answer
		"error": word, "error_description": ascii(p.fault.Detail), "detail": p.fault.Detail, "code": p.fault.Code, "fix": p.fault.Fix, "request_id": c.id,
	})
}

// ascii is what RFC 6749 allows in a description.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '\''
		}
		return r
	}, s)
}

func (c *call) oauthError(f *fault.Error) (status int, word string) {
	atToken, about := c.route.id == "oauthToken", f.Kind == fault.Unauthenticated || f.Kind == fault.Denied
	switch {
	case f.Code == "grant_unknown":
		return http.StatusBadRequest, "unsupported_grant_type"
	case f.Code == "target_unknown":
		return http.StatusBadRequest, "invalid_target"
	case f.Code == "scope_unknown" || f.Code == "scope_widened":
		return http.StatusBadRequest, "invalid_scope"
	case f.Code == "scope_missing": // of who asks about a token (RFC 6750, section 3.1)
		return http.StatusForbidden, "insufficient_scope"
	case c.exchanges && about: // whatever is wrong with the token that is shown (RFC 8693, section 2.2.2)
		return http.StatusBadRequest, "invalid_request"
	case atToken && f.Kind == fault.Unauthenticated:
		return http.StatusBadRequest, "invalid_grant"
	case atToken && f.Kind == fault.Denied:
		return http.StatusBadRequest, "unauthorized_client"
	}
	switch f.Kind {
	case fault.Unauthenticated:
		return http.StatusUnauthorized, "invalid_client"
	case fault.Denied:
		return http.StatusForbidden, "unauthorized_client"
	case fault.Limited:
		return http.StatusTooManyRequests, "slow_down"
	case fault.Unavailable:
		return http.StatusServiceUnavailable, "temporarily_unavailable"
	case fault.Internal:
		return http.StatusInternalServerError, "server_error"
	case fault.TooLarge, fault.Unsupported:
		return statusOf(f), "invalid_request"
	}
	return http.StatusBadRequest, "invalid_request"
}

// presentedIn authenticates the secret in a form, and asks the limits.
func (c *call) presentedIn(text string) error {
	c.tried = true
	if err := c.authenticateText(strings.TrimSpace(text), http.Header{}); err != nil {
		return err
	}
	c.tell()
	return c.limit()
}

// oauthToken gives tokens for tokens. What is presented is the proof of who
// asks, so that the client needs no other credential.
func (a *API) oauthToken(c *call, form url.Values) (any, error) {
	switch form.Get("grant_type") {
	case grantRefresh:
		return a.refresh(c, form)
	case grantExchange:
		c.exchanges = true
		return a.exchange(c, form)
	case "":
		return nil, fault.New(fault.Invalid, "grant_missing", "The form does not say what is asked for.").WithFix("Send grant_type=%s or grant_type=%s", grantRefresh, grantExchange)
	}
	return nil, fault.New(fault.Invalid, "grant_unknown", "That grant is not offered here.").WithFix("Use grant_type=%s or grant_type=%s", grantRefresh, grantExchange)
}

// refresh gives the next session of a sign-in (RFC 6749, section 6).
func (a *API) refresh(c *call, form url.Values) (any, error) {
	if form.Get("refresh_token") == "" {
		return nil, fault.New(fault.Invalid, "refresh_token_missing", "The refresh token is missing.").WithFix("Send it as refresh_token.")
	}
	secret, err := token.ReadSecret(strings.TrimSpace(form.Get("refresh_token")))
	if err != nil {
		c.tried = true
		return nil, c.turnedAway(malformed(err, len(form.Get("refresh_token"))))
	}
	c.shown = secret.Presented()
	if err := c.limitShown(); err != nil {
		return nil, err
	}
	s := policy.Subject{Addr: c.addr, Agent: c.agent, Request: c.id}
	made, err := a.Authority.RefreshSession(c.ctx, &s, authority.Refresh{
		Secret: secret, Scopes: strings.Fields(form.Get("scope")), Install: form.Get("install_id"),
	})
	if err != nil {
		if fault.KindOf(err) == fault.Unauthenticated {
			c.tried = true
			err = c.turnedAway(err)
		}
		return nil, err
	}
	return map[string]any{
		"access_token": made.Secret.Reveal(), "refresh_token": made.Refresh.Reveal(), "token_type": "Bearer",
		"expires_in": int64(made.Token.FixedEnd.Sub(c.now) / time.Second), "scope": strings.Join(made.Token.Scopes, " "),
	}, nil
}

// exchange gives a child of the token that is presented (RFC 8693).
func (a *API) exchange(c *call, form url.Values) (any, error) {
	if form.Get("subject_token") == "" {
		return nil, fault.New(fault.Invalid, "subject_token_missing", "The token to be exchanged is missing.").WithFix("Send it as subject_token.")
	}
	for member, want := range map[string]string{"subject_token_type": typeAccess, "requested_token_type": typeAccess} {
		if v := form.Get(member); v != want && (v != "" || member == "subject_token_type") {
			return nil, fault.New(fault.Invalid, "type_unknown", "The %s is none that is exchanged here.", member).WithFix("Use %s=%s", member, typeAccess)
		}
	}
	for _, target := range append(form["resource"], form["audience"]...) {
		if strings.TrimSuffix(target, "/") != a.issuer(c) {
			return nil, fault.New(fault.Invalid, "target_unknown", "Tokens are made for this service only.").WithFix("Leave resource and audience out.")
		}
	}
	if form.Get("actor_token") != "" || form.Get("actor_token_type") != "" {
		return nil, fault.New(fault.Invalid, "actor_unknown", "Nobody acts for somebody else here.").WithFix("Leave actor_token and actor_token_type out.")
	}
	x := authority.Exchange{Scopes: strings.Fields(form.Get("scope")), Name: form.Get("name")}
	if text := form.Get("expires_in"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n <= 0 {
			return nil, fault.New(fault.Invalid, "lifetime_out_of_range", "expires_in is a number of seconds.").WithFix("Use for example expires_in=3600")
		}
		x.Lifetime = time.Duration(n) * time.Second
	}
	if err := c.presentedIn(form.Get("subject_token")); err != nil {
		return nil, err
	}
	if err := c.begin(c.ctx); err != nil {
		return nil, err
	}
	made, err := a.Authority.ExchangeToken(c.ctx, &c.subject, x)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"access_token": made.Secret.Reveal(), "issued_token_type": typeAccess, "token_type": "Bearer",
		"expires_in": int64(made.Token.FixedEnd.Sub(c.now) / time.Second), "scope": strings.Join(made.Token.Scopes, " "),
	}, nil
}

// oauthRevoke ends the token that is presented, whoever presents it: possession
// is the proof. What is unknown is revoked already (RFC 7009, section 2.2).
func (a *API) oauthRevoke(c *call, form url.Values) (any, error) {
	text := strings.TrimSpace(form.Get("token"))
	if text == "" {
		return nil, fault.New(fault.Invalid, "token_missing_in_form", "The token is missing.").WithFix("Send it as token.")
	}
	err := c.presentedIn(text)
	switch f := fault.Of(err); {
	case err == nil:
	case f.Kind == fault.Unauthenticated && c.subject.Token == "" && c.subject.Job == "":
		return nil, nil // unknown; the failure was counted
	case f.Kind != fault.Unauthenticated && f.Kind != fault.Denied:
		return nil, err
	}
	// Its holder may end a token whatever it may do otherwise.
	s := policy.Subject{Addr: c.addr, Agent: c.agent, Request: c.id, Principal: c.subject.Principal, Token: c.subject.Token, Kind: c.subject.Kind}
	if c.subject.Job != "" {
		return nil, a.Grading.ReportLeak(c.ctx, &s, []string{text})
	}
	if err := a.Authority.RevokePresented(c.ctx, &s); err != nil {
		return nil, err
	}
	a.nudge()
	return nil, nil
}

// oauthIntrospect tells a resource server about a token. Whatever is not
// active, for whatever reason, is exactly {"active": false}.
func (a *API) oauthIntrospect(c *call, form url.Values) (any, error) {
	text := strings.TrimSpace(form.Get("token"))
	if text == "" {
		return nil, fault.New(fault.Invalid, "token_missing_in_form", "The token is missing.").WithFix("Send it as token.")
	}
	// Where the token is used from is for the caller to say. Without it, one that is
	// for some networks only is not known to be good.
	addr := plain(form.Get("ip"))
	if form.Get("ip") != "" && !addr.IsValid() {
		return nil, errIP
	}
	own := false
	if p, err := a.Table.Read(text); err == nil {
		own = p.Public.ID() == c.subject.Token
	}
	if own && !addr.IsValid() {
		addr = c.addr
	}
	if err := policy.Decide(&c.subject, policy.TokenVerify, policy.Resource{}); err != nil && !own {
		return nil, err
	}
	holder, err := a.decide(c.ctx, &c.subject, text, addr, anyUse.action, policy.Resource{})
	if f := fault.Of(err); err != nil && (f.Kind == fault.Unavailable || f.Kind == fault.Internal) {
		return nil, err
	}
	if err != nil || holder.Mode != "" {
		return map[string]bool{"active": false}, nil
	}
	out := map[string]any{
		"active": true, "scope": strings.Join(holder.Scopes, " "), "client_id": string(holder.Principal.ID), "username": holder.Principal.Name,
		"token_type": "Bearer", "sub": string(holder.Principal.ID), "iss": a.issuer(c), "jti": string(holder.Token),
		"gradegate:kind": holder.Kind.String(), "gradegate:competitions": allOr(holder.Competitions),
	}
	if !holder.Until.IsZero() {
		out["exp"], out["gradegate:effective_reason"] = holder.Until.Unix(), string(holder.By)
	}
	return out, nil
}

// issuer is the service's own name: what is configured, or the address by which
// the request came.
func (a *API) issuer(c *call) string {
	if a.PublicURL != "" {
		return strings.TrimSuffix(a.PublicURL, "/")
	}
	return c.base
}

// elsewhere refuses the name of a document that is not this service's: behind
// the well-known part stands the path of its own address, which mostly has none
// (RFC 8414, section 3.1, and RFC 9728, section 3.1).
func (a *API) elsewhere(c *call, r *http.Request) bool {
	u, err := url.Parse(a.issuer(c))
	path := strings.TrimSuffix(r.PathValue("path"), "/")
	return path != "" && (err != nil || "/"+path != u.Path)
}

func (a *API) oauthServer(c *call, r *http.Request) error {
	if a.elsewhere(c, r) {
		return errNoRoute
	}
	base := a.issuer(c)
	return c.json(http.StatusOK, map[string]any{
		"issuer": base, "token_endpoint": base + "/oauth2/token", "revocation_endpoint": base + "/oauth2/revoke",
		"introspection_endpoint": base + "/oauth2/introspect", "grant_types_supported": []string{grantRefresh, grantExchange},
		"response_types_supported": []string{}, "scopes_supported": policy.Scopes,
		"token_endpoint_auth_methods_supported": []string{"none"}, "revocation_endpoint_auth_methods_supported": []string{"none"},
		"introspection_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"service_documentation":                         base + "/openapi.json",
	})
}

func (a *API) oauthResource(c *call, r *http.Request) error {
	if a.elsewhere(c, r) {
		return errNoRoute
	}
	base := a.issuer(c)
	return c.json(http.StatusOK, map[string]any{
		"resource": base, "authorization_servers": []string{base}, "scopes_supported": policy.Scopes,
		"bearer_methods_supported": []string{"header"}, "resource_name": "gradegate", "resource_documentation": base + "/openapi.json",
	})
}

func (a *API) formOf(op *huma.Operation, required []string, members ...string) {
	properties := map[string]*huma.Schema{}
	for _, m := range members {
		properties[m] = textOf()
	}
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/x-www-form-urlencoded": {Schema: &huma.Schema{Type: huma.TypeObject, Properties: properties, Required: required}},
	}}
	documentAnswer(a, op)
}

func tokenForm(a *API, op *huma.Operation) {
	a.formOf(op, []string{"grant_type"}, "grant_type", "refresh_token", "install_id", "subject_token", "subject_token_type", "requested_token_type", "scope", "resource", "audience", "expires_in", "name")
}

func revokeForm(a *API, op *huma.Operation) {
	a.formOf(op, []string{"token"}, "token", "token_type_hint")
}

func introspectForm(a *API, op *huma.Operation) {
	a.formOf(op, []string{"token"}, "token", "token_type_hint", "ip")
}
