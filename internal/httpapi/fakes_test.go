package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/block"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

var (
	absent = fault.New(fault.NotFound, "not_found", "not there")
	moved  = authority.ErrMoved
)

// tokenStore is authority.Store in memory, followed by a table.
type tokenStore struct {
	mu      sync.Mutex
	table   *authn.Table
	tokens  map[token.ID]token.Token
	people  map[principal.ID]principal.Principal
	replies map[authority.ReplyKey]authority.Reply
	events  []audit.Event
	rev     int64
	fail    error // of every Commit
	dead    error // of every read
	levels  []policy.Level
	blocks  []block.Block
	list    *block.List
	given   []principal.Consent
}

func (s *tokenStore) Token(_ context.Context, id token.ID) (token.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.tokens[id]; ok || s.dead != nil {
		return t, s.dead
	}
	return token.Token{}, absent
}

func (s *tokenStore) TokensOf(_ context.Context, owner principal.ID, about authority.Among) (out []token.Token, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if t.Owner == owner && about.Has(&t) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b token.Token) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, s.dead
}

func (s *tokenStore) TokensPage(ctx context.Context, owner principal.ID, after token.ID, limit int) ([]token.Token, error) {
	all, err := s.TokensOf(ctx, owner, authority.Among{})
	slices.SortStableFunc(all, func(a, b token.Token) int { return b.IssuedAt.Compare(a.IssuedAt) })
	if after != "" {
		i := slices.IndexFunc(all, func(t token.Token) bool { return t.ID == after })
		if i < 0 {
			return nil, absent
		}
		all = all[i+1:]
	}
	return all[:min(len(all), limit)], err
}

func (s *tokenStore) Principal(_ context.Context, id principal.ID) (principal.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.people[id]; ok {
		return p, s.dead
	}
	return principal.Principal{}, absent
}

func (s *tokenStore) PrincipalByName(_ context.Context, name string) (principal.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.people {
		if p.Name == name {
			return p, s.dead
		}
	}
	return principal.Principal{}, absent
}

func (s *tokenStore) Principals(_ context.Context, after principal.ID, limit int) (out []principal.Principal, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.people {
		if p.ID > after {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b principal.Principal) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out[:min(limit, len(out))], s.dead
}

func (s *tokenStore) Levels(context.Context) ([]policy.Level, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.levels), s.dead
}

func (s *tokenStore) Blocks(context.Context) ([]block.Block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.blocks), s.dead
}

func (s *tokenStore) Reply(_ context.Context, k authority.ReplyKey, now time.Time) (authority.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.replies[k]; ok && now.Before(r.Until) {
		return r, nil
	}
	return authority.Reply{}, absent
}

func (s *tokenStore) Commit(_ context.Context, d authority.Decision, events ...audit.Event) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return 0, s.fail
	}
	for _, c := range d.Principals {
		if c.Old != nil && s.people[c.Old.ID].Version != c.Old.Version {
			return 0, moved
		}
	}
	n := map[principal.ID]int{}
	for _, c := range d.Tokens {
		if c.Old != nil && s.tokens[c.Old.ID].Version != c.Old.Version {
			return 0, moved
		}
	}
	after := map[token.ID]token.Token{}
	for id, t := range s.tokens {
		after[id] = t
	}
	for _, c := range d.Tokens {
		after[c.New.ID] = c.New
	}
	for _, t := range after {
		if t.Kind == token.Personal && t.Standing != token.Revoked && t.Successor == "" {
			n[t.Owner]++
		}
	}
	for _, c := range d.Tokens {
		if c.Old == nil && c.New.Kind == token.Personal && d.MaxPersonal > 0 && n[c.New.Owner] > d.MaxPersonal {
			return 0, fault.New(fault.Conflict, "token_limit", "Too many personal tokens.")
		}
	}
	s.apply(d)
	s.events = append(s.events, events...)
	return s.rev, nil
}

func (s *tokenStore) apply(d authority.Decision) {
	s.rev++
	c := authn.Change{Revision: s.rev}
	for _, l := range d.Levels {
		s.levels = append(slices.DeleteFunc(s.levels, func(x policy.Level) bool { return x.Name == l.New.Name }), l.New)
		c.Levels = append(c.Levels, l.New)
	}
	for _, b := range d.Blocks {
		s.blocks = append(slices.DeleteFunc(s.blocks, func(x block.Block) bool { return x.ID == b.New.ID }), b.New)
		s.list.Apply(b.New)
	}
	for _, x := range d.Consents {
		s.given = append(slices.DeleteFunc(s.given, func(c principal.Consent) bool { return c.ID == x.New.ID }), x.New)
		c.Consents = append(c.Consents, x.New)
	}
	for _, p := range d.Principals {
		s.people[p.New.ID] = p.New
		c.Principals = append(c.Principals, p.New)
	}
	for _, t := range d.Tokens {
		s.tokens[t.New.ID] = t.New
		c.Tokens = append(c.Tokens, t.New)
	}
	if d.Reply != nil {
		s.replies[d.Reply.Key] = *d.Reply
	}
	s.table.Apply(c)
}

