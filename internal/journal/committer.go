package journal

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// defaultSyncInterval is the promise of the trail: what was handed to the kernel
// is on the disk a tenth of a second later.
const defaultSyncInterval = 100 * time.Millisecond

// CommitterOptions configure NewCommitter. The zero value works.
type CommitterOptions struct {
	// SyncInterval is the longest time between the acknowledgement of an append that
	// is not durable and the fsync that makes it so; 0 means 100 ms.
	SyncInterval time.Duration
	// OnBatch is called after each written batch, in order, before its callers
	// are answered, with the index of its first record and the position after
	// it. The slices are valid only during the call. It must be quick and must
	// not append.
	OnBatch func(first uint64, records [][]byte, pos Position)
	// OnSyncError is called, from one goroutine, when the later fsync fails.
	// The records stay in memory and are tried again, in a new segment, until
	// it works or the committer is closed.
	OnSyncError func(error)
}

// Committer turns appends from many goroutines into few batches: what arrives
// while one batch is on its way to the disk becomes the next one. It is safe
// for concurrent use.
type Committer struct {
	j *Journal
	o CommitterOptions

	mu     sync.Mutex
	queue  *group // collects
	spare  *group // its buffers wait for the next swap
	closed bool

	wake    chan struct{} // the queue is not empty, or closed
	dirty   chan struct{} // a batch was written without sync
	quit    chan struct{} // closed by Close
	loops   sync.WaitGroup
	once    sync.Once
	lastErr error
}

// group is one batch in the making, with the answer its callers wait for.
type group struct {
	batch   batch
	durable bool
	*outcome
}

// outcome outlives the group's buffers, because callers may look late.
type outcome struct {
	done  chan struct{} // closed when the fields below are final
	first uint64
	err   error
}

func newOutcome() *outcome { return &outcome{done: make(chan struct{})} }

// NewCommitter starts a committer on j, which the caller closes after it. As
// long as it lives, nothing else should write to j.
func NewCommitter(j *Journal, o CommitterOptions) *Committer {
	if o.SyncInterval <= 0 {
		o.SyncInterval = defaultSyncInterval
	}
	c := &Committer{
		j: j, o: o,
		queue: &group{outcome: newOutcome()},
		spare: &group{},
		wake:  make(chan struct{}, 1),
		dirty: make(chan struct{}, 1),
		quit:  make(chan struct{}),
	}
	c.loops.Go(c.commitLoop)
	c.loops.Go(c.syncLoop)
	return c
}

// Append adds one record and returns its index when the record is written
// (handed to the kernel: it survives the death of the process), or, if durable,
// when it is on the disk. The record is copied before Append returns.
//
// An error of the journal means that the record is void; see Journal.Write. An
// error of ctx means that nobody waits any more, and the record may still be written.
func (c *Committer) Append(ctx context.Context, record []byte, durable bool) (uint64, error) {
	if err := checkRecord(record); err != nil {
		return 0, err
	}
	sum := checksum(record)
	return c.append(ctx, durable, func(b *batch) { b.add(record, sum) })
}

// AppendAll is Append for records that belong together: they get successive
// indices within one batch, so that after a crash there are all of them or
// none. It returns the index of the first.
func (c *Committer) AppendAll(ctx context.Context, records [][]byte, durable bool) (uint64, error) {
	if len(records) == 0 {
		return 0, ErrRecord
	}
	sums := make([]uint32, len(records))
	for i, r := range records {
		if err := checkRecord(r); err != nil {
			return 0, err
		}
		sums[i] = checksum(r)
	}
	return c.append(ctx, durable, func(b *batch) {
		for i, r := range records {
			b.add(r, sums[i])
		}
	})
}

func (c *Committer) append(ctx context.Context, durable bool, add func(*batch)) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, ErrClosed
	}
	g := c.queue
	n := len(g.batch.inner)
	add(&g.batch)
	g.durable = g.durable || durable
	out := g.outcome
	c.mu.Unlock()
	if n == 0 {
		signal(c.wake)
	}
	select {
	case <-out.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if out.err != nil {
		return 0, out.err
	}
	return out.first + uint64(n), nil
}

// signal sends to a channel of capacity one, where one message says it all.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// commitLoop writes one queue after the other. Two groups of buffers take
// turns, so that appends never wait for a write to end before they can queue.
func (c *Committer) commitLoop() {
	var records [][]byte
	for range c.wake {
		// Those whom the last batch has just answered are about to come back.
		// Letting them run first makes one big batch out of two.
		runtime.Gosched()
		g, closed := c.swap()
		if len(g.batch.inner) > 0 {
			pos, err := c.j.commit(&g.batch, g.durable)
			g.err = err
			if err == nil {
				g.first = pos.Next - uint64(len(g.batch.inner))
				if c.o.OnBatch != nil {
					records = g.batch.records(records[:0])
					c.o.OnBatch(g.first, records, pos)
				}
				if !g.durable {
					signal(c.dirty)
				}
			}
			close(g.done)
			g.batch.reset()
		}
		if closed {
			return
		}
	}
}

// swap takes the queue and puts an empty one in its place.
func (c *Committer) swap() (g *group, closed bool) {
	next := newOutcome()
	c.mu.Lock()
	defer c.mu.Unlock()
	g = c.queue
	c.queue, c.spare = c.spare, g
	c.queue.durable, c.queue.outcome = false, next
	return g, c.closed
}

// syncLoop follows batches written without sync, one interval later. It has a
// goroutine of its own so that writes do not wait for its fsync.
func (c *Committer) syncLoop() {
	for {
		select {
		case <-c.quit:
			return
		case <-c.dirty:
		}
		timer := time.NewTimer(c.o.SyncInterval)
		select {
		case <-c.quit:
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := c.j.Sync(); err != nil {
			if c.o.OnSyncError != nil {
				c.o.OnSyncError(err)
			}
			if c.j.Reopen() != nil {
				signal(c.dirty) // still owed
			}
		}
	}
}

// Close writes what is queued, syncs everything and stops. Appends that come
// later get ErrClosed. It does not close the journal. The error is that of the
// final sync.
func (c *Committer) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		close(c.quit)
		signal(c.wake)
		c.loops.Wait()
		c.lastErr = c.j.Sync()
	})
	return c.lastErr
}
