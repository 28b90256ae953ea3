package httpapi

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/job"
	"gradegate/internal/maintenance"
	"gradegate/internal/token"
)

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// pathOf fills a pattern in with something that may exist.
func pathOf(r route, id string) string { return wildcard.ReplaceAllString(r.path, id) }

func methodOf(r route) string {
	if r.method == "" {
		return get
	}
	return r.method
}

// TestNoCredential: every route of the table asks for one, save those that say
// that they are open (A15, A43).
func TestNoCredential(t *testing.T) {
	w := build(t)
	for _, r := range table() {
		if r.has(open) || r.has(inForm) { // for the latter see TestOAuth
			continue
		}
		for _, method := range []string{methodOf(r), http.MethodHead} {
			if method == http.MethodHead && methodOf(r) != get {
				continue
			}
			a := w.ask(t, method, pathOf(r, "x"), token.Secret{}, "")
			if a.status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `Bearer realm="gradegate"`) || strings.Contains(a.header.Get("WWW-Authenticate"), "error=") || a.header.Get("X-Request-Id") == "" {
				t.Errorf("%s %s: %d %v", method, r.path, a.status, a.header)
			}
			if method != http.MethodHead && r.path != "/authz/nginx" && (a.code() != "token_missing" || a.header.Get("Content-Type") != problemType) {
				t.Errorf("%s %s: %s", method, r.path, a.body)
			}
		}
	}
	lines, _, refused := w.trail.take()
	if len(lines) > 0 || len(refused) == 0 || refused[0].Reason != "token_missing" {
		t.Errorf("lines %v, refused %v", lines, refused[:min(1, len(refused))])
	}
}

// TestInventory: the table, the document and the mux know the same routes (API9).
func TestInventory(t *testing.T) {
	w := build(t)
	ids := map[string]bool{}
	for _, r := range table() {
		if ids[r.id] || r.summary == "" {
			t.Errorf("%s: id %q twice, or no summary", r.path, r.id)
		}
		ids[r.id] = true
		item := w.api.spec.Paths[strings.Replace(r.path, "...}", "}", 1)]
		if item == nil {
			t.Errorf("%s is not in the document", r.path)
			continue
		}
		op := map[string]any{get: item.Get, post: item.Post, put: item.Put, patch: item.Patch, del: item.Delete}[methodOf(r)]
		if op == nil {
			t.Errorf("%s %s is not in the document", r.method, r.path)
		}
		if r.has(changes) && r.class == Reading || r.has(changes) && r.method == get {
			t.Errorf("%s changes something with a reading route", r.path)
		}
		if r.has(creates) && !strings.Contains(string(w.api.text), "Idempotency-Key") {
			t.Error("no Idempotency-Key in the document")
		}
	}
}

// TestRoles: administrators' routes are closed to users and auditors may read
// only; foreign ids are 404 for whoever may not know of them (A15).
func TestRoles(t *testing.T) {
	w := build(t)
	w.archive.rows = []maintenance.Archived{{Token: token.Token{ID: "bob"}}}
	for _, r := range table() {
		if !r.has(admins) || r.id == "metrics" {
			continue
		}
		body := map[string]string{"createUser": `{"name":"new"}`, "dryRunPolicy": `{"rules":{}}`}[r.id]
		a := w.ask(t, methodOf(r), pathOf(r, "bob"), w.ann, body)
		if a.status != 403 || a.code() != "denied" {
			t.Errorf("user %s: %d %s", r.id, a.status, a.body)
		}
		a = w.ask(t, methodOf(r), pathOf(r, "bob"), w.eve, body)
		if reads := r.method == get || r.id == "dryRunPolicy"; reads == (a.status == 403) {
			t.Errorf("auditor %s: %d %s", r.id, a.status, a.body)
		}
	}
	lines, _, _ := w.trail.take()
	for _, l := range lines {
		if l.Outcome == audit.Deny && (l.Status != 403 || l.Reason == "" || l.Actor == "") {
			t.Errorf("%+v", l)
		}
	}
}

// TestForeign: somebody else's token or job looks like one that does not exist.
func TestForeign(t *testing.T) {
	w := build(t)
	foreign := string(w.annToken.ID)
	id := string(w.job("ann", job.Running))
	for _, c := range []struct{ method, path string }{
		{get, "/v1/tokens/%"}, {del, "/v1/tokens/%"}, {post, "/v1/tokens/%/rotate"}, {post, "/v1/tokens/%/suspend"}, {post, "/v1/tokens/%/resume"},
		{get, "/v1/jobs/%"}, {post, "/v1/jobs/%/cancel"}, {get, "/v1/jobs/%/result"}, {get, "/v1/jobs/%/logs"},
	} {
		there, missing := foreign, "tok_aaaaaaaaaaaa"
		if strings.HasPrefix(c.path, "/v1/jobs") {
			there, missing = id, "job_00000000000000000000000000"
		}
		a := w.ask(t, c.method, strings.Replace(c.path, "%", there, 1), w.bob, "")
		b := w.ask(t, c.method, strings.Replace(c.path, "%", missing, 1), w.bob, "")
		if a.status != 404 || b.status != 404 {
			t.Errorf("%s %s: %d and %d", c.method, c.path, a.status, b.status)
		}
		delete(a.json, "request_id")
		delete(b.json, "request_id")
		if a.json["code"] != b.json["code"] || a.json["detail"] != b.json["detail"] {
			t.Errorf("%s %s tells them apart: %v and %v", c.method, c.path, a.json, b.json)
		}
	}
	if s := w.tokens.tokens[w.annToken.ID]; s.Standing != token.Standard {
		t.Error("bob reached ann's token")
	}
}

