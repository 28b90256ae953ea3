package story

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"gradegate/api"
)

// R2.1, B3: many rotate one token at once through the API: one wins, and the
// others are told the successor's id or to wait. A lost answer can be asked for
// again after a crash.
func TestRotationRace(t *testing.T) {
	w := start(t)
	ann := w.person("ann")
	made, err := ann.CreateToken(t.Context(), api.CreateToken{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	me := w.client(made.Secret)
	me.Retries = 0
	var mu sync.Mutex
	var won []api.Issued
	codes := map[string]int{}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			out, err := me.RotateToken(context.Background(), "self", api.RotateToken{})
			mu.Lock()
			defer mu.Unlock()
			var e *api.Error
			switch {
			case err == nil:
				won = append(won, out)
			case errors.As(err, &e):
				codes[e.Code]++
				if e.Code == "already_rotated" && fmt.Sprint(e.More["successor"]) == "" {
					t.Error("the loser is not told the successor")
				}
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 || codes["already_rotated"]+codes["rate_limited"] != 99 {
		t.Fatalf("%d successors, refusals %v", len(won), codes)
	}
	next, err := w.client(won[0].Secret).TokenByID(t.Context(), "self")
	if err != nil || next.Family.Generation != 2 {
		t.Errorf("%+v %v", next, err)
	}
}