// jobStore is grading.Store in memory, as far as the API needs it.
type jobStore struct {
	lines []grading.QuotaLine
	grading.Store
	mu           sync.Mutex
	table        *authn.Table
	competitions map[string]grading.Competition
	jobs         map[job.ID]job.Job
	submissions  map[string]grading.Submission
	replies      map[[32]byte]grading.JobReply
}

func (s *jobStore) Competition(_ context.Context, name string) (grading.Competition, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.competitions[name]; ok {
		return c, nil
	}
	return grading.Competition{}, absent
}

func (s *jobStore) Competitions(context.Context) (out []grading.Competition, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.competitions {
		out = append(out, c)
	}
	return out, nil
}

func (s *jobStore) SetCompetition(_ context.Context, old *grading.Competition, c grading.Competition, _ audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.competitions[c.Name]; ok != (old != nil) || ok && known.Version != old.Version {
		return moved
	}
	s.competitions[c.Name] = c
	s.table.ApplyCompetition(c.Name, c.Project, c.Version)
	return nil
}

func (s *jobStore) Job(_ context.Context, id job.ID) (job.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j, ok := s.jobs[id]; ok {
		return j, nil
	}
	return job.Job{}, absent
}

func (s *jobStore) Jobs(_ context.Context, f grading.Filter) (out []job.Job, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if (f.Owner == "" || j.Owner == f.Owner) && (f.Submitter == "" || j.Submitter == f.Submitter) && (f.State == "" || j.State == f.State) && (f.Before == "" || j.ID < f.Before) {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b job.Job) int { return strings.Compare(string(b.ID), string(a.ID)) })
	return out[:min(f.Limit, len(out))], nil
}

func (s *jobStore) Best(context.Context, string, string, bool, int) ([]grading.Standing, error) {
	return nil, nil
}

func (s *jobStore) InsertJob(_ context.Context, j job.Job, sub grading.Submission, _ grading.Reservation, r *grading.JobReply, _ audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r != nil {
		if _, ok := s.replies[r.Key]; ok {
			return fault.New(fault.Conflict, "reply_exists", "known")
		}
		s.replies[r.Key] = *r
	}
	s.jobs[j.ID], s.submissions[sub.ID] = j, sub
	s.table.ApplyHandle(authn.Handle{Handle: j.Handle, Kind: token.JobKind, Job: string(j.ID), Owner: j.Owner, Via: j.Via, Person: j.Person, Submitter: j.Submitter, SubmitterPerson: j.SubmitterEpoch})
	return nil
}

func (s *jobStore) ReplaceJob(_ context.Context, old, j job.Job, _ *grading.Settlement, _ audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[old.ID].Version != old.Version {
		return moved
	}
	s.jobs[j.ID] = j
	return nil
}

func (s *jobStore) Submission(_ context.Context, id string) (grading.Submission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.submissions[id], nil
}

func (s *jobStore) JobReply(_ context.Context, k [32]byte, _ time.Time) (grading.JobReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.replies[k]; ok {
		return r, nil
	}
	return grading.JobReply{}, absent
}

// idle is an executor that runs nothing.
type idle struct{}

func (idle) Submit(context.Context, job.Spec) error { return nil }
func (idle) Status(context.Context, job.ID) (job.Report, error) {
	return job.Report{Phase: job.PhaseRunning}, nil
}
func (idle) Cancel(context.Context, job.ID) error { return nil }
func (idle) Forget(context.Context, job.ID) error { return nil }

// logbook is everything that was logged.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// world is an API with people in it.
type world struct {
	archive *archive
	api     *API
	clock   *clock.Fake
	table   *authn.Table
	tokens  *tokenStore
	jobs    *jobStore
	trail   *recorder
	log     *logbook
	public  *httptest.Server

	ann, bob, root, eve token.Secret // eve audits
	annToken            token.Token
}

var people = map[string]principal.Role{"ann": principal.User, "bob": principal.User, "root": principal.Admin, "eve": principal.Auditor}

