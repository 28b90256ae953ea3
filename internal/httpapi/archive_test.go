package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/keys"
	"gradegate/internal/maintenance"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// archive is the archive in memory, over the tokens of a tokenStore.
type archive struct {
	*tokenStore
	rows  []maintenance.Archived
	holds []maintenance.Hold
	full  int64 // of a disk of 1000
}

func (s *archive) Kin(_ context.Context, of []token.Token) (out []token.Token, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.tokens {
		if slices.ContainsFunc(of, func(o token.Token) bool { return k.ID == o.ID || k.Family == o.Family || k.Parent == o.ID }) {
			out = append(out, k)
		}
	}
	return out, nil
}

func (s *archive) LastUses(context.Context, []token.ID) (map[token.ID]token.Use, error) {
	return nil, nil
}

func (s *archive) Archive(_ context.Context, moves []maintenance.Move, e audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range moves {
		delete(s.tokens, m.Old.ID)
		s.rows = append(s.rows, m.New)
		s.table.Apply(authn.Change{Archived: []token.ID{m.Old.ID}})
	}
	s.events = append(s.events, e)
	return nil
}

func (s *archive) Archived(_ context.Context, q maintenance.Query) (out []maintenance.Archived, _ error) {
	for _, a := range s.rows {
		last := maintenance.Place{EndedAt: a.EndedAt, ID: a.Token.ID}
		if (q.Owner == "" || a.Token.Owner == q.Owner) && (q.Name == "" || a.Token.Name == q.Name) && (q.Before.ID == "" || order(last, q.Before) > 0) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b maintenance.Archived) int {
		return order(maintenance.Place{EndedAt: a.EndedAt, ID: a.Token.ID}, maintenance.Place{EndedAt: b.EndedAt, ID: b.Token.ID})
	})
	return out[:min(len(out), q.Limit)], nil
}

func order(a, b maintenance.Place) int {
	return cmp.Or(b.EndedAt.Compare(a.EndedAt), cmp.Compare(b.ID, a.ID))
}

func (s *archive) ArchivedToken(_ context.Context, id token.ID) (maintenance.Archived, error) {
	for _, a := range s.rows {
		if a.Token.ID == id {
			return a, nil
		}
	}
	return maintenance.Archived{}, absent
}

func (s *archive) Due(context.Context, time.Time, maintenance.Place, int) ([]maintenance.Archived, error) {
	return nil, nil
}

func (s *archive) Reduce(context.Context, []maintenance.Archived, string, audit.Event) error {
	return nil
}

func (s *archive) Lease(context.Context, string, time.Time) (bool, error) { return true, nil }

func (s *archive) Holds(context.Context) ([]maintenance.Hold, error) { return s.holds, nil }

func (s *archive) PutHold(_ context.Context, h maintenance.Hold, e audit.Event) error {
	s.holds = append(slices.DeleteFunc(s.holds, func(x maintenance.Hold) bool { return x.ID == h.ID }), h)
	s.events = append(s.events, e)
	return nil
}

func (s *archive) Vias(context.Context) ([]token.ID, error) { return nil, nil }

func (s *archive) User(ctx context.Context, name string) (string, string, error) {
	p, err := s.PrincipalByName(ctx, name)
	return string(p.ID), p.Name, err
}

func (s *archive) Competition(_ context.Context, name string) error {
	if name != "iris" {
		return absent
	}
	return nil
}

func (s *archive) TokenName(context.Context, token.ID) (string, error) { return "", absent }

func (s *archive) Measure(_ context.Context, now time.Time) (maintenance.Sample, error) {
	return maintenance.Sample{At: now, Rows: map[string]int64{"tokens": 1}, Disks: map[string]maintenance.Disk{"data": {Total: 1000, Free: 1000 - s.full}}}, nil
}

func (s *archive) Made(time.Time) map[principal.ID]int {
	return map[principal.ID]int{"usr_bob": 77, "usr_ann": 1, "usr_root": 2}
}

func (s *archive) SaveSample(context.Context, string, time.Time, string, []time.Time) error {
	return nil
}

func (s *archive) Samples(context.Context, string) (map[time.Time]string, error) { return nil, nil }

// give adds a token to somebody, after changing it.
func (w *world) give(owner string, change func(*token.Token), scopes ...string) token.Secret {
	s, k := w.secret(principal.ID("usr_"+owner), scopes...)
	if change != nil {
		change(&k)
	}
	w.tokens.mu.Lock()
	defer w.tokens.mu.Unlock()
	w.tokens.apply(authority.Decision{Tokens: []authority.TokenChange{{New: k}}})
	return s
}

