package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminal reports whether somebody sits at the other end of a stream. /dev/null
// is a device as well, and nobody does.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// stopped says, of a command that was interrupted, what became of its work.
type stopped string

func (s stopped) Error() string { return "interrupted: " + string(s) }

// interruptible is an input whose reading ends when the command is interrupted.
// A read of a terminal cannot be ended: it is left behind, and ends with the
// program. Everything that is read is read before something is done.
type interruptible struct {
	r    io.Reader
	done <-chan struct{}
}

func (i *interruptible) Read(p []byte) (int, error) {
	type got struct {
		n   int
		err error
	}
	own, read := make([]byte, len(p)), make(chan got, 1) // the one left behind must not write into p
	go func() {
		n, err := i.r.Read(own)
		read <- got{n, err}
	}()
	select {
	case <-i.done:
		return 0, stopped("Nothing was done.")
	case g := <-read:
		return copy(p, own[:g.n]), g.err
	}
}

// harmless is foreign text without what could move the cursor, send keys or
// turn the direction of reading.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && r != '\r' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError) {
			return '?'
		}
		return r
	}, s)
}

// logWriter is where a job's log goes. To a terminal it goes harmless: the
// program that printed it is a stranger's.
func (a *app) logWriter(w io.Writer) *logWriter { return &logWriter{w: w, harmless: terminal(w)} }

type logWriter struct {
	w        io.Writer
	harmless bool
	rest     []byte // the beginning of a character whose end is still to come
	err      error  // of w; kept apart from those of the connection
}

func (l *logWriter) Write(p []byte) (int, error) {
	out := p
	if l.harmless {
		all := append(l.rest, p...)
		whole := len(all)
		for back := 1; back < utf8.UTFMax && back <= len(all); back++ {
			if b := all[len(all)-back]; utf8.RuneStart(b) {
				if !utf8.FullRune(all[len(all)-back:]) {
					whole = len(all) - back
				}
				break
			}
		}
		out, l.rest = []byte(harmless(string(all[:whole]))), bytes.Clone(all[whole:])
	}
	if _, err := l.w.Write(out); err != nil {
		l.err = err
		return 0, err
	}
	return len(p), nil
}

// lineObjects writes a log as JSON, an object for each line.
type lineObjects struct {
	w      io.Writer
	offset int64
	rest   []byte
}

// lineMax is where a line that does not end is broken.
const lineMax = 64 << 10

func (l *lineObjects) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		switch {
		case i >= 0:
			if err := l.put(l.rest[:i], i+1); err != nil {
				return 0, err
			}
		case len(l.rest) >= lineMax:
			if err := l.put(l.rest[:lineMax], lineMax); err != nil {
				return 0, err
			}
		default:
			return len(p), nil
		}
	}
}

func (l *lineObjects) put(text []byte, used int) error {
	e := json.NewEncoder(l.w)
	e.SetEscapeHTML(false)
	err := e.Encode(struct {
		Offset int64  `json:"offset"`
		Text   string `json:"text"`
	}{l.offset, string(text)})
	l.offset += int64(used)
	l.rest = l.rest[used:]
	return err
}

// end writes what came after the last line's end.
func (l *lineObjects) end() {
	if len(l.rest) > 0 {
		_ = l.put(l.rest, len(l.rest)) // the log itself was read; a stdout that is gone is told by Write
	}
}

// progressLine is one line on a terminal that is written over again.
type progressLine struct {
	w    io.Writer
	live bool
}

// progress gives a line if stderr is a terminal and somebody looks.
func (a *app) progress() *progressLine {
	return &progressLine{w: a.stderr, live: terminal(a.stderr) && !a.quiet && !a.wantsJSON() && a.getenv("TERM") != "dumb"}
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