func build(t testing.TB, change ...func(*Deps)) *world {
	t.Helper()
	w := &world{clock: clock.NewFake(t0), trail: &recorder{}, log: &logbook{}}
	w.table = authn.New(w.clock.Now, 0, policy.Rules{})
	w.tokens = &tokenStore{
		table: w.table, tokens: map[token.ID]token.Token{}, people: map[principal.ID]principal.Principal{},
		replies: map[authority.ReplyKey]authority.Reply{},
	}
	w.jobs = &jobStore{
		table: w.table, competitions: map[string]grading.Competition{}, jobs: map[job.ID]job.Job{},
		submissions: map[string]grading.Submission{}, replies: map[[32]byte]grading.JobReply{},
	}
	ring := keys.New([keys.Size]byte{1})
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g, err := grading.New(grading.Config{
		Store: w.jobs, Executor: idle{}, Gate: w.table, Keys: ring, Now: w.clock.Now, Dir: t.TempDir(), Node: "test", Log: logger,
		NewID: func(prefix string) string { return prefix + authority.SortableID(w.clock.Now()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	d := Deps{
		Table: w.table, Authority: authority.New(w.tokens, w.table, ring, w.clock.Now), Grading: g,
		Recorder: w.trail, Now: w.clock.Now, Logger: logger, Version: "test", TrailKey: "gradegate-trail+key",
		Lines:      w.trail.read,
		Search:     func(context.Context, AuditQuery) ([]api.AuditEvent, error) { return nil, nil },
		Checkpoint: func(string) ([]byte, error) { return []byte("note\n"), nil }, Retention: keepsAll{},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("metrics 1\n")) }),
	}
	w.withArchive(t, &d, ring)
	for _, f := range change {
		f(&d)
	}
	if w.api, err = New(d); err != nil {
		t.Fatal(err)
	}
	w.tokens.list = w.api.Blocks
	w.api.followEvery = time.Millisecond
	w.ann, w.annToken = w.person("ann")
	w.bob, _ = w.person("bob")
	w.root, _ = w.person("root")
	w.eve, _ = w.person("eve")
	w.jobs.competitions["iris"] = grading.Competition{
		Name: "iris", Version: 1, Title: "Iris", Metrics: []string{"accuracy"}, Accept: []string{"program", "predictions"}, Open: true,
		Files: "f1", Public: []string{"train.csv", "more/notes.txt"},
		Resources: job.Resources{TimeLimit: time.Minute, CPUs: 1, MemoryBytes: 1 << 28, OutputBytes: 1 << 20, LogBytes: 1 << 20, Processes: 8},
	}
	dir := filepath.Join(g.Dir, "competitions", "iris", "f1", "public")
	if err := os.MkdirAll(filepath.Join(dir, "more"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"train.csv": "id,label\n", "more/notes.txt": "hello"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.public = w.serve(t, w.api.Public())
	return w
}

func (w *world) serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = w.api.Server(h)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// person makes a principal with one personal token of its role's scopes.
func (w *world) person(name string) (token.Secret, token.Token) {
	id := principal.ID("usr_" + name)
	p := principal.Principal{
		ID: id, Version: 1, Name: name, Kind: principal.Human, Role: people[name], Status: principal.Active, Enrolled: t0, CreatedAt: t0,
	}
	s, k := w.secret(id, policy.RoleScopes(people[name])...)
	w.tokens.mu.Lock()
	defer w.tokens.mu.Unlock()
	w.tokens.apply(authority.Decision{Principals: []authority.PrincipalChange{{New: p}}, Tokens: []authority.TokenChange{{New: k}}})
	return s, k
}

func (w *world) secret(owner principal.ID, scopes ...string) (token.Secret, token.Token) {
	s := token.NewSecret(token.Personal)
	p := s.Presented()
	return s, token.Token{
		ID: p.Public.ID(), Version: 1, Kind: p.Kind, Digest: p.Digest, Name: "laptop", Owner: owner, Standing: token.Standard,
		IssuedAt: t0, BornAt: t0, Renewal: token.Sliding, Lifetime: token.DefaultLifetime, Idle: token.DefaultIdle, Unused: token.DefaultUnused,
		MaxLifetime: token.DefaultMaxLifetime, RotateAfter: token.DefaultRotateAfter, Scopes: scopes, Family: "fam_1", Generation: 1,
	}
}

// job puts a job of somebody into the store.
func (w *world) job(owner string, state job.State) job.ID {
	id := job.ID("job_" + authority.SortableID(w.clock.Now()))
	sub := "sub_" + string(id)
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	w.jobs.submissions[sub] = grading.Submission{ID: sub, Kind: grading.Program, Name: "solve.py", Digest: "00"}
	w.jobs.jobs[id] = job.Job{
		ID: id, Version: 1, Owner: principal.ID("usr_" + owner), Competition: "iris", Submission: sub, Via: "tok_x", State: state,
		CreatedAt: t0, Scores: map[string]float64{"accuracy": 0.5},
	}
	return id
}

var errDisk = fault.Wrap(fault.Unavailable, "audit_unavailable", "The request could not be recorded.", errors.New("disk")).WithRetry(2 * time.Second)

func loopback() netip.Addr { return netip.MustParseAddr("127.0.0.1") }

func changeOf(p principal.Principal) authn.Change {
	return authn.Change{Principals: []principal.Principal{p}}
}

func changeOfToken(k token.Token) authn.Change { return authn.Change{Tokens: []token.Token{k}} }
