package bundle

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"gradegate/internal/fault"
)

// The longest name and the longest path: what common file systems take, with
// room for the folder that the bundle is unpacked into.
const (
	maxName = 255
	maxPath = 1024
)

// register checks the names in one bundle, on the way out (Unpack) as on the
// way in (Pack): what the one writes, the other takes.
type register struct {
	limits Limits
	told   int // names in the archive
	// seen maps the case-folded path to the path as written; folders end in a slash.
	seen map[string]string
}

func newRegister(l Limits) *register {
	return &register{limits: l, seen: map[string]string{}}
}

// file takes a file's name and gives its path and the folders that must be made
// for it, outermost first. An empty path means: leave it out.
func (g *register) file(name string) (p string, folders []string, err error) {
	p, err = g.clean(name, false)
	if err != nil || added(p) {
		return "", nil, err
	}
	if dir := path.Dir(p); dir != "." {
		if folders, err = g.claimFolders(dir); err != nil {
			return "", nil, err
		}
	}
	_, err = g.claim(p)
	return p, folders, err
}

// folder takes a folder's name and gives the folders that must be made for it.
func (g *register) folder(name string) (folders []string, err error) {
	p, err := g.clean(strings.TrimSuffix(name, "/"), true)
	if err != nil || p == "." || added(p) {
		return nil, err
	}
	return g.claimFolders(p)
}

// added says whether a path is something that macOS adds beside the files of a
// person: it would hide that there is one file, or one folder.
func added(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == "__MACOSX" || part == ".DS_Store" || strings.HasPrefix(part, "._") {
			return true
		}
	}
	return false
}

// clean checks a name and gives the path to write to; "." is the root itself.
func (g *register) clean(name string, folder bool) (string, error) {
	if g.told++; g.told > g.limits.Entries {
		return "", g.tooMany()
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, notAllowed) {
		return "", badName("The bundle holds a name with characters that are not allowed.")
	}
	if strings.HasPrefix(name, "/") || len(name) > 1 && name[1] == ':' {
		return "", climbs()
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", climbs()
		}
		if len(part) > maxName {
			return "", badName("The bundle holds a name that is too long.")
		}
	}
	p := path.Clean(name)
	above := strings.Count(p, "/")
	if folder {
		above++ // a folder is there for a file in it
	}
	switch {
	case p == "." && !folder, strings.HasSuffix(name, "/"):
		return "", badName("The bundle holds a file without a name.")
	case len(p) > maxPath:
		return "", badName("The bundle holds a path that is too long.")
	case p != "." && above > g.limits.Depth:
		return "", fault.New(fault.Invalid, "bundle_too_deep", "The bundle holds folders nested more than %d deep.", g.limits.Depth).
			WithFix("Leave out environments and installed packages, or make the folders flatter.")
	}
	return p, nil
}

// notAllowed refuses control characters, invisible ones that change the
// direction of text, and the separator of another system.
func notAllowed(r rune) bool { return !unicode.IsGraphic(r) || r == '\\' || r == utf8.RuneError }

// claimFolders claims p and what is above it, and gives those that are new.
func (g *register) claimFolders(p string) (fresh []string, err error) {
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		isNew, err := g.claim(p[:i] + "/")
		if err != nil {
			return nil, err
		}
		if isNew {
			fresh = append(fresh, p[:i])
		}
	}
	return fresh, nil
}

// claim notes a path, which ends in a slash if it is a folder. The same file
// twice, or two names that differ in case only, would mean different things on
// different machines; so would a file that is a folder too.
func (g *register) claim(p string) (fresh bool, err error) {
	bare := strings.TrimSuffix(p, "/")
	key := strings.ToLower(bare)
	was, taken := g.seen[key]
	switch {
	case taken && was == p && bare != p:
		return false, nil
	case taken:
		return false, fault.New(fault.Invalid, "bundle_duplicate", "The bundle holds the same name twice, or two that differ in case only.").
			WithFix("Rename one of them, and pack a fresh archive: " + fixPack)
	case len(g.seen) >= g.limits.Entries:
		return false, g.tooMany()
	}
	g.seen[key] = p
	return true, nil
}

func (g *register) tooMany() error {
	return fault.New(fault.TooLarge, "bundle_too_many_entries", "The bundle holds more than %d files and folders.", g.limits.Entries).
		WithFix("Leave out caches, data sets and environments.")
}

func badName(detail string) error {
	return fault.New(fault.Invalid, "bundle_name", detail).
		WithFix("Use printable UTF-8 names of at most %d bytes, without backslash, and paths of at most %d.", maxName, maxPath)
}

func climbs() error {
	return fault.New(fault.Invalid, "bundle_traversal", "The bundle holds a name that leads out of it.").WithFix(fixPack)
}
