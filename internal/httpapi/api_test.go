package httpapi

import (
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"gradegate/internal/token"
)

var update = flag.Bool("update", false, "write openapi.json")

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (a answer) code() string { s, _ := a.json["code"].(string); return s }

// ask sends one request with a token ("" for none) and a body ("" for none).
func (w *world) ask(t testing.TB, method, path string, s token.Secret, body string, headers ...string) answer {
	t.Helper()
	return w.askAt(t, w.public.URL, method, path, s, body, headers...)
}

func (w *world) askAt(t testing.TB, base, method, path string, s token.Secret, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if !s.IsZero() {
		r.Header.Set("Authorization", "Bearer "+s.Reveal())
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return send(t, r)
}

func send(t testing.TB, r *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(r) // no redirects
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(data)}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") && len(data) > 0 {
		if err := json.Unmarshal(data, &a.json); err != nil {
			t.Fatalf("%s %s: %v in %s", r.Method, r.URL, err, data)
		}
	}
	// The type of every problem leads to a page.
	if _, known := problems()[a.code()]; !known && len(data) > 0 && resp.Header.Get("Content-Type") == problemType {
		t.Errorf("%s %s: docs/reference/problems.md knows nothing of %q", r.Method, r.URL.Path, a.code())
	}
	return a
}

// TestOpenAPI: the committed document is the contract.
func TestOpenAPI(t *testing.T) {
	w := build(t)
	const file = "../../openapi.json"
	if *update {
		if err := os.WriteFile(file, w.api.text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(w.api.text) {
		t.Error("openapi.json is not what the code says: go test ./internal/httpapi -run OpenAPI -update")
	}
	if a := w.ask(t, "GET", "/openapi.json", token.Secret{}, ""); a.status != 200 || a.json["openapi"] != "3.1.0" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestWhoami(t *testing.T) {
	w := build(t)
	a := w.ask(t, "GET", "/v1/whoami", w.ann, "")
	if a.status != 200 || a.json["kind"] != "pat" || a.json["token_id"] != string(w.annToken.ID) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for name, want := range map[string]string{
		"X-Auth-Mode": "normal", "X-Token-Expires-In": "1209600", "X-Token-Expires-Reason": "idle_expires_at", "Cache-Control": "no-store",
		"X-Content-Type-Options": "nosniff", "Ratelimit-Policy": `"token-read";q=1200;w=60`, "Ratelimit": `"token-read";r=199;t=1`,
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	lines, durable, _ := w.trail.take()
	if len(lines) != 1 || durable[0] || lines[0].Status != 200 || lines[0].Route != "GET /v1/whoami" || lines[0].Actor != "usr_ann" ||
		lines[0].Request != a.header.Get("X-Request-Id") || lines[0].Outcome != "allow" || lines[0].Addr != "127.0.0.1" {
		t.Errorf("%+v", lines)
	}
	if u := w.table.LastUse(w.annToken.ID); u.Count != 1 || u.Addr != loopback() {
		t.Errorf("%+v", u)
	}
}
