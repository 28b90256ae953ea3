package journal

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"path/filepath"
	"strings"
)

// Salvage calls fn for every record line whose checksum is right, behind damage
// too, whatever its chain says. What it gives proves nothing: it is for finding
// out what may have been there. Files that cannot be read are passed over.
func Salvage(dir string, fn func(data []byte)) {
	for _, pattern := range []string{"*" + segmentSuffix, "*" + segmentSuffix + packedSuffix} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return // the pattern is well-formed
		}
		for _, name := range files {
			if pattern == "*"+segmentSuffix || !exists(strings.TrimSuffix(name, packedSuffix)) {
				salvage(name, fn)
			}
		}
	}
}

func salvage(name string, fn func(data []byte)) {
	f, _, err := openSegment(name)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	if z, ok := f.(*frames); ok {
		_ = z.eachSound(0, func(plain []byte) bool { // a file that cannot be read is passed over
			salvageLines(bytes.NewReader(plain), fn)
			return true
		})
		return
	}
	salvageLines(io.NewSectionReader(f, 0, math.MaxInt64), fn)
}

func salvageLines(in io.Reader, fn func(data []byte)) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 2*MaxRecord)
	for lines.Scan() {
		line := bytes.TrimLeft(lines.Bytes(), "\x00")
		if kind, inner, ok := parseLine(line); ok && kind == kindRecord {
			fn(inner)
		}
	}
}
