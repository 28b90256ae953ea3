package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

var errTokenInURL = fault.New(fault.Invalid, "token_in_url",
	"A token never belongs into a URL: logs and histories keep it. It counts as leaked and was revoked.").
	WithFix("Make another one (gradegate login --invite CODE) and send it as a header: Authorization: Bearer TOKEN")

// tokensIn finds the secrets of ours that stand anywhere in a URL as it was
// sent: in the path, in a query however it is divided, in another URL inside of
// it. Escaping it twice hides nothing. It is asked for every request, and nearly
// all of them have nothing that could be one.
func tokensIn(uri string) (secrets []string) {
	if strings.IndexByte(uri, '%') >= 0 {
		uri = decoded(decoded(uri)) // that leaves a secret alone which stands there plainly
	}
	for {
		i := strings.Index(uri, "gg")
		if i < 0 {
			return secrets
		}
		uri = uri[i:]
		n := min(len(uri), token.SecretLen)
		if _, err := token.Parse(uri[:n]); err != nil {
			n = 1
		} else if !slices.Contains(secrets, uri[:n]) {
			secrets = append(secrets, uri[:n])
		}
		uri = uri[n:]
	}
}

// decoded undoes one layer of percent-encoding. What is no escape stays: here
// it is no mistake, and must not end the search.
func decoded(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		b := s[i]
		if b == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		out = append(out, b)
	}
	return string(out)
}

func isHex(c byte) bool { return c == '0' || unhex(c) != 0 }

// namesToken reports whether a member of the query is named like a credential,
// whatever it holds; a public id is none.
func namesToken(u *url.URL) bool {
	if u.RawQuery == "" {
		return false
	}
	for name, values := range u.Query() {
		if name != "token" && name != "access_token" && name != "secret" {
			continue
		}
		for _, v := range values {
			if v != "" && !strings.HasPrefix(v, "tok_") {
				return true
			}
		}
	}
	return false
}

// leakedInURL ends tokens that stood in a URL: proxies and browsers have
// written them down already.
func (a *API) leakedInURL(c *call, secrets []string) {
	e := c.event(audit.Authenticate, audit.Deny)
	e.Reason = errTokenInURL.Code
	a.noted(a.Recorder.Refused(c.ctx, e))
	a.endInURL(c.ctx, &policy.Subject{Addr: c.addr, Agent: c.agent, Request: c.id}, secrets)
}

// leakedBehind does so with the URLs that a proxy was asked for.
func (a *API) leakedBehind(v *visit, r *http.Request, uris []string) error {
	var secrets []string
	for _, uri := range uris {
		secrets = append(secrets, tokensIn(uri)...)
	}
	if secrets == nil { // members of that name are the other program's business
		return nil
	}
	a.endInURL(r.Context(), &policy.Subject{Addr: v.addr, Agent: v.agent, Request: v.id}, secrets)
	return errTokenInURL
}

func (a *API) endInURL(ctx context.Context, s *policy.Subject, secrets []string) {
	if len(secrets) == 0 {
		return
	}
	// The client may have gone; what it gave away must end all the same.
	if err := a.endLeaked(context.WithoutCancel(ctx), s, secrets); err != nil {
		a.Logger.Error("a token in a URL could not be revoked", "request", s.Request, "error", scrub(err.Error()))
	}
}
