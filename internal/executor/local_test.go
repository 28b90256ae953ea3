package executor_test

import (
	"strings"
	"testing"

	"gradegate/internal/executor"
	"gradegate/internal/executor/executortest"
)

// isolations are those that this host has, by trial; namespaces are always
// among them.
func isolations(t *testing.T) []string {
	t.Helper()
	list := []string{executor.Namespaces, executor.None}
	bwrap := executor.Isolation{}
	if e, err := executor.Open("local", executor.Options{Dir: t.TempDir(), Only: executor.Bwrap}); err == nil {
		bwrap = e.(executor.Prober).Probe()
	}
	if bwrap.Kind == executor.Bwrap {
		list = append(list, executor.Bwrap)
	} else {
		t.Logf("no bwrap: %v", bwrap.Tried)
	}
	return list
}

// with opens the local executor with one isolation.
func with(only string) executortest.Open {
	return func(t *testing.T, dir string, change func(*executor.Options)) executor.Executor {
		t.Helper()
		o := executor.Options{Dir: dir, Only: only, Unsafe: only == executor.None, Slots: 20}
		if change != nil {
			change(&o)
		}
		e, err := executor.Open("local", o)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.(executor.Prober).Probe(); got.Kind != only || !strings.HasPrefix(got.String(), only) {
			t.Fatalf("isolation %s, want %s; tried %v", got, only, got.Tried)
		}
		return e
	}
}

func TestLocal(t *testing.T) {
	t.Parallel()
	for _, only := range isolations(t) {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			executortest.Run(t, with(only))
		})
	}
}
