package httpapi

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// B14: a service through the API: its owners make and handle its tokens, a week
// without owners quarantines them, and every answer on the way says so.
func TestServices(t *testing.T) {
	w := build(t)
	carol, _ := w.person("carol")
	made := w.ask(t, post, "/v1/services", w.root, `{"name":"ci","owners":["ann","bob"]}`, "Idempotency-Key", "k")
	if made.status != 201 || !strings.Contains(made.body, `"active_owners":2`) || strings.Contains(made.body, "warning") {
		t.Fatalf("%d %s", made.status, made.body)
	}
	if again := w.ask(t, post, "/v1/services", w.root, `{"name":"ci","owners":["ann","bob"]}`, "Idempotency-Key", "k"); again.status != 201 || again.json["id"] != made.json["id"] {
		t.Errorf("the same request: %d %s", again.status, again.body)
	}
	for _, c := range []struct {
		method, path string
		by           token.Secret
		body         string
		status       int
		code         string
	}{
		{post, "/v1/services", w.ann, `{"name":"x","owners":["ann","bob"]}`, 403, "denied"},
		{post, "/v1/services", w.root, `{"name":"x","owners":["ann"]}`, 409, "owners_too_few"},
		{get, "/v1/services/ci", w.ann, "", 200, ""}, {get, "/v1/services/ci", w.eve, "", 200, ""}, {get, "/v1/services/ci", carol, "", 404, "service_not_found"},
		{get, "/v1/services/none", carol, "", 404, "service_not_found"}, {get, "/v1/services/ann", w.root, "", 404, "service_not_found"},
		{patch, "/v1/services/ci", carol, `{"add_owners":["carol"]}`, 404, "service_not_found"},
		{patch, "/v1/services/ci", w.eve, `{"add_owners":["carol"]}`, 404, "service_not_found"},
		{patch, "/v1/services/ci", w.ann, `{"remove_owners":["bob"]}`, 409, "owners_too_few"},
		{patch, "/v1/services/ci", w.ann, `{"remove_owners":["carol"]}`, 404, "owner_not_found"},
		{post, "/v1/services/ci/tokens", w.root, `{"name":"runner"}`, 403, "not_an_owner"},
		{post, "/v1/services/ci/tokens", carol, `{"name":"runner"}`, 404, "service_not_found"},
		{get, "/v1/services/ci/tokens", carol, "", 404, "service_not_found"},
		{post, "/v1/users/ci/invite", w.root, "", 400, "service_invite"},
	} {
		if a := w.ask(t, c.method, c.path, c.by, c.body); a.status != c.status || c.code != "" && a.code() != c.code {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.status, a.body)
		}
	}
	if a := w.ask(t, patch, "/v1/services/ci", w.ann, `{"add_owners":["carol"]}`, "If-Match", `"7"`); a.code() != "etag_mismatch" {
		t.Errorf("an old ETag: %d %s", a.status, a.body)
	}
	a := w.ask(t, post, "/v1/services/ci/tokens", w.ann, `{"name":"runner"}`)
	secret, err := token.ReadSecret(a.json["secret"].(string))
	if err != nil || a.status != 201 || !strings.HasPrefix(secret.Reveal(), "ggsvc_") {
		t.Fatalf("%d %v", a.status, err)
	}
	id := "/v1/tokens/" + string(secret.Presented().Public.ID())
	if a := w.ask(t, get, id, w.bob, ""); a.status != 200 || !strings.Contains(a.body, `"kind":"svc"`) || strings.Contains(a.body, "ggsvc_") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, id, carol, ""); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, id, w.root, ""); a.status != 200 || strings.Contains(a.body, secret.Reveal()[20:]) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, id+"/rotate", w.root, ""); a.status != 404 {
		t.Errorf("an administrator rotates: %d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/services", carol, ""); a.status != 200 || strings.Contains(a.body, "ci") {
		t.Errorf("%d %s", a.status, a.body)
	}

	// The owners go.
	if a := w.ask(t, post, "/v1/users/bob/offboard", w.root, ""); a.status != 200 || !strings.Contains(a.body, `"strands":[{`) || !strings.Contains(a.body, "Only one active owner is left") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", secret, ""); !strings.Contains(a.body, `"code":"service_owners"`) || !strings.Contains(a.body, `"mode":"normal"`) {
		t.Errorf("%s", a.body)
	}
	at := w.clock.Now().Add(principal.OwnerlessFor)
	if a := w.ask(t, post, "/v1/users/ann/suspend", w.root, ""); !strings.Contains(a.body, `"quarantine_at":"`+at.Format(time.RFC3339)) {
		t.Errorf("%s", a.body)
	}
	if a := w.ask(t, get, "/v1/services", w.root, ""); !strings.Contains(a.body, `"ownerless_since":"`) || !strings.Contains(a.body, "quarantined from") {
		t.Errorf("%s", a.body)
	}
	w.clock.Add(principal.OwnerlessFor)
	if a := w.ask(t, get, "/v1/quota?competition=iris", secret, ""); a.status != 403 || a.code() != "service_ownerless" || !strings.Contains(a.body, "gradegate service owners ci --add NAME") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", secret, ""); a.status != 200 || !strings.Contains(a.body, `"mode":"quarantined"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, id, w.root, ""); !strings.Contains(a.body, `"state":"quarantined"`) || !strings.Contains(a.body, `"reason":"service_ownerless"`) {
		t.Errorf("%s", a.body)
	}
	w.ask(t, post, "/v1/users/ann/resume", w.root, "")
	if a := w.ask(t, get, "/v1/quota?competition=iris", secret, ""); a.status != 200 {
		t.Errorf("ann is back: %d %s", a.status, a.body)
	}
}

