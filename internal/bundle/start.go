package bundle

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"gradegate/internal/fault"
)

// Startable applies the rule by which an executor starts an entry point, so
// that what could not be started is told before a job is made of it. root is
// the folder of the unpacked bundle. The error is a fault with the code
// entry_point_not_startable or entry_point_crlf.
func Startable(root *os.Root, m Manifest, entry string) error {
	i := slices.IndexFunc(m.Files, func(f File) bool { return f.Path == entry })
	executable := i >= 0 && m.Files[i].Executable
	f, err := root.Open(entry)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	head = head[:n]
	script := bytes.HasPrefix(head, []byte("#!"))
	switch {
	case script && executable || strings.HasSuffix(entry, ".sh"):
		if line, _, ok := bytes.Cut(head, []byte("\n")); ok && bytes.HasSuffix(line, []byte("\r")) {
			return fault.New(fault.Invalid, "entry_point_crlf", "The lines of %s end as on Windows (CRLF), and Linux does not start such a script.", entry).
				WithFix(`sed -i 's/\r$//' %s`, entry)
		}
		return nil
	case strings.HasSuffix(entry, ".py"), executable && bytes.HasPrefix(head, []byte("\x7fELF")):
		return nil
	}
	return fault.New(fault.Invalid, "entry_point_not_startable", "The entry point %s cannot be started: it is no .sh or .py file, no script that begins with #!, and no Linux program that is executable.", entry).
		WithFix("Name another file with --entry, begin it with a line such as #!/usr/bin/env python3, or, if it is a program: chmod +x %s", entry)
}
