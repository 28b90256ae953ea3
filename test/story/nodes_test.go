package story

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"

	"gradegate/api"
	"gradegate/internal/store/storetest"
)

// rotated asks a node for a successor of the token that is shown.
func rotated(t *testing.T, node *world, secret, key, body string) (status int, made api.Issued) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, node.url+"/v1/tokens/self/rotate", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	_ = json.NewDecoder(resp.Body).Decode(&made)
	return resp.StatusCode, made
}

// Two nodes on one PostgreSQL are one authority: a use at one counts at the other
// (R5.6), so that a successor in use there is not taken for unused (R2.1); the
// answer to a rotation is given again by the one when the other has died; and a
// revocation reaches it (R2.7).
func TestTwoNodes(t *testing.T) {
	a := start(t, "GRADEGATE_DATABASE_TOKENS="+storetest.PostgresURL(t), "GRADEGATE_DATABASE_JOBS="+storetest.PostgresURL(t))
	b := start(t, append(a.env, "GRADEGATE_KEY_FILE="+filepath.Join(a.dir, "data", "root.key"))...)
	ann := a.person("ann")
	made, err := ann.CreateToken(t.Context(), api.CreateToken{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	there := b.client(made.Secret)
	a.until("the token is known at the other node", func() bool {
		_, err := there.Whoami(t.Context())
		return err == nil
	}, b.errs)
	a.until("a use at the other node is seen", func() bool {
		k, err := ann.TokenByID(t.Context(), "laptop")
		return err == nil && k.LastUsed != nil
	}, a.errs)

	status, next := rotated(t, a, made.Secret, "k1", `{"grace":"1h"}`)
	if status != http.StatusCreated {
		t.Fatalf("%d", status)
	}
	successor := b.client(next.Secret)
	b.until("the successor is known at the other node", func() bool {
		_, err := successor.Whoami(t.Context())
		return err == nil
	}, b.errs)
	a.until("the successor is seen in use", func() bool {
		k, err := a.client(made.Secret).TokenByID(t.Context(), next.Token.ID)
		return err == nil && k.LastUsed != nil
	}, a.errs)
	if status, _ := rotated(t, a, made.Secret, "k2", `{"replace_unused":true}`); status != http.StatusConflict {
		t.Errorf("a successor that is in use at the other node was replaced: %d", status)
	}

	// The last one that the first node answers.
	status, last := rotated(t, a, next.Secret, "k3", `{"compromised":true}`)
	a.end(syscall.SIGKILL)
	if again, same := rotated(t, b, next.Secret, "k3", `{"compromised":true}`); status != http.StatusCreated || again != status || same.Secret != last.Secret {
		t.Errorf("%d, and at the other node %d", status, again)
	}
	if status, _ := rotated(t, b, next.Secret, "k4", `{}`); status != http.StatusUnauthorized {
		t.Errorf("compromised, and rotated again: %d", status)
	}
	if _, err := b.client(last.Secret).Whoami(t.Context()); err != nil {
		t.Error(err)
	}
	a.run("127.0.0.1:0")
	if _, err := a.client(last.Secret).RevokeToken(t.Context(), "self", api.RevokeToken{}); err != nil {
		t.Fatal(err)
	}
	b.until("the revocation is in force at the other node", func() bool {
		_, err := b.client(last.Secret).Whoami(t.Context())
		return err != nil
	}, b.errs)
}
