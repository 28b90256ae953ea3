package cli

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// terminal reports whether somebody looks at w as it is written. /dev/null is
// a device as well, and nobody looks at it.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// logWriter is where a job's log goes. On a terminal, what could move the cursor
// or send keys is taken out: the program that printed it is a stranger's.
func (a *app) logWriter() *logWriter { return &logWriter{w: a.stdout, harmless: terminal(a.stdout)} }

type logWriter struct {
	w        io.Writer
	harmless bool
	err      error // of w; kept apart from those of the connection
}

func (l *logWriter) Write(p []byte) (int, error) {
	out := p
	if l.harmless {
		out = make([]byte, len(p))
		for i, b := range p {
			if b < ' ' && b != '\n' && b != '\t' && b != '\r' || b == 0x7f {
				b = '?'
			}
			out[i] = b
		}
	}
	if _, err := l.w.Write(out); err != nil {
		l.err = err
		return 0, err
	}
	return len(p), nil
}

// progressLine is one line on a terminal that is written over again.
type progressLine struct {
	w    io.Writer
	live bool
}

// progress gives a line if stderr is a terminal and somebody looks.
func (a *app) progress() *progressLine {
	return &progressLine{w: a.stderr, live: terminal(a.stderr) && !a.quiet && a.getenv("TERM") != "dumb"}
}

func (p *progressLine) show(format string, args ...any) {
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
	}
}

func (p *progressLine) done() {
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
