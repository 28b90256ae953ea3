//go:build crashpoints

package store

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// passes counts how often the chosen point was reached.
var passes atomic.Int64

// crashPoint kills this process at the point and pass that CRASH_AT names,
// such as "before COMMIT/17". It exists in builds with the tag crashpoints.
func crashPoint(p point) {
	name, nth, _ := strings.Cut(os.Getenv("CRASH_AT"), "/")
	if name != string(p) {
		return
	}
	if n, err := strconv.ParseInt(nth, 10, 64); err == nil && passes.Add(1) == n {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}
