// Package server joins everything: it is the only place where the parts of the
// program meet. It opens them in the order in which they need each other,
// serves until it is told to stop, and closes them in the reverse order.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/block"
	"gradegate/internal/clock"
	"gradegate/internal/config"
	"gradegate/internal/executor"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/httpapi"
	"gradegate/internal/keys"
	"gradegate/internal/maintenance"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/store"
	"gradegate/internal/token"
	"gradegate/internal/trail"
)

// Version is the program's version; the release build sets it.
var Version = "0.1.0-dev"

// Server is a running gradegate.
type Server struct {
	cfg         config.Config
	log         *slog.Logger
	clock       *clock.Clock
	lock        *store.DirLock
	keys        *keys.Ring
	keyOrigin   keys.Origin
	table       *authn.Table
	blocks      *block.List
	failures    *failureLog // nil: none is kept
	tokens      *store.Tokens
	jobs        *store.Jobs
	trail       *trail.Trail
	executor    executor.Executor
	isolation   executor.Isolation
	authority   *authority.Authority
	grading     *grading.Grading
	maintenance *maintenance.Maintenance
	api         *httpapi.API
	crowd       crowd
	bounded     []*bounded // the listeners that have bounds
	started     time.Time
	ballast     []byte
}

// ballastSize is memory that is reserved and never touched: it costs address
// space only. The collector starts when the heap has doubled, so that without
// it a heap of a few megabytes would be collected dozens of times a second.
const ballastSize = 96 << 20

// headroom is about how much garbage there may be before it is collected.
const headroom = 64 << 20

// giveBack returns what the start has used to the system, and lets garbage grow
// by the headroom and not by as much as there are tokens. Whoever has set GOGC
// knows better.
func giveBack() {
	if os.Getenv("GOGC") == "" {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		debug.SetGCPercent(int(max(10, min(100, headroom*100/m.HeapAlloc)))) //nolint:gosec // between those two
	}
	debug.FreeOSMemory()
}

// Run serves until ctx ends. What people should see goes to stdout (at most
// twelve lines), the log and the one-time invite of the first administrator to
// stderr.
func Run(ctx context.Context, cfg config.Config, stdout, stderr io.Writer) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	s := &Server{cfg: cfg, ballast: make([]byte, ballastSize), log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	s.failures = newFailureLog(cfg.FailuresLog, stderr, s.log)
	if err := s.open(ctx); err != nil {
		return errors.Join(err, s.close())
	}
	giveBack()
	err := s.serve(ctx, stdout, stderr)
	runtime.KeepAlive(s.ballast)
	return errors.Join(err, s.close())
}

// open opens the parts, each after what it needs.
func (s *Server) open(ctx context.Context) error {
	for _, step := range []func(context.Context) error{s.openKeys, s.openTokens, s.openTrail, s.openJobs, s.checkPeppers, s.openUseCases, s.openMaintenance, s.openAPI} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) openKeys(context.Context) error {
	var err error
	if err = os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return fault.Wrap(fault.Invalid, "data_folder", "The data folder cannot be made: "+err.Error()+".", err).WithFix("Name another one: --data DIR")
	}
	if s.lock, err = store.Lock(s.cfg.Data); err != nil {
		return err
	}
	s.clock = clock.New(clock.Wall, time.Time{})
	s.started = s.clock.Now()
	ledger := s.cfg.Path(s.cfg.Ledger.Dir, "ledger")
	s.keys, s.keyOrigin, err = keys.Load(s.cfg.Path(s.cfg.KeyFile, "root.key"), filepath.Join(ledger, "root.key"))
	if s.keyOrigin == keys.FromCopy {
		s.log.Warn("the root key's file was gone; it was made again from the copy beside the ledger")
	}
	if err != nil {
		return err
	}
	peppers, err := keys.LoadPeppers(s.cfg.PepperFile)
	s.keys.Use(peppers)
	return err
}

