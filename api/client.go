package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Client talks to one gradegate server. Its fields are set before first use;
// after that it is safe for concurrent use.
type Client struct {
	// BaseURL is the server, such as https://grade.example.org, or
	// unix:///path/admin.sock for the server's own socket.
	BaseURL string
	// Token is the credential; empty for calls that need none.
	Token string
	// Agent is how the client calls itself.
	Agent string
	// Retries is how often a request is sent again after an answer was lost or
	// the server was unavailable; every request that creates carries an
	// Idempotency-Key, so that nothing is done twice.
	Retries int
	// Refresh gives the token that follows one that has expired; "" if there is
	// none. The request is then sent once more. May be nil.
	Refresh func(ctx context.Context, expired string) (string, error)
	// Answered is told the headers of every answer, such as X-Token-Expires-In;
	// may be nil.
	Answered func(http.Header)
	// Wait pauses between tries; tests replace it.
	Wait func(context.Context, time.Duration) error

	http *http.Client
	// shown is the address as it was given, for messages.
	shown string
	// fresh is the token that took the place of Token.
	fresh atomic.Pointer[string]
}

// Error is a refusal by the server, or the failure to reach it (Status 0).
type Error struct {
	Problem
	RetryAfter time.Duration
	Cause      error
}

func (e *Error) Error() string {
	if e.Status == 0 {
		return e.Detail
	}
	return fmt.Sprintf("%s (%s)", e.Detail, e.Code)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// NewClient makes a client for a server. A token is never sent over plain HTTP
// except to this machine itself, and never follows a redirect elsewhere.
func NewClient(base, token string) (*Client, error) {
	base = strings.TrimRight(base, "/")
	c := &Client{BaseURL: base, Token: token, Retries: 4, Wait: pause, Agent: "gradegate (" + runtime.GOOS + ")", shown: base}
	if err := checkToken(token); err != nil {
		return nil, err
	}
	socket := ""
	if path, local := strings.CutPrefix(base, "unix://"); local {
		c.BaseURL, socket = "http://localhost", path
	} else if err := checkURL(base, token); err != nil {
		return nil, err
	}
	t, err := transportFor(socket, os.Getenv("GRADEGATE_CA_FILE"))
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// answerTime bounds the wait for the head of an answer once the request is
// sent: a server that accepts and then hangs is no slow upload.
const answerTime = 2 * time.Minute

// transports are shared by all clients that reach their server in the same way:
// a program that makes a client for each request must not leave a connection
// behind each time. They carry no credentials.
var transports sync.Map // way → *http.Transport

// way is a socket's path, empty for the network, and the authorities to trust.
type way struct {
	socket string
	roots  [sha256.Size]byte
}

func transportFor(socket, caFile string) (*http.Transport, error) {
	w, t := way{socket: socket}, newTransport()
	if socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
	}
	if caFile != "" {
		pool, sum, err := caPool(caFile)
		if err != nil {
			return nil, err
		}
		w.roots, t.TLSClientConfig = sum, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	shared, _ := transports.LoadOrStore(w, t)
	return shared.(*http.Transport), nil
}

func newTransport() *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if d, ok := http.DefaultTransport.(*http.Transport); ok { // unless the program replaced it
		t = d.Clone()
	}
	t.ResponseHeaderTimeout = answerTime
	return t
}

// checkToken refuses what no header can carry. The text is not repeated.
func checkToken(token string) error {
	for _, b := range []byte(token) {
		if b <= ' ' || b >= 0x7f {
			return &Error{Problem: Problem{
				Code:   "token_malformed",
				Detail: "The token holds a space, a line break or another character that no token has.",
				Fix:    "Copy it again, without anything around it.",
			}}
		}
	}
	return nil
}

func checkURL(base, token string) error {
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return &Error{Problem: Problem{Code: "url_invalid", Detail: "The server's address is no URL.", Fix: "Use for example --url https://grade.example.org"}}
	}
	if u.Scheme == "http" && token != "" && !loopback(u.Hostname()) {
		return &Error{Problem: Problem{
			Code:   "plain_http",
			Detail: "A token is not sent over plain HTTP to another machine.",
			Fix:    "Use https:// in --url or GRADEGATE_URL.",
		}}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func caPool(file string) (_ *x509.CertPool, sum [sha256.Size]byte, _ error) {
	bad := func(detail string, err error) error {
		return &Error{Cause: err, Problem: Problem{
			Code: "ca_file", Detail: "GRADEGATE_CA_FILE: " + detail,
			Fix: "Name a PEM file with the certificate of the authority, or unset GRADEGATE_CA_FILE.",
		}}
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, sum, bad(fmt.Sprintf("it cannot be read: %v.", err), err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, sum, bad(file+" holds no certificate.", nil)
	}
	return pool, sha256.Sum256(pem), nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// call is one request to be sent, perhaps several times.
type call struct {
	method, path string
	query        url.Values
	body         any  // encoded as JSON
	creates      bool // carries an Idempotency-Key
	once         bool // whoever asks wants to know how it is now
	header       http.Header
}

// do sends a call and decodes the answer into out (nil: it is dropped).
func (c *Client) do(ctx context.Context, k call, out any) error {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return fmt.Errorf("encoding the request: %w", err)
		}
	}
	key := ""
	if k.creates {
		key = rand.Text()
	}
	for try := 0; ; try++ {
		resp, err := c.send(ctx, k, bytes.NewReader(body), k.body != nil, key)
		if err == nil {
			err = c.decode(resp, out)
		}
		if err == nil || !c.again(ctx, k, err, try) {
			return err
		}
	}
}

// patience is the longest wait that is worth it: who is told to come back
// later than that is told so.
const patience = 10 * time.Second

// again waits if the call may be sent once more.
func (c *Client) again(ctx context.Context, k call, err error, try int) bool {
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusUnauthorized && e.Code == "token_expired" && try <= c.Retries {
		return c.refresh(ctx)
	}
	if k.once || try >= c.Retries || !errors.As(err, &e) || ctx.Err() != nil {
		return false
	}
	safe := k.method == http.MethodGet || k.method == http.MethodDelete || k.method == http.MethodPut || k.creates
	if !safe || e.Status != 0 && e.Status != http.StatusServiceUnavailable {
		return false
	}
	if e.RetryAfter > patience {
		return false
	}
	// Half of the pause is chance, so that clients which failed together do not
	// come back together.
	wait := min(200*time.Millisecond<<min(try, 8), patience) / 2
	wait += mathrand.N(wait)
	return c.Wait(ctx, max(wait, e.RetryAfter)) == nil
}

// token is the credential at this moment.
func (c *Client) token() string {
	if t := c.fresh.Load(); t != nil {
		return *t
	}
	return c.Token
}

// refresh takes the place of a token that has expired, if anything can.
func (c *Client) refresh(ctx context.Context) bool {
	if c.Refresh == nil {
		return false
	}
	next, err := c.Refresh(ctx, c.token())
	if err != nil || next == "" {
		return false // the refusal of the old one says what there is to say
	}
	c.fresh.Store(&next)
	return true
}

func (c *Client) send(ctx context.Context, k call, body io.Reader, isJSON bool, key string) (*http.Response, error) {
	u := c.BaseURL + k.path
	if len(k.query) > 0 {
		u += "?" + k.query.Encode()
	}
	if !isJSON && k.header.Get("Content-Type") == "" {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u, body)
	if err != nil {
		return nil, fmt.Errorf("building the request: %w", err)
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	if isJSON {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", c.Agent)
	if t := c.token(); t != "" {
		req.Header.Set("Authorization", "Bearer "+t)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if c.Answered != nil {
		c.Answered(resp.Header)
	}
	if resp.StatusCode >= 300 {
		defer func() { _ = resp.Body.Close() }()
		return nil, refusal(resp)
	}
	return resp, nil
}

func (c *Client) unreachable(err error) error {
	if e, ok := errors.AsType[*sourceError](err); ok {
		return e.err // our own file, not the server
	}
	cause := err
	if e, ok := errors.AsType[*url.Error](err); ok {
		cause = e.Err
	}
	p := Problem{
		Code: "unreachable", Detail: fmt.Sprintf("The server %s does not answer: %v.", c.shown, cause),
		Fix: "Check --url or GRADEGATE_URL, and whether the server runs: gradegate serve",
	}
	if socket, ok := strings.CutPrefix(c.shown, "unix://"); ok {
		p.Fix = "Start the server if it does not run: gradegate serve --data " + filepath.Dir(socket)
	}
	return &Error{Cause: err, Problem: p}
}

// refusal reads a problem document; a proxy's own page gives its status only.
func refusal(resp *http.Response) error {
	e := &Error{Problem: Problem{Status: resp.StatusCode, Code: "http_" + strconv.Itoa(resp.StatusCode), RequestID: resp.Header.Get("X-Request-Id")}}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	_ = json.Unmarshal(data, &e.Problem) // what does not fit stays empty
	_ = json.Unmarshal(data, &e.More)    // the same document once more, whole
	e.Status = resp.StatusCode           // what a body says of it is hearsay
	if e.Detail == "" {
		e.Detail = "The server answered " + resp.Status + "."
	}
	if e.Status < 400 {
		e.Detail = "The server answers with a redirect, which is not followed: a token belongs to one address."
		e.Fix = "Give the final address with --url; it probably begins with https://"
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s >= 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// mostAnswer bounds what a server may make its client keep in memory.
const mostAnswer = 64 << 20

// decode reads the whole answer first: one that was cut off is a lost answer
// and may be asked for again, one that is no JSON is not.
func (c *Client) decode(resp *http.Response, out any) error {
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	if err != nil {
		return c.unreachable(err)
	}
	if len(data) > mostAnswer {
		return fmt.Errorf("the server's answer is larger than %d MiB", mostAnswer>>20)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	return nil
}

// stream sends a call and hands the open answer over.
func (c *Client) stream(ctx context.Context, k call) (io.ReadCloser, error) {
	for try := 0; ; try++ {
		resp, err := c.send(ctx, k, nil, false, "")
		if err == nil {
			return resp.Body, nil
		}
		if !c.again(ctx, k, err, try) {
			return nil, err
		}
	}
}
