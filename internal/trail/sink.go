package trail

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
)

// sink is one place that keeps the trail: a folder with both streams. A sink
// that fails or does not answer is left out for a while, so that it never
// holds up what another sink has recorded.
//
// Lines come from anywhere and wait no longer than their deadline. Everything
// else that touches the disk is done by one goroutine, run, which may hang
// with the disk without anybody waiting for it.
type sink struct {
	dir     string
	o       *Config
	streams [2]*stream // use, act

	up     atomic.Bool
	failed chan struct{}   // up has become false
	asked  chan chan error // for a checkpoint now
	first  chan error      // the outcome of the first opening
	last   chan error      // that of the closing
	kept   chan struct{}   // closed when nothing is compressed any more
	pause  time.Duration   // of the latest healing

	mu       sync.Mutex
	err      error // why it is down
	unsigned error // why the last checkpoint was not stored
	upSince  time.Time
	worked   time.Duration // for how long it was up last
	signing  time.Time     // since when a checkpoint is being made
	missed   map[string]int64
}

const (
	// A sink that failed is left out for a while: longer each time, up to the
	// second figure, until it has worked for as long as that.
	firstPause = time.Second
	lastPause  = time.Minute
	// everySecond is how often there is a checkpoint, if anything happened.
	everySecond = time.Second
)

var (
	errDown   = errors.New("the sink is down")
	errHangs  = errors.New("fsync does not come to an end")
	errOpened = errors.New("it is not open yet")
)

// newSink starts a sink that lives as long as ctx. It can be used once first
// says so.
func newSink(ctx context.Context, dir string, o *Config, sign *signer) *sink {
	s := &sink{
		dir: dir, o: o, missed: map[string]int64{}, err: errOpened,
		failed: make(chan struct{}, 1), asked: make(chan chan error), first: make(chan error, 1), last: make(chan error, 1), kept: make(chan struct{}),
	}
	for i, name := range []string{Use, Act} {
		s.streams[i] = newStream(dir, name, o, sign, s.fail)
	}
	go s.run(ctx)
	go s.keep(ctx)
	return s
}

func (s *sink) stream(name string) *stream {
	if name == Use {
		return s.streams[0]
	}
	return s.streams[1]
}

// write appends lines to a stream.
func (s *sink) write(ctx context.Context, name string, lines [][]byte, durable bool) error {
	if !s.up.Load() {
		return errDown
	}
	_, err := s.stream(name).commit.Load().AppendAll(ctx, lines, durable)
	return s.judge(err)
}

// writeOne is write for one line, without allocation.
func (s *sink) writeOne(ctx context.Context, name string, line []byte, durable bool) error {
	if !s.up.Load() {
		return errDown
	}
	_, err := s.stream(name).commit.Load().Append(ctx, line, durable)
	return s.judge(err)
}

// writeNew appends those of the lines that the stream does not have yet.
func (s *sink) writeNew(ctx context.Context, name string, lines [][]byte) error {
	lines = s.stream(name).ids.without(lines)
	if len(lines) == 0 {
		return nil // they are durable here, even if the sink is down by now
	}
	return s.write(ctx, name, lines, true)
}

// judge takes the sink out of use if err is the disk's fault.
func (s *sink) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, journal.ErrRecord): // the line is too long: nothing was tried
		return err
	case errors.Is(err, journal.ErrClosed), errors.Is(err, context.Canceled): // by ourselves, closing
		return err
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %v", s.o.SinkDeadline)
	}
	s.fail(err)
	return err
}

// fail takes the sink out of use until it is healed.
func (s *sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up.Load() {
		return
	}
	s.up.Store(false)
	s.err, s.worked = err, time.Since(s.upSince)
	s.failed <- struct{}{} // has room: the loop took the one before
	s.o.Log.Error("trail: the sink is down", "dir", s.dir, "error", err)
}

// miss counts lines that another sink has recorded and this one, as far as is
// known, has not.
func (s *sink) miss(name string, n int) {
	s.mu.Lock()
	s.missed[name] += int64(n)
	s.mu.Unlock()
}

