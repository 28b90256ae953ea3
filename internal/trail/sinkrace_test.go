package trail

import (
	"context"
	"strings"
	"sync"
	"testing"

	"gradegate/internal/fault"
)

// Everything at once, and closing in the midst of it: each line whose caller
// was told so is there once, in both sinks, or in one if the other was closed.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	tr := open(t, one, two)
	var told sync.Map
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				e := event(1000*w + i)
				if i == 999 || tr.Record(context.Background(), e, i%5 == 0) != nil {
					return
				}
				told.Store(e.ID, true)
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			for range 30 {
				_ = tr.Checkpoint(t.Context())
				_ = tr.Health()
				_, _ = tr.Latest(Use)
			}
		})
	}
	for i := range 20 {
		effects(t, tr, event(i))
	}
	close(stop)
	wg.Wait()
	var late sync.WaitGroup
	for i := range 8 {
		late.Go(func() {
			if e := event(100_000 + i); tr.Record(context.Background(), e, true) == nil {
				told.Store(e.ID, true)
			}
		})
	}
	shut(t, tr)
	late.Wait()
	if err := tr.Close(); err != nil {
		t.Error("closed twice:", err)
	}
	if err := tr.Record(t.Context(), event(1), false); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("recorded after the end: %v", err)
	}
	var n [2]map[string]int
	for i, dir := range []string{one, two} {
		n[i] = map[string]int{}
		for _, id := range ids(t, dir, Use) {
			n[i][id]++
		}
		if r := verify(t, dir); !r.OK() || r.Streams[0].Unsigned != 0 {
			t.Errorf("%+v", r)
		}
	}
	told.Range(func(key, _ any) bool {
		id := key.(string)
		late := strings.HasPrefix(id, "evt_10000")
		if a, b := n[0][id], n[1][id]; a > 1 || b > 1 || a+b == 0 || a+b == 1 && !late {
			t.Errorf("%s is there %d and %d times", id, a, b)
		}
		return true
	})
}
