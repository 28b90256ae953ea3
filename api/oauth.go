package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// Refreshed is the next session of a sign-in, and what gives the one after it.
type Refreshed struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	Scope        string `json:"scope"`
}

// RefreshSession gives the session that follows (RFC 6749, section 6). The
// refresh token is used once; a lost answer may be asked for again within a
// minute. install is what this installation calls itself: the same token from
// another one ends the sign-in. It needs no credential.
func (c *Client) RefreshSession(ctx context.Context, refresh, install string) (out Refreshed, err error) {
	err = c.form(ctx, "/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "install_id": {install}}, &out)
	return out, err
}

// RevokeSecret ends the token of a secret, whatever its state, and all of the
// sign-in if it is a session's (RFC 7009). It needs no other credential.
func (c *Client) RevokeSecret(ctx context.Context, secret string) error {
	return c.form(ctx, "/oauth2/revoke", url.Values{"token": {secret}}, nil)
}

// form sends a form that may be sent again.
func (c *Client) form(ctx context.Context, path string, values url.Values, out any) error {
	if err := checkURL(c.BaseURL, "secret"); err != nil {
		return err
	}
	k := call{method: http.MethodPost, path: path, creates: true, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	for try := 0; ; try++ {
		resp, err := c.send(ctx, k, strings.NewReader(values.Encode()), false, "")
		if err == nil {
			err = c.decode(resp, out)
		}
		if err == nil || !c.again(ctx, k, err, try) {
			return err
		}
	}
}