// checkPeppers refuses to start without a pepper that living secrets need: all
// of them would be told that they are not valid.
func (s *Server) checkPeppers(context.Context) error {
	for version, n := range s.table.WithoutPepper() {
		return fault.New(fault.Invalid, "pepper_missing", "The pepper file does not have pepper %d, under which secrets are kept (%d of them).", version, n).
			WithFix("Put the pepper file back (pepper_file). If pepper %d is lost for good, add the line \"%d lost\": those secrets never work again.", version, version)
	}
	return nil
}

func (s *Server) openTokens(ctx context.Context) error {
	staleness := time.Duration(0)
	if s.cfg.Database.Tokens != "" {
		staleness = time.Minute
	}
	s.table = authn.New(s.clock.Now, staleness, s.baseRules())
	s.table.Use(s.keys.Peppers())
	proxies, err := s.cfg.Proxies()
	if err != nil {
		return err
	}
	s.blocks = block.New(proxies)
	ledger := s.cfg.Path(s.cfg.Ledger.Dir, "ledger")
	s.tokens, err = store.OpenTokens(ctx, store.TokensConfig{
		Dir: s.cfg.Data, URL: s.cfg.Database.Tokens, Ledger: ledger, Keys: s.keys,
		KeyLost: s.keyOrigin == keys.Created && hasData(s.cfg.Data, ledger),
		Clock:   s.clock, Follow: s.follow, Memory: s.table, Fresh: s.table.Fresh, Log: s.log,
	})
	return err
}

// follow takes over what a decision changed.
func (s *Server) follow(c authn.Change) {
	s.table.Apply(c)
	for _, b := range c.Blocks {
		s.blocks.Apply(b)
	}
}

// baseRules is what holds on the platform where its policy says nothing.
func (s *Server) baseRules() policy.Rules {
	r := policy.Rules{Terms: token.PlatformTerms()}
	r.MaxPersonal, r.Lifetime, r.MaxLifetime.Span = s.cfg.Policy.MaxPerUser, time.Duration(s.cfg.Policy.Lifetime), time.Duration(s.cfg.Policy.MaxLifetime)
	return r
}

// hasData reports whether there was an installation here before: its key is
// then not new but lost.
func hasData(data, ledger string) bool {
	for _, pattern := range []string{filepath.Join(data, "tokens.db"), filepath.Join(ledger, "*.jsonl")} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the pattern is well-formed
			return true
		}
	}
	return false
}

func (s *Server) newID(prefix string) string { return prefix + authority.SortableID(s.clock.Now()) }

// openTrail opens the audit trail and reads from it the uses that the store
// does not have yet.
func (s *Server) openTrail(ctx context.Context) error {
	var err error
	s.trail, err = trail.Open(trail.Config{
		Dir: s.cfg.Path(s.cfg.Audit.Dir, "audit"), Second: s.cfg.Audit.Second, Key: s.keys, Now: s.clock.Now,
		NewID: func() string { return s.newID("evt_") }, Strict: s.cfg.Audit.Sync == "strict", Log: s.log,
		KeepUses: time.Duration(s.cfg.Retention.Uses), KeepActs: time.Duration(s.cfg.Retention.Acts), Ahead: s.clock.Ahead, Holds: holding{s},
	})
	if err != nil {
		return err
	}
	if err := s.tokens.Uses(ctx, func(u authn.LastUse) error {
		s.table.ApplyUse(u)
		return nil
	}); err != nil {
		return err
	}
	if err := s.tokens.Guesses(ctx, func(g authn.Guessed) error {
		s.table.ApplyGuesses(g)
		return nil
	}); err != nil {
		return err
	}
	outages, err := s.tokens.Outages(ctx)
	if err != nil {
		return err
	}
	s.table.ApplyOutages(outages)
	from, err := s.tokens.UsesPosition(ctx)
	if err != nil {
		return err
	}
	err = s.trail.Replay(from, func(_ uint64, e audit.Event) {
		if e.Token != "" && e.Outcome == audit.Allow && policy.Counts(e.Mode) {
			s.table.Replay(authn.LastUse{Token: token.ID(e.Token), Use: useOf(e)})
		}
	})
	if err != nil {
		return err
	}
	// What was rebuilt has no uses of its own; a token that none is known of
	// counts as used then, since nobody can tell that it was not.
	rebuilt, err := s.tokens.RebuiltAt(ctx)
	if err == nil && !rebuilt.IsZero() {
		s.table.AssumeUsed(rebuilt)
	}
	return err
}

