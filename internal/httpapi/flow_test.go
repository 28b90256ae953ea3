package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

func secretOf(t testing.TB, a answer, member string) token.Secret {
	t.Helper()
	text, _ := a.json[member].(string)
	s, err := token.ReadSecret(text)
	if err != nil {
		t.Fatalf("%d %s: no %s", a.status, a.body, member)
	}
	return s
}

// TestLifeOfAToken: make, use, rotate with a lost answer, revoke itself.
func TestLifeOfAToken(t *testing.T) {
	w := build(t)
	boss := w.give("bob", func(k *token.Token) { k.Kind, k.Name = token.Personal, "old" }, "tokens:self", "jobs:read")
	if a := w.ask(t, post, "/v1/tokens", boss, `{"name":"new"}`); a.status != 409 || a.code() != "token_limit" || a.json["choices"] == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	body := `{"name":"new","scopes":["jobs:read","tokens:self"],"expires_in":"30d","allowed_cidrs":["::ffff:127.0.0.1","127.0.0.0/8"],"replace":"old"}`
	w.trail.take()
	w.tokens.tokens = map[token.ID]token.Token{boss.Presented().Public.ID(): w.tokens.tokens[boss.Presented().Public.ID()]}
	a := w.ask(t, post, "/v1/tokens", boss, body, "Idempotency-Key", "k1")
	if a.status != 201 || !strings.Contains(a.body, `"127.0.0.1/32","127.0.0.0/8"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s := secretOf(t, a, "secret")
	lines, durable, _ := w.trail.take()
	if len(lines) != 1 || !durable[0] || lines[0].Status != 0 || lines[0].Outcome != audit.Allow {
		t.Errorf("%+v %v", lines, durable)
	}
	if a := w.ask(t, get, "/v1/whoami", s, ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	// The answer to a rotation was lost: the same key gives the same secret again.
	first := w.ask(t, post, "/v1/tokens/self/rotate", s, `{"grace":"1h"}`, "Idempotency-Key", "k2")
	again := w.ask(t, post, "/v1/tokens/self/rotate", s, `{"grace":"1h"}`, "Idempotency-Key", "k2")
	if first.status != 201 || again.json["replayed"] != true || first.json["secret"] != again.json["secret"] || first.json["predecessor"] == nil {
		t.Errorf("%d %s\n%d %s", first.status, first.body, again.status, again.body)
	}
	if a := w.ask(t, post, "/v1/tokens/self/rotate", s, `{"grace":"2h"}`, "Idempotency-Key", "k2"); a.status != 422 || a.code() != "idempotency_key_reused" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/tokens/self/rotate", s, ""); a.status != 409 || a.code() != "already_rotated" || a.json["successor"] == nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	next := secretOf(t, first, "secret")
	if a := w.ask(t, del, "/v1/tokens/self?jobs=cancel", next, `{"reason":"done"}`); a.status != 200 || a.json["token"].(map[string]any)["state"] != "revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", next, ""); a.status != 401 || a.code() != "token_revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPeople: invite, redeem once, off-board.
func TestPeople(t *testing.T) {
	w := build(t)
	a := w.ask(t, post, "/v1/users/carol/invite", w.root, `{"email":"carol@example.org"}`)
	if a.status != 201 || !strings.HasPrefix(a.json["code"].(string), "gginv_") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	code := secretOf(t, a, "code")
	redeem := fmt.Sprintf(`{"code":%q,"name":"laptop"}`, code.Reveal())
	a = w.ask(t, post, "/v1/invites/redeem", token.Secret{}, redeem, "Idempotency-Key", "k")
	if a.status != 201 || a.json["user"].(map[string]any)["name"] != "carol" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	session := secretOf(t, a, "secret")
	if b := w.ask(t, post, "/v1/invites/redeem", token.Secret{}, redeem, "Idempotency-Key", "k"); b.json["secret"] != a.json["secret"] {
		t.Errorf("a lost answer locks out: %d %s", b.status, b.body)
	}
	w.trail.take()
	for _, bad := range []string{redeem, `{"code":"gginv_short"}`} {
		a := w.ask(t, post, "/v1/invites/redeem", token.Secret{}, bad)
		if a.status != 401 || strings.Contains(a.body, "gginv_short") || strings.Contains(a.body, code.Reveal()) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if _, _, refused := w.trail.take(); len(refused) != 2 || refused[0].Reason != "invite_invalid" {
		t.Errorf("%+v", refused)
	}
	if a := w.ask(t, get, "/v1/users/carol/tokens?limit=1", w.root, ""); a.status != 200 || len(a.json["items"].([]any)) != 1 || a.json["next_cursor"] == nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/users/carol/offboard", w.root, `{"jobs":"cancel"}`); a.status != 200 || a.json["status"] != "deprovisioned" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", session, ""); a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
	names := []string{}
	cursor := ""
	for {
		a := w.ask(t, get, "/v1/users?limit=2&cursor="+cursor, w.root, "")
		for _, u := range a.json["items"].([]any) {
			names = append(names, u.(map[string]any)["name"].(string))
		}
		if cursor, _ = a.json["next_cursor"].(string); cursor == "" {
			break
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"ann", "bob", "carol", "eve", "root"}) {
		t.Errorf("%v", names)
	}
}

// TestRedeemBudget: guessing codes spends the address's budget, and the right
// code still works.
func TestRedeemBudget(t *testing.T) {
	rates := DefaultRates()
	rates[Enrolling].Events, rates[Enrolling].Burst = 10_000, 10_000
	w := build(t, func(d *Deps) { d.Limits = NewLimits(rates, 100) })
	code := secretOf(t, w.ask(t, post, "/v1/users/carol/invite", w.root, ""), "code")
	last := answer{}
	for range 101 {
		last = w.ask(t, post, "/v1/invites/redeem", token.Secret{}, fmt.Sprintf(`{"code":%q}`, token.NewSecret(token.Invite).Reveal()))
	}
	if last.status != 429 {
		t.Errorf("%d %s", last.status, last.body)
	}
	if a := w.ask(t, post, "/v1/invites/redeem", token.Secret{}, fmt.Sprintf(`{"code":%q}`, code.Reveal())); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestLeaks: possession is the proof, and the answer tells nothing (R2.7).
func TestLeaks(t *testing.T) {
	w := build(t)
	real := w.ask(t, post, "/v1/leaks", token.Secret{}, fmt.Sprintf(`{"tokens":[%q]}`, w.ann.Reveal()))
	fake := w.ask(t, post, "/v1/leaks", token.Secret{}, fmt.Sprintf(`{"tokens":[%q]}`, token.NewSecret(token.Personal).Reveal()))
	if real.status != 202 || real.body != fake.body {
		t.Errorf("%d %s %s", real.status, real.body, fake.body)
	}
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.code() != "token_revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	many := `{"tokens":[` + strings.TrimSuffix(strings.Repeat(`"x",`, 1001), ",") + `]}`
	if a := w.ask(t, post, "/v1/leaks", token.Secret{}, many); a.status != 400 || a.code() != "leaks_out_of_range" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/leaks", token.Secret{}, strings.Replace(many, `"x",`, "", 1)); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for range 60 {
		real = w.ask(t, post, "/v1/leaks", token.Secret{}, `{"tokens":["x"]}`)
	}
	if real.status != 429 {
		t.Errorf("%d", real.status)
	}
}

func TestVerify(t *testing.T) {
	w := build(t)
	service := w.give("root", nil, "tokens:verify")
	for _, c := range []struct {
		body   string
		status int
		reason string
	}{
		{fmt.Sprintf(`{"token":%q}`, w.ann.Reveal()), 200, "ok"},
		{fmt.Sprintf(`{"token":%q,"action":"jobs:submit","competition":"iris","ip":"192.0.2.7"}`, w.ann.Reveal()), 200, "ok"},
		{fmt.Sprintf(`{"token":%q,"action":"job.submit"}`, w.ann.Reveal()), 200, "ok"},
		{fmt.Sprintf(`{"token":%q,"action":"admin:*"}`, w.ann.Reveal()), 200, "scope_missing"},
		{fmt.Sprintf(`{"token":%q}`, token.NewSecret(token.Personal).Reveal()), 200, "token_unknown"},
		{`{"token":"junk"}`, 200, "token_malformed"},
		{`{"token":"junk","action":"fly"}`, 400, ""}, {`{"token":"junk","ip":"10.1"}`, 400, ""}, {`{}`, 400, ""},
	} {
		a := w.ask(t, post, "/v1/verify", service, c.body)
		if reason, _ := a.json["reason"].(string); a.status != c.status || reason != c.reason || (reason == "ok") != (a.json["active"] == true) {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	if u := w.table.LastUse(w.annToken.ID); u.Count != 3 {
		t.Errorf("uses: %d", u.Count)
	}
	lines, _, _ := w.trail.take()
	mine := 0
	for _, l := range lines {
		if l.Actor == "usr_ann" && l.Detail["for"] == "usr_root" {
			mine++
		}
	}
	if mine != 4 {
		t.Errorf("%d lines about ann's token", mine)
	}
	if a := w.ask(t, post, "/v1/verify", w.ann, `{"token":"junk"}`); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// upload makes a multipart body of fields, in order, and a file.
func upload(t testing.TB, fileField, name, content string, fields ...string) (string, io.Reader) {
	t.Helper()
	var b bytes.Buffer
	f := multipart.NewWriter(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		if err := f.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if fileField != "" {
		p, err := f.CreateFormFile(fileField, name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(p, content)
	}
	_ = f.Close()
	return f.FormDataContentType(), &b
}

func (w *world) post(t testing.TB, method, path string, s token.Secret, kind string, body io.Reader, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.public.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Authorization", "Bearer "+s.Reveal())
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return send(t, r)
}

func TestSubmit(t *testing.T) {
	w := build(t)
	const path, program = "/v1/competitions/iris/jobs", "print('hello')\n"
	fields := []string{"submitted_by", "Ann's CI", "label", "run=baseline", "labels", `{"seed":"7"}`}
	kind, body := upload(t, "bundle", "main.py", program, fields...)
	a := w.post(t, post, path, w.ann, kind, body, "Idempotency-Key", "k1")
	if a.status != 202 || a.header.Get("Location") == "" || !strings.Contains(a.body, `"labels":{"run":"baseline","seed":"7"}`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	handle := secretOf(t, a, "handle")
	kind, body = upload(t, "bundle", "main.py", program, fields...)
	if b := w.post(t, post, path, w.ann, kind, body, "Idempotency-Key", "k1"); b.json["replayed"] != true || b.json["handle"] != a.json["handle"] {
		t.Errorf("%d %s", b.status, b.body)
	}
	id := a.json["job"].(map[string]any)["id"].(string)
	if a := w.ask(t, get, "/v1/jobs/"+id, handle, ""); a.status != 200 || a.json["submission"].(map[string]any)["entry"] != "main.py" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/jobs", handle, ""); a.status != 403 {
		t.Errorf("a handle lists: %d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/jobs/"+id+"/cancel", handle, ""); a.status != 200 || a.json["job"].(map[string]any)["state"] != "canceled" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/jobs/"+id+"/cancel", w.ann, ""); a.json["already"] != "canceled" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for name, c := range map[string]struct {
		fields []string
		file   string
		status int
		code   string
	}{
		"no file":       {nil, "", 400, "bundle_missing"},
		"other file":    {nil, "file", 400, "field_unknown"},
		"unknown field": {[]string{"submited_by", "x"}, "bundle", 400, "field_unknown"},
		"twice":         {[]string{"entry", "a", "entry", "b"}, "bundle", 400, "field_twice"},
		"label":         {[]string{"label", "x"}, "bundle", 400, "labels_invalid"},
		"labels":        {[]string{"labels", `{"a":{}}`}, "bundle", 400, "labels_invalid"},
		"large field":   {[]string{"entry", strings.Repeat("x", 70<<10)}, "bundle", 413, "field_too_large"},
	} {
		kind, body := upload(t, c.file, "main.py", program, c.fields...)
		if a := w.post(t, post, path, w.ann, kind, body); a.status != c.status || a.code() != c.code {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	var late bytes.Buffer
	f := multipart.NewWriter(&late)
	p, _ := f.CreateFormFile("bundle", "main.py")
	_, _ = io.WriteString(p, program)
	_ = f.WriteField("submitted_by", "too late")
	_ = f.Close()
	if a := w.post(t, post, path, w.ann, f.FormDataContentType(), &late); a.status != 400 || a.code() != "form_order" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, path, w.ann, `{}`); a.status != 415 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := len(w.jobs.jobs); n != 1 {
		t.Errorf("%d jobs", n)
	}
}

func TestCompetition(t *testing.T) {
	w := build(t)
	spec := `{"title":"Iris 2","metrics":["accuracy"],"files":[],"resources":{"memory":"1GiB","time_limit":"2m"},"quota":{"per_day":3}}`
	kind, body := upload(t, "", "", "", "spec", spec)
	a := w.post(t, put, "/v1/competitions/iris", w.root, kind, body, "If-Match", `"1"`)
	if a.status != 200 || a.json["title"] != "Iris 2" || a.header.Get("ETag") != `"2"` || a.json["open"] != true {
		t.Fatalf("%d %s", a.status, a.body)
	}
	kind, body = upload(t, "", "", "", "spec", spec)
	if a := w.post(t, put, "/v1/competitions/iris", w.root, kind, body, "If-Match", `"1"`); a.status != 412 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for text, code := range map[string]string{
		`{"titel":"x"}`: "request_invalid", `{"name":"other"}`: "name_differs", `{"resources":{"memory":"lots"}}`: "size_invalid",
		`{"metrics":["accuracy"],"metrics":[]}`: "json_duplicate_key", ``: "json_malformed", `{"metrics":["zzz"]}`: "metric_unknown",
	} {
		kind, body := upload(t, "", "", "", "spec", text)
		if a := w.post(t, put, "/v1/competitions/iris", w.root, kind, body); a.status != 400 || a.code() != code {
			t.Errorf("%s: %d %s", text, a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/v1/competitions/iris/files/secret.csv", w.ann, ""); a.status != 404 || a.code() != "file_not_found" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for file, text := range map[string]string{"train.csv": "id,label\n", "more/notes.txt": "hello"} {
		if a := w.ask(t, get, "/v1/competitions/iris/files/"+file, w.ann, ""); a.status != 200 || a.body != text || a.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/v1/quota?competition=iris", w.ann, ""); a.status != 200 || a.json["submissions"].(map[string]any)["limit"] != 3.0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/competitions/iris/leaderboard", w.ann, ""); a.status != 200 || a.json["metric"] != "accuracy" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestJobScores: the grade needs its own scope.
func TestJobScores(t *testing.T) {
	w := build(t)
	id := string(w.job("ann", job.Succeeded))
	if a := w.ask(t, get, "/v1/jobs/"+id, w.ann, ""); a.json["scores"] == nil {
		t.Errorf("%s", a.body)
	}
	reader := w.give("ann", nil, "jobs:read")
	if a := w.ask(t, get, "/v1/jobs/"+id, reader, ""); a.status != 200 || a.json["scores"] != nil {
		t.Errorf("%s", a.body)
	}
	if a := w.ask(t, get, "/v1/jobs/"+id+"/result", reader, ""); a.status != 403 || a.code() != "scope_missing" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/jobs/"+id+"/result", w.ann, ""); a.status != 200 || a.json["scores"].(map[string]any)["accuracy"] != 0.5 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for range 4 {
		w.clock.Add(time.Second)
		w.job("ann", job.Queued)
	}
	a := w.ask(t, get, "/v1/jobs?limit=3", w.ann, "")
	b := w.ask(t, get, "/v1/jobs?limit=3&cursor="+a.json["next_cursor"].(string), w.ann, "")
	if len(a.json["items"].([]any)) != 3 || len(b.json["items"].([]any)) != 2 || b.json["next_cursor"] != nil {
		t.Errorf("%s\n%s", a.body, b.body)
	}
	if a := w.ask(t, get, "/v1/jobs?user=*", w.ann, ""); a.status != 403 {
		t.Errorf("%d", a.status)
	}
	if a := w.ask(t, get, "/v1/jobs?user=ann", w.root, ""); len(a.json["items"].([]any)) != 5 {
		t.Errorf("%s", a.body)
	}
}

// TestFollow: a followed log goes on until the job ends, and stops when the
// token that reads it is revoked.
func TestFollow(t *testing.T) {
	for _, end := range []string{"job", "token", "server"} {
		w := build(t)
		id := w.job("ann", job.Running)
		dir := filepath.Join(w.api.Grading.Dir, "jobs", string(id))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r, _ := http.NewRequestWithContext(t.Context(), get, w.public.URL+"/v1/jobs/"+string(id)+"/logs?follow=true&offset=2", nil)
		r.Header.Set("Authorization", "Bearer "+w.ann.Reveal())
		resp, err := http.DefaultTransport.RoundTrip(r) // answers before anything is printed
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "log"), []byte("a\nhello\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 6)
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "hello\n" {
			t.Fatalf("%s: %q %v", end, first, err)
		}
		switch end {
		case "job":
			w.jobs.mu.Lock()
			j := w.jobs.jobs[id]
			j.State = job.Failed
			w.jobs.jobs[id] = j
			w.jobs.mu.Unlock()
		case "token":
			if a := w.ask(t, del, "/v1/tokens/self", w.ann, ""); a.status != 200 {
				t.Fatal(a.body)
			}
		case "server":
			w.api.Close()
		}
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%s: %q %v", end, rest, err)
		}
		_ = resp.Body.Close()
	}
}

// TestNoTrail: without a record nothing is granted, but what takes rights away
// goes on (R2.3, R2.7).
func TestNoTrail(t *testing.T) {
	w := build(t)
	w.trail.breaks(errDisk)
	for _, c := range []struct{ method, path, body string }{
		{get, "/v1/whoami", ""}, {post, "/v1/tokens", `{"name":"x","replace":"laptop"}`}, {get, "/v1/tokens", ""},
		{get, "/authz/forward", ""}, {get, "/authz/nginx", ""}, {post, "/v1/tokens/self/resume", ""}, {get, "/v1/users", ""},
	} {
		a := w.ask(t, c.method, c.path, w.ann, c.body)
		if a.status != 503 || a.header.Get("Retry-After") != "2" {
			t.Errorf("%s: %d %s", c.path, a.status, a.body)
		}
	}
	if len(w.tokens.events) > 0 || w.table.LastUse(w.annToken.ID).Count > 0 {
		t.Error("something was carried out")
	}
	id := w.job("ann", job.Running)
	if a := w.ask(t, post, "/v1/jobs/"+string(id)+"/cancel", w.ann, ""); a.status != 200 {
		t.Errorf("cancel: %d %s", a.status, a.body)
	}
	if a := w.ask(t, del, "/v1/tokens/self", w.ann, ""); a.status != 200 || a.json["token"].(map[string]any)["state"] != "revoked" {
		t.Errorf("revoke: %d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/leaks", token.Secret{}, fmt.Sprintf(`{"tokens":[%q]}`, w.bob.Reveal())); a.status != 202 {
		t.Errorf("leak: %d %s", a.status, a.body)
	}
}

// TestTrouble: a broken database is 503 and never 401; a bug of ours is 500
// without a word about it.
func TestTrouble(t *testing.T) {
	w := build(t)
	w.tokens.dead = fault.Wrap(fault.Unavailable, "database_unavailable", "The database does not answer.", errors.New("file is gone")).WithRetry(time.Second)
	a := w.ask(t, get, "/v1/tokens", w.ann, "")
	if a.status != 503 || a.header.Get("Retry-After") != "1" || strings.Contains(a.body, "file is gone") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.tokens.dead = errors.New("secret detail")
	a = w.ask(t, get, "/v1/tokens", w.ann, "")
	if a.status != 500 || a.code() != "internal" || strings.Contains(a.body, "secret detail") || a.json["request_id"] == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPanic: a handler that gives up is a 500 like any other.
func TestPanic(t *testing.T) {
	w := build(t, func(d *Deps) { d.Health = func(context.Context) api.Health { panic("CANARY-PANIC") } })
	a := w.ask(t, get, "/healthz", w.ann, "")
	if a.status != 500 || a.code() != "internal" || strings.Contains(a.body, "CANARY") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if log := w.log.String(); !strings.Contains(log, "a handler panicked") || strings.Contains(log, w.ann.Reveal()) {
		t.Error("the panic was not logged, or too much of it")
	}
}

// TestLocal: the socket's peer is the local administrator, by its uid.
func TestLocal(t *testing.T) {
	w := build(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := w.api.Server(w.api.Local())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	ask := func(method, path, body string) answer {
		r, _ := http.NewRequestWithContext(t.Context(), method, "http://local"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		data, _ := io.ReadAll(resp.Body)
		return answer{status: resp.StatusCode, body: string(data)}
	}
	if a := ask(get, "/v1/whoami", ""); a.status != 200 || !strings.Contains(a.body, `"kind":"local"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := ask(post, "/v1/users", `{"name":"carol"}`); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := ask(post, "/v1/tokens", `{"name":"mine"}`); a.status != 403 {
		t.Errorf("the local administrator made itself a token: %d %s", a.status, a.body)
	}
	if a := ask(get, "/metrics", ""); a.status != 200 || a.body != "metrics 1\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	lines, _, _ := w.trail.take()
	if want := fmt.Sprintf("local:%d", os.Geteuid()); lines[0].Actor != want {
		t.Errorf("actor %q, want %q", lines[0].Actor, want)
	}
}

// TestAuditPages: pages go back in time and lose nothing, also where many
// lines share an instant.
func TestAuditPages(t *testing.T) {
	var all []api.AuditEvent
	for i := range 50 {
		all = append(all, api.AuditEvent{ID: fmt.Sprintf("evt_%02d", i), At: t0.Add(time.Duration(i/10) * time.Microsecond)})
	}
	w := build(t, func(d *Deps) {
		d.Search = func(_ context.Context, q AuditQuery) ([]api.AuditEvent, error) {
			var out []api.AuditEvent
			for _, e := range all {
				if q.Until.IsZero() || e.At.Before(q.Until) {
					out = append(out, e)
				}
			}
			return out[max(0, len(out)-q.Limit):], nil
		}
	})
	var got []string
	for cursor := ""; ; {
		a := w.ask(t, get, "/v1/audit/events?limit=7&cursor="+cursor, w.eve, "")
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		var page []string
		for _, e := range a.json["items"].([]any) {
			page = append(page, e.(map[string]any)["id"].(string))
		}
		got = append(page, got...)
		if cursor, _ = a.json["next_cursor"].(string); cursor == "" {
			break
		}
	}
	if len(got) != 50 || !slices.IsSorted(got) {
		t.Errorf("%d: %v", len(got), got)
	}
	if a := w.ask(t, get, "/v1/audit/events?actor=nobody", w.eve, ""); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestServerPages: what anybody may ask.
func TestServerPages(t *testing.T) {
	status := "degraded"
	w := build(t, func(d *Deps) {
		d.Health = func(context.Context) api.Health {
			return api.Health{Status: status, Checks: map[string]api.Check{"database": {Status: "degraded", Detail: "/var/lib/x is gone"}}}
		}
	})
	for path, want := range map[string]string{
		"/livez": "ok\n", "/readyz": "ok\n", "/.well-known/gradegate-trail-key": "gradegate-trail+key\n",
	} {
		if a := w.ask(t, get, path, token.Secret{}, ""); a.status != 200 || a.body != want {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/version", token.Secret{}, ""); a.json["version"] != "test" {
		t.Errorf("%s", a.body)
	}
	if a := w.ask(t, get, "/healthz", token.Secret{}, ""); a.status != 200 || !strings.Contains(a.body, "database") {
		t.Errorf("%d %s", a.status, a.body)
	}
	status = "down"
	if a := w.ask(t, get, "/readyz", token.Secret{}, ""); a.status != 503 {
		t.Errorf("%d", a.status)
	}
	if lines, _, refused := w.trail.take(); len(lines)+len(refused) > 0 {
		t.Error("health checks fill the trail")
	}
}