// R3.5, B12: a consent through the API, and what a job says of who handed it in:
// the verified beside the claimed.
func TestConsents(t *testing.T) {
	w := build(t)
	const path = "/v1/competitions/iris/jobs"
	submit := func(s token.Secret, fields ...string) answer {
		t.Helper()
		kind, body := upload(t, "bundle", "main.py", "print('hello')\n", fields...)
		return w.post(t, post, path, s, kind, body)
	}
	if a := submit(w.ann, "on_behalf_of", "bob"); a.status != 403 || a.code() != "consent_missing" || !strings.Contains(a.body, "gradegate consent give ann --competition iris") {
		t.Errorf("%d %s", a.status, a.body)
	}
	refused := submit(w.ann, "on_behalf_of", "bob").header.Get("X-Request-Id")
	if a := w.ask(t, get, "/v1/explain/"+refused, w.ann, ""); a.check("right") != "failed" || !strings.Contains(a.body, "had given no consent that held at that moment") ||
		!strings.Contains(a.body, "gradegate consent give ann --competition iris") || strings.Contains(a.body, "bob") {
		t.Errorf("why: %d %s", a.status, a.body)
	}
	if a := submit(w.ann, "on_behalf_of", "ann"); a.status != 400 || a.code() != "on_behalf_of_self" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{`{"to":"bob"}`, 400, "consent_self"}, {`{"to":"nobody"}`, 404, "user_not_found"}, {`{"to":"ann","expires_in":"91d"}`, 400, "consent_span"},
		{`{"to":"ann","expires_in":"soon"}`, 400, "duration_invalid"}, {`{"to":"ann","expires_in":"7d","competitions":["iris"]}`, 201, ""},
	} {
		if a := w.ask(t, post, "/v1/consents", w.bob, c.body); a.status != c.status || c.code != "" && a.code() != c.code {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	a := w.ask(t, get, "/v1/consents", w.bob, "")
	id := a.json["items"].([]any)[0].(map[string]any)["id"].(string)
	for name, s := range map[string]token.Secret{"taker": w.ann, "auditor": w.eve} {
		p := "/v1/consents"
		if name == "auditor" {
			p += "?user=bob"
		}
		if a := w.ask(t, get, p, s, ""); a.status != 200 || !strings.Contains(a.body, id) || !strings.Contains(a.body, `"state":"active"`) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/v1/consents?user=usr_bob", w.ann, ""); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = submit(w.ann, "on_behalf_of", "bob", "submitted_by", "somebody")
	if a.status != 202 || !strings.Contains(a.body, `"user_id":"usr_bob"`) || !strings.Contains(a.body, `"submitted_by_user":"usr_ann"`) ||
		!strings.Contains(a.body, `"act":{"sub":"usr_ann","name":"ann","consent":"`+id+`"}`) || !strings.Contains(a.body, `"submitted_by":"somebody"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	job := a.json["job"].(map[string]any)["id"].(string)
	for _, s := range []token.Secret{w.ann, w.bob} {
		if a := w.ask(t, get, "/v1/jobs/"+job, s, ""); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/v1/jobs?for_others=true", w.ann, ""); !strings.Contains(a.body, job) || !strings.Contains(a.body, `"on_behalf_of":"bob"`) {
		t.Errorf("%s", a.body)
	}
	own := submit(w.ann)
	if own.status != 202 || !strings.Contains(own.body, `"submitted_by_user":"usr_ann"`) || strings.Contains(own.body, `"act"`) {
		t.Errorf("%d %s", own.status, own.body)
	}
	if a := w.ask(t, http.MethodDelete, "/v1/consents/"+id, w.ann, ""); a.status != 404 || a.code() != "consent_not_found" {
		t.Errorf("the taker withdraws it: %d %s", a.status, a.body)
	}
	if a := w.ask(t, http.MethodDelete, "/v1/consents/"+id, w.bob, ""); a.status != 200 || !strings.Contains(a.body, `"state":"withdrawn"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := submit(w.ann, "on_behalf_of", "bob"); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/jobs/"+job+"/cancel", w.ann, ""); a.status != 200 {
		t.Errorf("she cancels what she handed in: %d %s", a.status, a.body)
	}
}

func (s *tokenStore) Consents(_ context.Context, who principal.ID) (out []principal.Consent, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.given {
		if c.Giver == who || c.Taker == who {
			out = append(out, c)
		}
	}
	return out, s.dead
}
