package maintenance

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

const (
	// batchMost bounds one decision, and lookMost how many tokens are looked at
	// in one go: what a batch costs does not depend on how many there are.
	batchMost = 200
	lookMost  = 10_000
	// requestMost bounds what one request moves; who asks goes on asking.
	requestMost = 10_000
	leaseTime   = 2 * time.Minute
	examples    = 3
)

// Class counts tokens of one kind that ended in one way, or stay for one reason.
type Class struct {
	Name     string
	Count    int
	Examples []token.ID
}

// Report says what a sweep did, or would do.
type Report struct {
	Dry         bool
	Began, Done time.Time
	Looked      int
	// Moved is how many went to the archive, and Classes of which kinds. Kept is
	// why others that have ended stay.
	Moved   int
	Classes []Class
	Kept    []Class
	// Sealed is how many rows of the archive became tombstones, and Segments
	// where the rest of them is.
	Sealed   int
	Segments []string
	// More is set if there is more to do than one request does.
	More bool
	// Skipped is why nothing was done.
	Skipped string
}

// Sweep moves what is due now; a dry run only says what that is.
func (m *Maintenance) Sweep(ctx context.Context, s *policy.Subject, dry bool) (Report, error) {
	if err := policy.Decide(s, policy.SweepRun, policy.Resource{}); err != nil {
		return Report{}, err
	}
	return m.sweep(ctx, byline(s), dry, requestMost)
}

var errSweeping = fault.New(fault.Conflict, "sweep_running", "A sweep is running already, here or on another node.").
	WithFix("Look at how it goes on: gradegate status")

var errSegment = fault.New(fault.Unavailable, "archive_unwritable", "A segment of the archive cannot be written; nothing was taken away for it.").
	WithFix("Operator: free space in archive.dir or repair it, then: gradegate sweep")

// sweep is one run; most bounds what it moves, and 0 does not.
func (m *Maintenance) sweep(ctx context.Context, by audit.Event, dry bool, most int) (Report, error) {
	if !m.running.TryLock() {
		return Report{}, errSweeping
	}
	defer m.running.Unlock()
	r := run{Maintenance: m, by: by, most: most, moves: tally{}, stays: tally{}}
	r.Dry, r.Began = dry, m.Now()
	err := r.all(ctx)
	r.Done, r.Classes, r.Kept = m.Now(), r.moves.classes(), r.stays.classes()
	if !dry && (err == nil || r.Moved > 0) {
		m.mu.Lock()
		m.last = r.Report
		m.mu.Unlock()
	}
	return r.Report, err
}

// run is one sweep under way.
type run struct {
	*Maintenance
	Report
	by           audit.Event
	most         int
	held         Held
	jobs         map[token.ID]bool
	moves, stays tally
}

func (r *run) all(ctx context.Context) error {
	if err := r.gather(ctx); err != nil {
		return err
	}
	for place := 0; place >= 0 && !r.More; {
		if ok, err := r.may(ctx); !ok || err != nil {
			return err
		}
		var found []token.Token
		next, looked := r.Table.Ended(place, lookMost, r.Began, func(k *token.Token, o token.Over) {
			if r.Began.Before(o.At.Add(KeepEnded)) {
				r.stays.add(string(StaysEnded), k.ID)
				return
			}
			found = append(found, *k)
		})
		place, r.Looked = next, r.Looked+looked
		for chunk := range slices.Chunk(found, batchMost) {
			if err := r.batch(ctx, chunk); err != nil {
				return err
			}
		}
	}
	return r.seal(ctx)
}

// may asks before each step whether time can be trusted and the work is still ours.
func (r *run) may(ctx context.Context) (bool, error) {
	if r.Skipped = r.Doubt(); r.Skipped != "" {
		return false, nil
	}
	if r.Dry {
		return true, ctx.Err()
	}
	ours, err := r.Store.Lease(ctx, "sweep", r.Now().Add(leaseTime))
	if err == nil && !ours {
		err = errSweeping
	}
	return err == nil, err
}

// gather learns what holds tokens back from outside of their lineage.
func (r *run) gather(ctx context.Context) error {
	holds, err := r.Store.Holds(ctx)
	if err != nil {
		return err
	}
	r.held = HeldAt(holds, r.Began)
	vias, err := r.Jobs.Vias(ctx)
	r.jobs = map[token.ID]bool{}
	for _, id := range vias {
		for _, a := range r.Table.Ancestors(id) {
			r.jobs[a] = true
		}
	}
	return err
}

