package journal

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
)

// Salvage calls fn for every record line whose checksum is right, behind damage
// too, whatever its chain says. What it gives proves nothing: it is for finding
// out what may have been there. Files that cannot be read are passed over.
func Salvage(dir string, fn func(data []byte)) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return // the pattern is well-formed
	}
	for _, name := range files {
		salvage(name, fn)
	}
}

func salvage(name string, fn func(data []byte)) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 2*MaxRecord)
	for lines.Scan() {
		line := bytes.TrimLeft(lines.Bytes(), "\x00")
		if kind, inner, ok := parseLine(line); ok && kind == kindRecord {
			fn(inner)
		}
	}
}
