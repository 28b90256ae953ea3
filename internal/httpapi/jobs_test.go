package httpapi

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gradegate/internal/job"
	"gradegate/internal/token"
)

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
		`{"Title":"x"}`:                         "request_invalid",
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
	if a := w.ask(t, get, "/v1/quota?competition=iris", w.ann, ""); a.status != 200 || !strings.Contains(a.body, `"submissions":{"used":1,"limit":3}`) {
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

// TestFollowers: one user follows a bounded number of logs, holds no file by
// it, and hurts neither another user nor reading (A05).
func TestFollowers(t *testing.T) {
	w := build(t)
	id, theirs := w.job("ann", job.Running), w.job("bob", job.Running)
	log := filepath.Join(w.api.Grading.Dir, "jobs", string(id), "log")
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	follow := func(s token.Secret, id job.ID) *http.Response {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), get, w.public.URL+"/v1/jobs/"+string(id)+"/logs?follow=true", nil)
		r.Header.Set("Authorization", "Bearer "+s.Reveal())
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	const most = 16
	var open []*http.Response
	for i := range most {
		resp := follow(w.ann, id)
		line := make([]byte, 6)
		if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "hello\n" {
			t.Fatalf("follower %d: %d %q %v", i, resp.StatusCode, line, err)
		}
		open = append(open, resp)
	}
	if held := handlesOf(log); held > most/2 { // a few may be looking just now
		t.Errorf("%d followers hold the log %d times", most, held)
	}
	more := "/v1/jobs/" + string(id) + "/logs?follow=true"
	if a := w.ask(t, get, more, w.ann, ""); a.status != 429 || a.code() != "too_many_followers" || a.json["fix"] == nil {
		t.Errorf("follower %d: %d %s", most, a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/jobs/"+string(id)+"/logs", w.ann, ""); a.status != 200 || a.body != "hello\n" {
		t.Errorf("reading without following: %d %s", a.status, a.body)
	}
	if resp := follow(w.bob, theirs); resp.StatusCode != 200 {
		t.Errorf("another user: %d", resp.StatusCode)
	}
	_ = open[0].Body.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 100 { // the server finds out at its next look; there are limits to asking
		if resp := follow(w.ann, id); resp.StatusCode == 200 {
			return
		}
		<-tick.C
	}
	t.Error("the place of a follower that left is not free again")
}

// handlesOf counts this process's open files of a path.
func handlesOf(path string) (n int) {
	all, _ := filepath.Glob("/proc/self/fd/*") // the pattern is right
	for _, fd := range all {
		if at, err := os.Readlink(fd); err == nil && at == path {
			n++
		}
	}
	return n
}

// TestLongLog: a log of many pieces arrives whole.
func TestLongLog(t *testing.T) {
	w := build(t)
	id := w.job("ann", job.Failed)
	log := filepath.Join(w.api.Grading.Dir, "jobs", string(id), "log")
	text := strings.Repeat("0123456789abcdef", 10_000) + "end"
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[string]string{"": text, "?offset=5": text[5:], "?offset=160000&follow=true": "end", "?offset=999999": ""} {
		if a := w.ask(t, get, "/v1/jobs/"+string(id)+"/logs"+offset, w.ann, ""); a.status != 200 || a.body != want {
			t.Errorf("%q: %d, %d bytes, want %d", offset, a.status, len(a.body), len(want))
		}
	}
}

// TestStreams: one connection of HTTP/2 carries a bounded number of requests.
func TestStreams(t *testing.T) {
	w := build(t)
	if s := w.api.Server(w.api.Public()); s.HTTP2 == nil || s.HTTP2.MaxConcurrentStreams > 32 || s.HTTP2.MaxConcurrentStreams == 0 {
		t.Errorf("%+v", s.HTTP2)
	}
}
