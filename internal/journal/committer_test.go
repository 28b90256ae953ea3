package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// 64 goroutines append; each index is given once, and every record is read back
// exactly once at the index its caller was told.
func TestCommitterConcurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := mustOpen(t, dir, Options{SegmentBytes: 20 << 10, Preallocate: 4096})
	var seen [][]byte // by OnBatch, which runs alone
	c := NewCommitter(j, CommitterOptions{SyncInterval: time.Millisecond, OnBatch: func(first uint64, records [][]byte, pos Position) {
		if first != uint64(len(seen)) || pos.Next != first+uint64(len(records)) {
			t.Errorf("OnBatch %d after %d", first, len(seen))
		}
		for _, r := range records {
			seen = append(seen, bytes.Clone(r))
		}
	}})
	const writers, each = 64, 20
	var mu sync.Mutex
	told := map[uint64][]byte{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := [][]byte{fmt.Appendf(nil, `{"w":%d,"i":%d}`, w, i), fmt.Appendf(nil, `{"w":%d,"i":%d,"second":1}`, w, i)}
				var first uint64
				var err error
				if b = b[:1+i%2]; len(b) == 1 {
					first, err = c.Append(t.Context(), b[0], i%3 == 0)
				} else {
					first, err = c.AppendAll(t.Context(), b, i%3 == 0)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for k, r := range b {
					told[first+uint64(k)] = r
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if j.Synced() != j.Position() {
		t.Error("Close did not sync")
	}
	want := make([][]byte, len(told))
	for i := range want {
		want[i] = told[uint64(i)]
	}
	if len(want) != writers*each*3/2 {
		t.Errorf("%d distinct indices", len(want))
	}
	wantRecords(t, dir, want)
	if !slices.EqualFunc(seen, want, bytes.Equal) {
		t.Error("OnBatch saw something else")
	}
	if _, err := c.Append(t.Context(), rec(0), false); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestCommitterRefuses(t *testing.T) {
	t.Parallel()
	j, _ := mustOpen(t, t.TempDir(), Options{})
	c := NewCommitter(j, CommitterOptions{})
	defer c.Close()
	if _, err := c.Append(t.Context(), []byte("x"), true); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
	if _, err := c.AppendAll(t.Context(), [][]byte{rec(0), []byte("x")}, true); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
	if _, err := c.AppendAll(t.Context(), nil, true); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Append(ctx, rec(0), true); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if index, err := c.Append(t.Context(), rec(0), true); err != nil || index != 0 {
		t.Errorf("%d %v", index, err)
	}
}

// A batch that fails tells all its callers; the next one finds a new segment.
// Run over every fault, with callers that know what they were told.
func TestCommitterEveryFault(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		dir := t.TempDir()
		d := newFaultDisk()
		j, _, err := open(dir, faultOptions, d)
		if err != nil {
			t.Fatal(err)
		}
		d.at = d.n + at
		c := NewCommitter(j, CommitterOptions{SyncInterval: time.Hour})
		var mu sync.Mutex
		told := map[uint64][]byte{}
		var failed atomic.Int64
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 8 {
					r := fmt.Appendf(nil, `{"w":%d,"i":%d}`, w, i)
					index, err := c.Append(t.Context(), r, i%2 == 0)
					if err != nil {
						failed.Add(1)
						continue
					}
					mu.Lock()
					told[index] = r
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		// The final sync may be what fails; then one more attempt heals it.
		if err := c.Close(); err != nil && (!errors.Is(err, errInjected) || j.Sync() != nil) {
			t.Fatal(err)
		}
		got, _, err := readAll(dir)
		if err != nil || len(got) != len(told) {
			t.Fatalf("fault %d: read %d, acknowledged %d, failed %d: %v", at, len(got), len(told), failed.Load(), err)
		}
		for i, r := range got {
			if !bytes.Equal(r, told[uint64(i)]) {
				t.Fatalf("fault %d: record %d is %s, told %s", at, i, r, told[uint64(i)])
			}
		}
		_ = j.Close()
		if !d.hit {
			if failed.Load() > 0 {
				t.Errorf("%d appends failed without a fault", failed.Load())
			}
			return
		}
	}
}

// What was handed to the kernel is fsynced one interval later, also when the
// first fsync fails.
func TestCommitterSyncInterval(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newFaultDisk()
		j, _, err := open(dir, Options{Stream: "test"}, d)
		if err != nil {
			t.Fatal(err)
		}
		var syncErrors atomic.Int64
		c := NewCommitter(j, CommitterOptions{OnSyncError: func(err error) {
			if errors.Is(err, errInjected) {
				syncErrors.Add(1)
			}
		}})
		for round, fails := range []bool{false, true, false} {
			if _, err := c.Append(t.Context(), rec(round), false); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if fails {
				d.at = d.n + 1
			}
			if j.Synced().Next != uint64(round) {
				t.Errorf("round %d: synced at once", round)
			}
			<-time.After(defaultSyncInterval - 1) // by the clock of the bubble
			synctest.Wait()
			if j.Synced().Next != uint64(round) {
				t.Errorf("round %d: synced too early", round)
			}
			<-time.After(1)
			synctest.Wait()
			if j.Synced().Next != uint64(round+1) {
				t.Errorf("round %d: not synced after the interval", round)
			}
		}
		if syncErrors.Load() != 1 {
			t.Errorf("%d sync errors", syncErrors.Load())
		}
		if err := errors.Join(c.Close(), c.Close(), j.Close()); err != nil {
			t.Error(err)
		}
	})
	wantRecords(t, dir, recs(0, 3))
}

// Readers beside a busy writer see a growing prefix and never an error.
func TestReadersBesideWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := mustOpen(t, dir, Options{SegmentBytes: 200 << 10, Preallocate: 32 << 10})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for last := uint64(0); ; {
				pos, err := Verify(dir)
				if err != nil || pos.Next < last {
					t.Errorf("after %d: %+v, %v", last, pos, err)
					return
				}
				last = pos.Next
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 300 {
		mustWrite(t, j, recs(i*20, 1+i%60), i%50 == 0)
	}
	close(stop)
	wg.Wait()
}

// BenchmarkCommit reports durable events per second, and the ratio of each
// event's cost to that of a bare fdatasync after the same bytes, in the same run.
func BenchmarkCommit(b *testing.B) {
	record := fmt.Appendf(nil, `{"event":%q}`, bytes.Repeat([]byte("e"), 280))
	for _, durable := range []bool{true, false} {
		for _, writers := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("durable=%v/writers=%d", durable, writers), func(b *testing.B) {
				bare := bareSync(b, len(record)+lineExtra)
				j, _ := mustOpen(b, b.TempDir(), Options{Preallocate: 4 << 20})
				c := NewCommitter(j, CommitterOptions{})
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				for range writers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := c.Append(context.Background(), record, durable); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				perEvent := b.Elapsed() / time.Duration(b.N)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
				b.ReportMetric(float64(time.Second)/float64(bare), "bare-fdatasync/s")
				b.ReportMetric(float64(bare)/float64(max(perEvent, 1)), "events/bare")
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// bareSync is the time of one write of n bytes and one fdatasync in
// preallocated space.
func bareSync(b *testing.B, n int) time.Duration {
	b.Helper()
	f, err := osDisk{}.create(b.TempDir() + "/bare")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const rounds = 100
	buf := bytes.Repeat([]byte{'x'}, n)
	if err := errors.Join(writeAt(f, make([]byte, rounds*n), 0), f.Datasync()); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	for i := range rounds {
		if err := errors.Join(writeAt(f, buf, int64(i*n)), f.Datasync()); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / rounds
}
