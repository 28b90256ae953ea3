package bundle

import (
	"path"
	"slices"
	"strings"

	"gradegate/internal/fault"
)

// entryNames are the programs that are found without being named, in this order.
var entryNames = []string{"run.sh", "run", "main.sh", "main.py", "run.py", "predict.sh", "predict.py"}

// EntryPoint gives the program to start: the one asked for, else the only
// file, else the first of run.sh, run, main.sh, main.py, run.py, predict.sh and
// predict.py, in the top folder or in the only folder there is. The error is a
// fault with code entry_point_not_found, which lists the files.
func EntryPoint(m Manifest, asked string) (string, error) {
	has := func(p string) bool {
		return slices.ContainsFunc(m.Files, func(f File) bool { return f.Path == p })
	}
	if asked != "" {
		if p := path.Clean(asked); has(p) {
			return p, nil
		}
		return "", fault.New(fault.Invalid, "entry_point_not_found", "The bundle has no file of the name that was given as its entry point.").
			With("files", names(m)).WithFix("Name one of its files: --entry PATH")
	}
	if len(m.Files) == 1 {
		return m.Files[0].Path, nil
	}
	for _, dir := range []string{"", onlyFolder(m)} {
		for _, n := range entryNames {
			if p := path.Join(dir, n); has(p) {
				return p, nil
			}
		}
	}
	return "", fault.New(fault.Invalid, "entry_point_not_found", "The bundle has no entry point.").
		With("files", names(m)).WithFix("Add a run.sh, or name a file: --entry PATH")
}

// onlyFolder is the one folder that holds everything, or "".
func onlyFolder(m Manifest) string {
	dir := ""
	for i, f := range m.Files {
		top, _, inFolder := strings.Cut(f.Path, "/")
		if !inFolder || i > 0 && top != dir {
			return ""
		}
		dir = top
	}
	return dir
}

// names lists at most twenty files, for an error message.
func names(m Manifest) []string {
	var out []string
	for _, f := range m.Files[:min(20, len(m.Files))] {
		out = append(out, f.Path)
	}
	return out
}