// run is the sink's life.
func (s *sink) run(ctx context.Context) {
	s.open()
	tick := time.NewTicker(everySecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			<-s.kept
			s.last <- s.close()
			return
		case <-s.failed:
			s.heal(ctx)
		case <-tick.C:
			s.tellGaps(ctx)
			_ = s.checkpoint(false) // health tells
		case reply := <-s.asked:
			reply <- s.checkpoint(true)
		}
	}
}

// open is the first opening. Where it fails, the sink goes on trying.
func (s *sink) open() {
	err := s.revive()
	if err != nil {
		s.failed <- struct{}{}
	}
	s.first <- err
}

// heal tries to bring the sink back until it is, or the trail is closed.
func (s *sink) heal(ctx context.Context) {
	s.mu.Lock()
	if s.worked >= lastPause {
		s.pause = 0
	}
	s.mu.Unlock()
	for {
		s.pause = min(max(firstPause, 2*s.pause), lastPause)
		timer := time.NewTimer(s.pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if s.revive() == nil {
			s.o.Log.Info("trail: the sink is back", "dir", s.dir)
			s.tellGaps(ctx)
			return
		}
	}
}

// revive opens what is not open and begins new segments where it is.
func (s *sink) revive() error {
	var err error
	for _, st := range s.streams {
		if err = st.restart(); err != nil {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	if err == nil {
		s.upSince = time.Now()
		s.up.Store(true)
	}
	return err
}

// tellGaps writes, into each stream that has missed lines, how many.
func (s *sink) tellGaps(ctx context.Context) {
	for _, st := range s.streams {
		s.mu.Lock()
		n := s.missed[st.name]
		s.mu.Unlock()
		if n == 0 || !s.up.Load() {
			continue
		}
		if err := s.writeOne(ctx, st.name, s.gapLine(st.name, n), true); err != nil {
			return // told another time
		}
		s.miss(st.name, -int(n))
	}
}

// gapLine says that this sink lacks n lines that stand in the other one. It
// may lack fewer: a line whose writing was given up may have been written.
func (s *sink) gapLine(name string, n int64) []byte {
	e := audit.Event{ID: s.o.NewID(), At: s.o.Now(), Action: audit.TrailGap, Outcome: audit.Done, Actor: "system", Count: n,
		Detail: map[string]string{"stream": name}}
	return e.Encode()
}

// checkpoint signs both streams, if the sink works, and keeps the notes if it
// is asked to.
func (s *sink) checkpoint(keep bool) error {
	if !s.up.Load() {
		return nil
	}
	s.setSigning(time.Now())
	var errs []error
	for _, st := range s.streams {
		errs = append(errs, st.checkpoint(s.o.Now(), keep))
	}
	s.setSigning(time.Time{})
	err := errors.Join(errs...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.unsigned == nil {
		s.o.Log.Error("trail: no checkpoint", "dir", s.dir, "error", err)
	}
	s.unsigned = err
	return err
}

func (s *sink) setSigning(since time.Time) {
	s.mu.Lock()
	s.signing = since
	s.mu.Unlock()
}

// watch takes the sink out of use when making a checkpoint does not end: lines
// that the kernel takes without writing them would be kept in memory alone.
func (s *sink) watch() {
	s.mu.Lock()
	hangs := !s.signing.IsZero() && time.Since(s.signing) > s.o.SinkDeadline
	s.mu.Unlock()
	if hangs {
		s.fail(errHangs)
	}
}

// health is nil while the sink works.
func (s *sink) health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up.Load() {
		return fmt.Errorf("%w: %w", errDown, s.err)
	}
	return s.unsigned
}

// close writes and signs what is pending, as far as the sink works.
func (s *sink) close() error {
	s.tellGaps(context.Background())
	s.mu.Lock()
	for name, n := range s.missed {
		if n > 0 {
			s.o.Log.Error("trail: the sink is down and lacks lines that stand in the other one", "dir", s.dir, "stream", name, "lines", n)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, st := range s.streams {
		errs = append(errs, st.close(s.o.Now()))
	}
	s.up.Store(false)
	return errors.Join(errs...)
}
