package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"gradegate/internal/httpapi"
	"gradegate/internal/ratelimit"
)

// failureLog writes a line for each failed authentication, for programs such as
// fail2ban (docs/operator/fail2ban.md holds the expression that reads it). It
// never holds up a request, and a flood writes a bounded number of lines: what
// is left out is counted, and told with the next line.
type failureLog struct {
	lines   chan string
	open    func() (io.WriteCloser, error)
	log     *slog.Logger
	bySrc   *ratelimit.Buckets[netip.Prefix]
	all     *ratelimit.Buckets[struct{}]
	leftOut atomic.Int64
	broken  bool // the last line could not be written
}

var (
	// linesBySource leaves any filter enough to go by.
	linesBySource = ratelimit.Limit{Events: 30, Per: time.Minute}
	// linesInAll is 100 MB a day, if every line is taken.
	linesInAll = ratelimit.Limit{Events: 600, Per: time.Minute}
)

// newFailureLog makes the log that is configured: "stderr", a file, or none.
func newFailureLog(to string, stderr io.Writer, log *slog.Logger) *failureLog {
	if to == "" {
		return nil
	}
	l := &failureLog{
		lines: make(chan string, 256), log: log,
		bySrc: ratelimit.NewBuckets[netip.Prefix](linesBySource, 1<<14), all: ratelimit.NewBuckets[struct{}](linesInAll, 1),
	}
	l.open = func() (io.WriteCloser, error) {
		// Opened for each line, so that whoever rotates the file need not tell.
		return os.OpenFile(to, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640) //nolint:gosec // the group may read it: fail2ban does
	}
	if to == "stderr" {
		l.open = func() (io.WriteCloser, error) { return unclosed{stderr}, nil }
	}
	return l
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// failed takes a failure over, unless there are too many.
func (l *failureLog) failed(f httpapi.Failure) {
	source, _ := f.Addr.Prefix(min(64, f.Addr.BitLen())) // the zero prefix if it is unknown
	if !l.bySrc.Take(source, f.At).Allowed || !l.all.Take(struct{}{}, f.At).Allowed {
		l.leftOut.Add(1)
		return
	}
	select {
	case l.lines <- failureLine(f):
	default:
		l.leftOut.Add(1)
	}
}

// failureLine is one line. Its form is a promise; the address is "unknown" if
// a trusted proxy did not name one.
func failureLine(f httpapi.Failure) string {
	addr := "unknown"
	if f.Addr.IsValid() {
		addr = f.Addr.String()
	}
	return fmt.Sprintf("%s gradegate failed authentication from %s reason=%s request=%s\n", f.At.UTC().Format(time.RFC3339), addr, f.Reason, f.Request)
}

// run writes until ctx ends, and then what is left.
func (l *failureLog) run(ctx context.Context) {
	for {
		select {
		case line := <-l.lines:
			l.write(line)
		case <-ctx.Done():
			for {
				select {
				case line := <-l.lines:
					l.write(line)
				default:
					return
				}
			}
		}
	}
}

func (l *failureLog) write(line string) {
	if n := l.leftOut.Swap(0); n > 0 {
		line += fmt.Sprintf("%s gradegate left out %d further failed authentications\n", line[:len("2006-01-02T15:04:05Z")], n)
	}
	w, err := l.open()
	if err == nil {
		_, err = io.WriteString(w, line)
		if e := w.Close(); err == nil {
			err = e
		}
	}
	if err != nil && !l.broken {
		l.log.Warn("failed authentications cannot be written to failures_log; requests go on", "error", err)
	}
	l.broken = err != nil
}
