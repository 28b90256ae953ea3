package trail

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/journal"
)

// sink is one place that keeps the trail: a folder with both streams. A sink
// that fails or does not answer is left out for a while, so that it never
// holds up what another sink has recorded.
type sink struct {
	dir     string
	streams map[string]*stream
	now     clock.Func
	log     *slog.Logger
	newID   func() string

	// soon is done between one and two deadlines from now; it is renewed each
	// second, so that a line needs no timer of its own.
	soon atomic.Pointer[deadline]

	mu     sync.Mutex
	down   bool
	err    error
	pause  time.Duration
	retry  time.Time
	missed map[string]int64 // lines by stream that others have and this one has not
}

// deadline is a context that many lines share.
type deadline struct {
	context.Context
	cancel context.CancelFunc
}

// renew makes the shared deadline one that ends later.
func (s *sink) renew(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d+time.Second)
	if old := s.soon.Swap(&deadline{ctx, cancel}); old != nil {
		// Whoever waits on the old one still has its time.
		time.AfterFunc(d+time.Second, old.cancel)
	}
}

// How long a failed sink is left out: doubling from the first to the second.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

func openSink(dir string, o Config) (*sink, []journal.Recovery, error) {
	s := &sink{dir: dir, streams: map[string]*stream{}, now: o.Now, log: o.Log, newID: o.NewID, missed: map[string]int64{}}
	s.renew(o.SinkDeadline)
	var recs []journal.Recovery
	for _, name := range []string{Use, Act} {
		st, rec, err := openStream(dir, name, o.Key.ID(), o)
		if err != nil {
			return nil, nil, errors.Join(err, s.shut(nil))
		}
		s.streams[name] = st
		recs = append(recs, rec)
	}
	return s, recs, nil
}

// errDown says that a sink is being left out.
var errDown = errors.New("the sink is down")

// write appends lines to a stream within the deadline.
func (s *sink) write(ctx context.Context, name string, lines [][]byte, durable bool, deadline time.Duration) error {
	gap, ok := s.ready(name)
	if !ok {
		s.miss(name, len(lines))
		return errDown
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
	defer cancel()
	own := len(lines)
	if gap > 0 {
		lines = append([][]byte{s.gapLine(name, gap)}, lines...)
	}
	var err error
	if len(lines) == 1 {
		err = s.streams[name].append(ctx, lines[0], durable)
	} else {
		_, err = s.streams[name].commit.AppendAll(ctx, lines, durable)
	}
	s.settle(name, err, gap, own)
	return err
}

// writeOne is write for the common case: one line, and a sink that works.
func (s *sink) writeOne(ctx context.Context, name string, line []byte, durable bool, deadline time.Duration) error {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down {
		return s.write(ctx, name, [][]byte{line}, durable, deadline)
	}
	err := s.streams[name].append(s.soon.Load(), line, durable)
	if err != nil {
		s.settle(name, err, 0, 1)
	}
	return err
}

// ready says whether the sink may be asked, and how many lines of the stream
// it has missed.
func (s *sink) ready(name string) (gap int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.down {
		return 0, true
	}
	if s.now().Before(s.retry) {
		return 0, false
	}
	s.retry = s.now().Add(s.pause) // one caller tries; the others go on without
	return s.missed[name], true
}

func (s *sink) miss(name string, n int) {
	s.mu.Lock()
	s.missed[name] += int64(n)
	s.mu.Unlock()
}

func (s *sink) settle(name string, err error, gap int64, lines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if s.down {
			s.log.Info("trail: the sink is back", "dir", s.dir)
		}
		s.down, s.err, s.pause = false, nil, 0
		s.missed[name] -= gap
		return
	}
	s.missed[name] += int64(lines)
	if !s.down {
		s.log.Error("trail: the sink is down", "dir", s.dir, "error", err)
	}
	s.down, s.err = true, err
	s.pause = min(max(firstPause, 2*s.pause), lastPause)
	s.retry = s.now().Add(s.pause)
}

// gapLine is the first line after an outage: it says what is missing here and
// stands in the other sink.
func (s *sink) gapLine(name string, n int64) []byte {
	e := audit.Event{ID: s.newID(), At: s.now(), Action: audit.TrailGap, Outcome: audit.Done, Actor: "system", Count: n,
		Detail: map[string]string{"stream": name, "missing": strconv.FormatInt(n, 10)}}
	return e.Encode()
}

func (s *sink) health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.Join(errDown, s.err)
	}
	return nil
}

func (s *sink) shut(sign *signer) error {
	if d := s.soon.Load(); d != nil {
		defer d.cancel()
	}
	var errs []error
	for _, st := range s.streams {
		errs = append(errs, st.close(sign, s.now()))
	}
	return errors.Join(errs...)
}
