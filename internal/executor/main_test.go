package executor_test

import (
	"context"
	"os"
	"syscall"
	"testing"

	"gradegate/internal/executor"
)

// noContext is for processes that have no test around them.
func noContext() context.Context { return context.Background() }

// exit leaves at once: the race detector would sleep a second in every process
// that ends by os.Exit.
func exit(code int) { syscall.Exit(code) }

// TestMain is what main is to the real binary: the supervisor and the first
// process of a sandbox are this test binary, started again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case executor.SuperviseCommand:
			exit(executor.Supervise(os.Args[2:]))
		case executor.InitCommand:
			exit(executor.Init(os.Args[2:]))
		case hostileCommand:
			exit(hostile(os.Args[2:]))
		case keyCommand:
			exit(key(os.Args[2]))
		case serveCommand:
			exit(serve(os.Args[2], os.Args[3], os.Args[4]))
		}
	}
	os.Exit(m.Run())
}