// withArchive gives an API an archive.
func (w *world) withArchive(t testing.TB, d *Deps, k *keys.Ring) {
	w.archive = &archive{tokenStore: w.tokens}
	n := 0
	m, err := maintenance.New(maintenance.Config{
		Store: w.archive, Table: w.table, Jobs: w.archive, Directory: w.archive, Gauge: w.archive, Samples: w.archive, Now: w.clock.Now,
		Doubt: func() string { return "" }, Key: k.Trail(), Log: slog.New(slog.DiscardHandler),
		NewID: func(prefix string) string { n++; return fmt.Sprintf("%s%026d", prefix, n) },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Maintenance = m
}

// TestArchiveAPI: what the sweep says and does, the pages of the archive, and a
// hold (R9.1, R9.6).
func TestArchiveAPI(t *testing.T) {
	w := build(t)
	var old []string
	for i := range 5 {
		s := w.give("ann", func(k *token.Token) {
			k.Family, k.Name = token.Family(fmt.Sprint("fam_old", i)), "old"
			k.Renewal, k.FixedEnd, k.Unused = token.Fixed, t0.Add(time.Duration(i/2)*time.Hour), 0
		}, "jobs:read")
		old = append(old, string(s.Presented().Public.ID()))
	}
	bobs := w.give("bob", func(k *token.Token) { k.Family, k.Name = "fam_bob", "bobs" })
	w.clock.Add(50 * day)
	root := w.give("root", func(k *token.Token) { k.IssuedAt, k.BornAt = w.clock.Now(), w.clock.Now() }, "admin:*")
	eve := w.give("eve", func(k *token.Token) { k.IssuedAt, k.BornAt = w.clock.Now(), w.clock.Now() }, "audit:read")

	if a := w.ask(t, post, "/v1/holds", root, `{"subject":"bob","reason":"case"}`); a.status != 201 || a.json["subject_id"] != "usr_bob" || a.json["active"] != true {
		t.Errorf("%d %s", a.status, a.body)
	}
	for name, body := range map[string]string{"reason_missing": `{"subject":"bob","reason":""}`, "subject_not_found": `{"subject":"nobody","reason":"x"}`} {
		if a := w.ask(t, post, "/v1/holds", root, body); a.code() != name {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := w.ask(t, post, "/v1/sweep", root, `{"dry_run":true}`)
	if a.status != 200 || a.json["archived"] != 5.0 || a.json["dry_run"] != true || len(w.archive.rows) > 0 || !strings.Contains(a.body, `"on_hold"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/sweep", eve, `{"dry_run":true}`); a.status != 403 {
		t.Errorf("an auditor sweeps: %d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/sweep", root, `{"dry_run":null}`); a.status != 400 {
		t.Errorf("null is taken for no: %d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/sweep", root, `{}`); a.status != 200 || a.json["archived"] != 5.0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/sweep", eve, ""); a.status != 200 || a.json["archived"] != 5.0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	var got []string
	for path := "/v1/archive/tokens?limit=2&user=ann"; path != ""; {
		a := w.ask(t, get, path, eve, "")
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for _, x := range a.json["items"].([]any) {
			k := x.(map[string]any)
			if k["name"] != "old" || k["user"] != "ann" || k["state"] != "expired" || k["digest"] == "" {
				t.Errorf("%v", k)
			}
			got = append(got, k["id"].(string))
		}
		path = ""
		if next, _ := a.json["next_cursor"].(string); next != "" {
			path = "/v1/archive/tokens?limit=2&user=ann&cursor=" + url.QueryEscape(next)
		}
	}
	slices.Sort(got)
	slices.Sort(old)
	if !slices.Equal(got, old) {
		t.Errorf("%v, want %v", got, old)
	}
	if a := w.ask(t, get, "/v1/archive/tokens/"+old[0], root, ""); a.status != 200 || a.json["id"] != old[0] {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/archive/tokens/tok_none", root, ""); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", bobs, ""); a.code() != "token_idle_expired" {
		t.Errorf("a token on hold is told %s", a.body)
	}
	hold := w.archive.holds[0].ID
	if a := w.ask(t, del, "/v1/holds/"+hold, root, ""); a.status != 200 || a.json["active"] != false {
		t.Errorf("%d %s", a.status, a.body)
	}
	for path, n := range map[string]int{"/v1/holds": 0, "/v1/holds?all=true": 1} {
		if a := w.ask(t, get, path, eve, ""); a.status != 200 || len(a.json["items"].([]any)) != n {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// TestGrowthAPI: the alerts and who makes too many are told (R9.8).
func TestGrowthAPI(t *testing.T) {
	w := build(t)
	w.archive.full = 951
	a := w.ask(t, get, "/v1/growth", w.root, "")
	if a.status != 200 || a.json["level"] != 95.0 || !strings.Contains(a.body, `"user":"bob"`) || !strings.Contains(a.body, "more than 95 %") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/growth", w.ann, ""); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
