package story

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gradegate/api"
)

// forms are the shapes in which a secret could lie around.
func forms(secret string) map[string][]byte {
	return map[string][]byte{
		"raw": []byte(secret), "random part": []byte(secret[18:61]), "hex": []byte(hex.EncodeToString([]byte(secret))),
		"base64": []byte(strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")[:80]),
		"url":    []byte(url.QueryEscape(secret)), "JSON": []byte(`"` + secret),
	}
}

// No secret lies in any file, log, database, ledger or trail of the server,
// after all that people and attackers do with them.
func TestNoSecretLeftBehind(t *testing.T) {
	w := start(t)
	w.local("competition", "apply", "examples/iris")
	var secrets []string
	code := w.local("user", "invite", "ann", "-o", "secret")
	session, err := w.client("").Redeem(t.Context(), api.Redeem{Code: code, Name: "canary"})
	if err != nil {
		t.Fatal(err)
	}
	ann := w.client(session.Secret)
	made, err := ann.CreateToken(t.Context(), api.CreateToken{Name: "canary"})
	if err != nil {
		t.Fatal(err)
	}
	next, err := ann.RotateToken(t.Context(), "canary", api.RotateToken{})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := w.client(next.Secret).Submit(t.Context(), "iris", w.upload("examples/iris/program"))
	if err != nil {
		t.Fatal(err)
	}
	w.until("the job is over", func() bool {
		j, err := ann.JobByID(t.Context(), sub.Job.ID)
		return err == nil && j.State == "succeeded"
	}, nil)
	secrets = append(secrets, code, session.Secret, made.Secret, next.Secret, sub.Handle)

	// Where secrets do not belong: in a URL, in a path, as an agent, in a body, cut
	// short, in the wrong header.
	for _, s := range secrets {
		for _, do := range []func(*http.Request){
			func(r *http.Request) { r.URL.RawQuery = "access_token=" + s },
			func(r *http.Request) { r.URL.Path = "/v1/tokens/" + s },
			func(r *http.Request) { r.URL.Path = "/" + s },
			func(r *http.Request) { r.Header.Set("User-Agent", s) },
			func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+s[:50]) },
			func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+s+"x") },
			func(r *http.Request) { r.Header.Set("X-Request-Id", s) },
			func(r *http.Request) { r.Header.Set("Idempotency-Key", s); r.Header.Set("Authorization", "Bearer "+s) },
			func(r *http.Request) {
				r.Method, r.URL.Path = "POST", "/v1/tokens"
				r.Header.Set("Authorization", "Bearer "+s)
			},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/v1/whoami", strings.NewReader(`{"name": "`+s+`", "`+s+`": 1}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			do(req)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var body bytes.Buffer
			_, _ = body.ReadFrom(resp.Body)
			_ = resp.Body.Close()
			for form, needle := range forms(s) {
				if bytes.Contains(body.Bytes(), needle) {
					t.Errorf("the answer %d to %s holds a secret (%s)", resp.StatusCode, req.URL.Path, form)
				}
			}
		}
	}
	said := w.stdout.String() + w.stderrText()
	w.end(syscall.SIGTERM)
	sweep(t, w.dir, said, secrets)
}

func sweep(t *testing.T, dir, said string, secrets []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() || d.Name() == "hosts.yaml" {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files++
		for i, s := range secrets {
			for form, needle := range forms(s) {
				if bytes.Contains(data, needle) {
					t.Errorf("%s holds secret %d (%s)", p, i, form)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range secrets {
		for form, needle := range forms(s) {
			if strings.Contains(said, string(needle)) {
				t.Errorf("the server's output holds secret %d (%s)", i, form)
			}
		}
	}
	if files < 8 {
		t.Errorf("only %d files were looked at", files)
	}
}