// batch judges some tokens by what the database says of them now, and moves
// those that may go, in one decision.
func (r *run) batch(ctx context.Context, found []token.Token) error {
	if ok, err := r.may(ctx); !ok || err != nil {
		return err
	}
	all, err := r.facts(ctx, found)
	if err != nil {
		return err
	}
	var moves []Move
	for i := range all {
		f := &all[i].Facts
		if v := Judge(f, r.Began); v != Goes {
			r.stays.add(string(v), f.Token.ID)
			continue
		}
		moves = append(moves, Move{Old: f.Token, New: Archived{
			Version: 1, Token: f.Token, Use: all[i].use, EndedAt: f.Over.At, Why: f.Over.State, ArchivedAt: r.Began,
		}})
	}
	if !r.Dry {
		if err := r.move(ctx, moves); err != nil {
			return err
		}
		r.pause(ctx)
	}
	for _, mv := range moves {
		r.moves.add(mv.Old.Kind.String()+" "+string(mv.New.Why), mv.Old.ID)
	}
	r.Moved += len(moves)
	r.More = r.most > 0 && r.Moved >= r.most
	return nil
}

// move is one decision, or two halves of one that is too large.
func (r *run) move(ctx context.Context, moves []Move) error {
	if len(moves) == 0 {
		return nil
	}
	e := r.event(r.by, audit.TokenArchive)
	e.Count = int64(len(moves))
	ids := make([]string, len(moves))
	for i, mv := range moves {
		ids[i] = string(mv.Old.ID)
	}
	e.Detail = map[string]string{"tokens": strings.Join(ids, " ")}
	err := r.Store.Archive(ctx, moves, e)
	if err != nil && fault.KindOf(err) == fault.TooLarge && len(moves) > 1 {
		half := len(moves) / 2
		if err = r.move(ctx, moves[:half]); err == nil {
			err = r.move(ctx, moves[half:])
		}
		return err
	}
	if err == nil {
		r.mu.Lock()
		r.Maintenance.moved += int64(len(moves))
		r.mu.Unlock()
	}
	return err
}

func (r *run) pause(ctx context.Context) {
	if r.Pause > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(r.Pause):
		}
	}
}

// subject is a token that may go, with its uses.
type subject struct {
	Facts
	use token.Use
}

// facts are those of some tokens as they stand in the database, which any node
// may have changed. What is gone from there is forgotten here.
func (r *run) facts(ctx context.Context, found []token.Token) ([]subject, error) {
	kin, err := r.Store.Kin(ctx, found)
	if err != nil {
		return nil, err
	}
	ids := make([]token.ID, len(kin))
	for i := range kin {
		ids[i] = kin[i].ID
	}
	uses, err := r.Store.LastUses(ctx, ids)
	if err != nil {
		return nil, err
	}
	known := map[token.ID]*Facts{}
	families, children := map[token.Family][]token.ID{}, map[token.ID][]token.ID{}
	for i := range kin {
		f := &Facts{Token: kin[i], Job: r.jobs[kin[i].ID], Held: r.held.Token(&kin[i])}
		f.Over, f.Ended = r.Table.Over(&f.Token, uses[f.Token.ID], r.Began)
		known[f.Token.ID] = f
		if f.Token.Family != "" {
			families[f.Token.Family] = append(families[f.Token.Family], f.Token.ID)
		}
		children[f.Token.Parent] = append(children[f.Token.Parent], f.Token.ID)
	}
	var out []subject
	var gone []token.ID
	for _, k := range found {
		f, ok := known[k.ID]
		if !ok {
			gone = append(gone, k.ID)
			continue
		}
		for _, id := range append(slices.Clone(families[f.Token.Family]), children[k.ID]...) {
			if id != k.ID {
				f.Kin = append(f.Kin, known[id])
			}
		}
		out = append(out, subject{*f, uses[k.ID]})
	}
	if len(gone) > 0 {
		r.Table.Forget(gone)
	}
	return out, nil
}

// tally counts by name.
type tally map[string]*Class

func (t tally) add(name string, id token.ID) {
	c := t[name]
	if c == nil {
		c = &Class{Name: name}
		t[name] = c
	}
	if c.Count++; len(c.Examples) < examples {
		c.Examples = append(c.Examples, id)
	}
}

// classes are in order of their names.
func (t tally) classes() []Class {
	out := []Class{}
	for _, c := range slices.SortedFunc(maps.Values(t), func(a, b *Class) int { return cmp.Compare(a.Name, b.Name) }) {
		out = append(out, *c)
	}
	return out
}
