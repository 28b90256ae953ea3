package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"gradegate/internal/fault"
	"gradegate/internal/token"
)

// hosts is what login remembers: the server in use, and a token for each.
type hosts struct {
	Current string            `yaml:"current"`
	Tokens  map[string]string `yaml:"tokens"`
	// Refresh holds, beside a session, what gives the next one.
	Refresh map[string]string `yaml:"refresh,omitempty"`
	// Install is what this installation calls itself when it refreshes: a refresh
	// token that comes from another one was stolen.
	Install string `yaml:"install,omitempty"`
}

// put makes a token this machine's credential for a server. What it replaces
// does not refresh any more.
func (h *hosts) put(u, secret, refresh string) {
	h.Tokens[u] = secret
	delete(h.Refresh, u)
	if refresh == "" {
		return
	}
	if h.Refresh == nil {
		h.Refresh = map[string]string{}
	}
	h.Refresh[u] = refresh
}

// hostsFile is where login keeps what it got; empty on a machine where nobody
// is at home. Never a relative path: a token does not belong into whichever
// folder one happens to stand in.
func (a *app) hostsFile() string {
	if dir := a.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "gradegate", "hosts.yaml")
	}
	if home := a.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "gradegate", "hosts.yaml")
	}
	return ""
}

func (a *app) loadHosts() (hosts, error) {
	h := hosts{Tokens: map[string]string{}}
	path := a.hostsFile()
	info, err := os.Stat(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	if !info.Mode().IsRegular() {
		return h, fault.New(fault.Invalid, "hosts_damaged", "%s is no file.", path).WithFix("Remove it and sign in again: gradegate login --invite CODE")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return h, fault.New(fault.Unauthenticated, "hosts_exposed", "%s can be read by others (mode %04o).", path, info.Mode().Perm()).
			WithFix("chmod 600 %s; and rotate the token: gradegate token rotate NAME", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return h, err
	}
	if err := yaml.Unmarshal(data, &h); err != nil {
		return h, fault.Wrap(fault.Invalid, "hosts_damaged", path+" cannot be read.", err).WithFix("Remove it and sign in again: gradegate login --invite CODE")
	}
	if h.Tokens == nil {
		h.Tokens = map[string]string{}
	}
	return h, nil
}

// change rewrites the file as a whole, readable by its owner alone, while no
// other command does.
func (a *app) change(do func(*hosts)) error {
	path := a.hostsFile()
	if path == "" {
		return fault.New(fault.Invalid, "no_home", "There is no home folder to keep a token in.").
			WithFix("Set HOME or XDG_CONFIG_HOME, or use GRADEGATE_TOKEN_FILE.")
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // whoever keeps it elsewhere, by a link, goes on to do so
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	h, err := a.loadHosts()
	if err != nil {
		return err
	}
	do(&h)
	data, err := yaml.Marshal(h)
	if err != nil {
		return err
	}
	return replaceFile(path, data)
}

// canRemember finds out whether a token could be stored, and gives a function
// that takes away again what that left behind, unless something was stored.
func (a *app) canRemember() (undo func(), err error) {
	if _, err := a.loadHosts(); err != nil {
		return nil, err
	}
	path := a.hostsFile()
	if path == "" {
		return nil, a.change(nil) // says what is missing
	}
	var fresh []string // what is not there yet, the deepest first
	if _, err := os.Lstat(path + ".lock"); err != nil {
		fresh = append(fresh, path+".lock")
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		fresh = append(fresh, dir)
	}
	_, known := os.Lstat(path)
	undo = func() {
		if _, now := os.Lstat(path); known == nil || now == nil {
			return
		}
		for _, p := range fresh {
			_ = os.Remove(p) // a folder that has something in it stays
		}
	}
	where := path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		where = target
	}
	if err = os.MkdirAll(filepath.Dir(where), 0o700); err == nil {
		var f *os.File
		if f, err = os.CreateTemp(filepath.Dir(where), ".try-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		undo()
		return nil, fault.Wrap(fault.Invalid, "hosts_unwritable", fmt.Sprintf("The token could not be kept: %v.", err), err).
			WithFix("Mend the folder %s, or name another one with XDG_CONFIG_HOME.", filepath.Dir(where))
	}
	return undo, nil
}

func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}

// replaceFile puts data in the place of a file, in one step and with mode 0600.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// remember stores a token as this machine's credential for a server.
func (a *app) remember(u, secret string) error {
	return a.change(func(h *hosts) { h.put(u, secret, "") })
}

// settle is remember, and makes the server the one to talk to from now on.
func (a *app) settle(u, secret, refresh string) error {
	return a.change(func(h *hosts) {
		h.Current = u
		h.put(u, secret, refresh)
	})
}

// notStored is the error of a secret that was printed instead.
func notStored(err error) error {
	why := err.Error()
	if f, ok := errors.AsType[*fault.Error](err); ok {
		why = f.Detail
	}
	return fault.Wrap(fault.Internal, "token_not_stored", "The token could not be stored, so that it was printed, this once: "+strings.TrimRight(why, "."), err).
		WithFix("Keep it, mend what is named above, and store it: gradegate login --token-stdin")
}

// forget drops this machine's credential for a server. The server stays the one
// to talk to: whoever signs in again means the same one.
func (a *app) forget(u string) error {
	return a.change(func(h *hosts) {
		delete(h.Tokens, u)
		delete(h.Refresh, u)
	})
}

// stored reports whether a token is this machine's credential for a server.
func (a *app) stored(u, id string) bool {
	h, err := a.loadHosts()
	if err != nil {
		return false
	}
	p, err := token.Parse(h.Tokens[u])
	return err == nil && string(p.Public.ID()) == id
}

// warnShadowed says so if what was just stored will not be used here.
func (a *app) warnShadowed(u string) {
	if found, _, err := a.find(u); err == nil && found.from != a.hostsFile() && found.secret != "" {
		a.warn("the token from %s comes before the stored one, here and now", found.from)
	}
}

// fromNetrc reads the password of the server's machine, as curl would.
func (a *app) fromNetrc(u string) (source, error) {
	parsed, err := url.Parse(u)
	home := a.getenv("HOME")
	if err != nil || home == "" && a.getenv("NETRC") == "" {
		return source{}, nil //nolint:nilerr // a URL that is none is told by the client
	}
	path := filepath.Join(home, ".netrc")
	if file := a.getenv("NETRC"); file != "" {
		path = file
	}
	f, err := os.Open(path)
	if err != nil {
		return source{}, nil //nolint:nilerr // most people have none
	}
	defer func() { _ = f.Close() }()
	words := bufio.NewScanner(f)
	words.Split(bufio.ScanWords)
	ours := false
	for words.Scan() {
		switch words.Text() {
		case "machine":
			words.Scan()
			ours = strings.EqualFold(words.Text(), parsed.Hostname())
		case "default":
			ours = false // meant for strangers, and we are not
		case "password":
			words.Scan()
			if p := words.Text(); ours && strings.HasPrefix(p, "gg") {
				return source{p, path}, nil
			}
		}
	}
	return source{}, nil
}