// TestMethods: 405 with what is allowed, 404 for nothing, never a redirect (A43).
func TestMethods(t *testing.T) {
	w := build(t)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"POST", "/v1/whoami", 405, "GET, HEAD"}, {"PUT", "/v1/tokens/x", 405, "GET, HEAD, PATCH, DELETE"}, {"GET", "/v1/leaks", 405, "POST"},
		{"OPTIONS", "/v1/whoami", 405, "GET, HEAD"}, {"BREW", "/v1/whoami", 405, "GET, HEAD"}, {"TRACE", "/v1/whoami", 405, ""},
		{"TRACE", "/authz/nginx", 405, ""}, {"GET", "/v1/tokens/revoke-all", 404, ""},
		{"GET", "/v1/token", 404, ""}, {"GET", "/", 404, ""}, {"GET", "/v1/whoami/", 404, ""}, {"GET", "/V1/whoami", 404, ""}, {"GET", "/metrics", 404, ""},
	} {
		a := w.ask(t, c.method, c.path, w.ann, "")
		if c.path == "/authz/nginx" {
			c.status, c.allow = 403, ""
		}
		if a.status != c.status || a.header.Get("Allow") != c.allow || c.status != 403 && a.header.Get("Content-Type") != problemType {
			t.Errorf("%s %s: %d, Allow %q, %s", c.method, c.path, a.status, a.header.Get("Allow"), a.body)
		}
	}
	// A header that asks for another method is nobody's business.
	if a := w.ask(t, get, "/v1/tokens/self", w.ann, "", "X-HTTP-Method-Override", "DELETE"); a.status != 200 || w.tokens.tokens[w.annToken.ID].Standing == token.Revoked {
		t.Error("a method was overridden")
	}
}

// TestPaths: a path has one form (A44).
func TestPaths(t *testing.T) {
	w := build(t)
	for _, p := range []string{
		"//v1/whoami", "/v1//whoami", "/v1/./whoami", "/v1/../v1/whoami", "/v1/whoami/..", "/v1/whoami/.", "/v1/%2e/whoami", "/v1/%2E%2e/v1/whoami",
		"/v1%2fwhoami", "/v1/whoami;a=b", "/v1;/whoami", "/v1/whoami%3b", "/v1\\whoami", "/v1/%5cwhoami", "/v1/whoami%00", "/v1/%77hoami",
		"/v1/tokens/a%2Fb", "/%61uthz/nginx", "/v1/whoami%0a", "/v1/competitions/iris/files/../x", "/.", "/..",
	} {
		r, err := http.NewRequestWithContext(t.Context(), get, w.public.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Opaque = strings.TrimPrefix(w.public.URL, "http:") + p
		r.Header.Set("Authorization", "Bearer "+w.ann.Reveal())
		if a := send(t, r); a.status != 400 || a.code() != "path_not_canonical" {
			t.Errorf("%s: %d %s", p, a.status, a.body)
		}
	}
	for _, p := range []string{"/v1/tokens/my%20laptop", "/v1/tokens/a:b@c", "/v1/tokens/%C3%A9"} {
		if a := w.ask(t, get, p, w.ann, ""); a.status != 404 || a.code() != "token_not_found" {
			t.Errorf("%s: %d %s", p, a.status, a.body)
		}
	}
}

// TestListeners: what belongs to administrators is not on the public listener
// when they have their own (R6.6).
func TestListeners(t *testing.T) {
	w := build(t, func(d *Deps) { d.SeparateAdmin = true })
	admin := w.serve(t, w.api.Admin())
	for _, path := range []string{"/v1/users", "/v1/audit/checkpoint", "/metrics"} {
		if a := w.ask(t, get, path, w.root, ""); a.status != 404 || a.code() != "route_not_found" {
			t.Errorf("public %s: %d", path, a.status)
		}
		if a := w.askAt(t, admin.URL, get, path, w.root, ""); a.status != 200 {
			t.Errorf("admin %s: %d %s", path, a.status, a.body)
		}
	}
}

// TestTableNames: a class for every route, and names for every class.
func TestTableNames(t *testing.T) {
	if slices.Contains(classNames[:], "") {
		t.Error("a class has no name")
	}
}