func (s *Server) openJobs(ctx context.Context) error {
	var err error
	s.jobs, err = store.OpenJobs(ctx, store.JobsConfig{Dir: s.cfg.Data, URL: s.cfg.Database.Jobs, Now: s.clock.Now, Log: s.log})
	if err != nil {
		return err
	}
	known := func(c grading.Competition) { s.table.ApplyCompetition(c.Name, c.Project, c.Version) }
	s.jobs.FollowCompetitions(known)
	all, err := s.jobs.Competitions(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		known(c)
	}
	s.jobs.FollowHandles(s.table.ApplyHandle)
	if err := s.jobs.Handles(ctx, func(h authn.Handle) error {
		s.table.ApplyHandle(h)
		return nil
	}); err != nil {
		return err
	}
	s.executor, err = executor.Open(s.cfg.Executor.Kind, executor.Options{
		Dir: filepath.Join(s.cfg.Data, "executor"), GPUs: s.cfg.Executor.Local.GPUs, Slots: s.cfg.Executor.Local.Slots, Unsafe: s.cfg.Executor.Local.Unsafe,
	})
	if err != nil {
		return err
	}
	if p, ok := s.executor.(executor.Prober); ok {
		s.isolation = p.Probe()
	}
	return nil
}

func (s *Server) openUseCases(ctx context.Context) error {
	s.authority = authority.New(s.tokens, s.table, s.keys, s.clock.Now)
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	s.grading, err = grading.New(grading.Config{
		Store: s.jobs, Executor: s.executor, Gate: s.table, Keys: s.keys, Now: s.clock.Now, NewID: s.newID,
		Dir: filepath.Join(s.cfg.Data, "grading"), Node: host, Log: s.log,
		Files: filesFor(descriptors()),
	})
	if err != nil {
		return err
	}
	if err := s.grading.CleanUp(ctx); err != nil {
		s.log.Warn("cleaning up after jobs that ended", "error", err) // it takes room, and no more
	}
	return nil
}

// localSubject is the server acting for whoever started it.
func (s *Server) localSubject() *policy.Subject {
	return &policy.Subject{Local: true, LocalUID: uint32(os.Getuid()), Request: s.newID("req_")} //nolint:gosec // a uid is not negative here
}

// firstAdministrator makes a fresh invite as long as no administrator ever came in.
func (s *Server) firstAdministrator(ctx context.Context) (token.Secret, error) {
	if s.table.HadAdmin() {
		return token.Secret{}, nil
	}
	made, err := s.authority.Invite(ctx, s.localSubject(), authority.NewUser{Name: "admin", Role: principal.Admin}, authority.Idem{})
	if fault.CodeOf(err) == "role_differs" && err != nil {
		return token.Secret{}, nil // somebody of that name exists; the local socket is the way in
	}
	return made.Code, err
}

// close closes what was opened, the last thing first.
func (s *Server) close() error {
	var errs []error
	if s.trail != nil && s.tokens != nil && s.jobs != nil {
		s.drainAll(context.Background())
		errs = append(errs, s.flushUses(context.Background()))
		s.flushGuesses(context.Background())
	}
	if s.jobs != nil {
		errs = append(errs, s.jobs.Close())
	}
	if s.trail != nil {
		errs = append(errs, s.trail.Close())
	}
	if s.tokens != nil {
		errs = append(errs, s.tokens.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	return nil
}
