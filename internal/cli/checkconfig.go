package cli

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/server"
)

// trial is what came of trying something that the configuration names.
type trial struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warning or bad
	Path   string `json:"path"`
	Detail string `json:"detail"`
	fix    string
}

func (a *app) checkConfig() *cobra.Command {
	var s serverFlags
	c := &cobra.Command{
		Use: "check-config", Short: "Every setting with its value, where it comes from and what it means", Args: cobra.NoArgs,
		Long: `Shows every setting with its value, where it comes from and what it means, says
what cannot work, and tries the folders and files that it names: whether they are
there, whether they can be written, who else can read them, and whether the ledger
lies on the disk of the data. Run it as the user that runs the server. It makes
nothing; neither the address nor a database of PostgreSQL is tried.`,
		Example: "  gradegate check-config\n  gradegate check-config --data gradegate-data -o json",
		RunE: func(*cobra.Command, []string) error {
			cfg, origins, err := a.load(&s)
			if err != nil {
				return err
			}
			trials := tryConfig(cfg)
			err = a.print(result{
				json: map[string]any{"settings": cfg.Settings(origins), "checks": trials}, name: cfg.Data,
				table: func(w io.Writer) { describe(w, cfg, origins, trials) },
			})
			if err == nil {
				err = cfg.Check()
			}
			if err != nil {
				return err
			}
			for _, t := range trials {
				if t.Status == "bad" {
					return fault.New(fault.Invalid, "config_unusable", "%s: %s %s", t.Name, t.Path, t.Detail).WithFix("%s", t.fix)
				}
			}
			a.hint("The configuration works.")
			return nil
		},
	}
	s.add(c)
	return c
}

func describe(w io.Writer, cfg config.Config, origins config.Origins, trials []trial) {
	_ = cfg.Describe(w, origins) // into memory
	fmt.Fprintln(w)
	for _, t := range trials {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Name, t.Status, clean(t.Path), clean(t.Detail))
	}
}

// tryConfig tries what the configuration names on this machine.
func tryConfig(c config.Config) []trial {
	ledger := c.Path(c.Ledger.Dir, "ledger")
	all := []trial{tryFolder("data", c.Data)}
	all = append(all, onOtherDisk(tryFolder("ledger.dir", ledger), c.Data), tryFolder("audit.dir", c.Path(c.Audit.Dir, "audit")))
	if c.Audit.Second != "" {
		all = append(all, onOtherDisk(tryFolder("audit.second", c.Audit.Second), c.Path(c.Audit.Dir, "audit")))
	}
	all = append(all, tryKey(c.Path(c.KeyFile, "root.key")))
	if c.PepperFile != "" {
		all = append(all, tryPeppers(c.PepperFile))
	}
	if c.TLS.Cert != "" || c.TLS.Key != "" {
		all = append(all, tryTLS(c))
	}
	// The kernel's structure has room for so much and a zero.
	if path := filepath.Join(c.Data, server.SocketName); len(path) > 107 {
		all = append(all, trial{Name: "socket", Status: "bad", Path: path, Detail: "has a path that is too long for a socket.", fix: "Use a data folder with a path of less than 90 characters."})
	}
	return all
}

// tryFolder finds out whether a folder can be written, by a file that is taken
// away again; one that is not there, whether it could be made.
func tryFolder(name, path string) trial {
	t := trial{Name: name, Status: "ok", Path: path, Detail: "is there and can be written."}
	at, missing, err := existing(path)
	if err != nil {
		t.Status, t.Detail, t.fix = "bad", fmt.Sprintf("cannot be used: %v.", plainly(err)), "Look at it: ls -ld "+quoted(at)+". "+asOwner(filepath.Dir(at))
		return t
	}
	f, err := os.CreateTemp(at, ".gradegate-check-*")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	switch {
	case err != nil && missing:
		t.Status, t.Detail = "bad", fmt.Sprintf("is not there and cannot be made in %s: %v.", at, plainly(err))
		t.fix = "Make it for the server's user: sudo install -d -m 700 -o USER " + quoted(path)
	case err != nil:
		t.Status, t.Detail = "bad", fmt.Sprintf("cannot be written: %v.", plainly(err))
		t.fix = asOwner(at)
	case missing:
		t.Detail = "is not there yet; the first start makes it."
	default:
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Status, t.Detail = "warning", fmt.Sprintf("can be entered or read by others (mode %04o); chmod 700 keeps them out.", info.Mode().Perm())
		}
	}
	return t
}

// asOwner is the way on where this user may not do something. The wrong user of
// two is more often the one that asks than the one that owns.
func asOwner(path string) string {
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err == nil && int(s.Uid) != os.Geteuid() {
		return fmt.Sprintf("Run this as the user that runs the server; %s belongs to the user %d.", path, s.Uid)
	}
	return "Give it to the user that runs the server: sudo chown USER " + quoted(path)
}

// existing is the path itself, or the nearest folder above it that is there.
func existing(path string) (at string, missing bool, err error) {
	for at = path; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && info.IsDir():
			return at, missing, nil
		case err == nil:
			return at, missing, errors.New(at + " is no folder")
		case !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at):
			return at, missing, err
		}
		missing = true
	}
}

// onOtherDisk warns of a copy that would be lost together with what it is of.
func onOtherDisk(t trial, other string) trial {
	a, errA := device(t.Path)
	b, errB := device(other)
	if t.Status == "ok" && errA == nil && errB == nil && a == b {
		t.Status, t.Detail = "warning", t.Detail[:len(t.Detail)-1]+", on the same disk as "+other+": both would be lost together."
	}
	return t
}

func device(path string) (uint64, error) {
	at, _, err := existing(path)
	if err != nil {
		return 0, err
	}
	var s syscall.Stat_t
	err = syscall.Stat(at, &s)
	return s.Dev, err
}

// tryKey looks at who can read the root key; it does not read it.
func tryKey(path string) trial {
	t := trial{Name: "key_file", Status: "ok", Path: path, Detail: "is there, for its owner alone."}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.Detail = "is not there yet; the first start makes it."
		return t
	case err != nil:
		t.Status, t.Detail, t.fix = "bad", fmt.Sprintf("cannot be looked at: %v.", plainly(err)), asOwner(filepath.Dir(path))
		return t
	case !info.Mode().IsRegular():
		t.Status, t.Detail, t.fix = "bad", "is no regular file.", "Name a file with key_file."
	case info.Mode().Perm()&0o077 != 0:
		t.Status, t.Detail, t.fix = "bad", fmt.Sprintf("can be read by others (mode %04o).", info.Mode().Perm()), "chmod 600 "+quoted(path)
	}
	if f, err := os.Open(path); err != nil {
		t.Status, t.Detail, t.fix = "bad", fmt.Sprintf("cannot be read: %v.", plainly(err)), asOwner(path)
	} else {
		_ = f.Close() // nothing was read
	}
	return t
}

func tryPeppers(path string) trial {
	t := trial{Name: "pepper_file", Status: "ok", Path: path}
	p, err := keys.LoadPeppers(path)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		t.Status, t.Detail, t.fix = "bad", "cannot be used: "+f.Detail, f.Fix
	} else if err != nil {
		t.Status, t.Detail, t.fix = "bad", fmt.Sprintf("cannot be read: %v.", plainly(err)), "gradegate pepper add "+quoted(path)
	} else {
		t.Detail = fmt.Sprintf("is good; pepper %d is the newest.", p.Newest())
	}
	return t
}

func tryTLS(c config.Config) trial {
	t := trial{Name: "tls", Status: "ok", Path: cmp.Or(c.TLS.Cert, "(no cert)"), Detail: "can be read, and its key belongs to it."}
	if _, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key); err != nil {
		t.Status, t.Detail, t.fix = "bad", fmt.Sprintf("cannot be used with the key %s: %v.", cmp.Or(c.TLS.Key, "(no key)"), err), "Check tls.cert and tls.key: PEM files that belong together, and that the server's user may read."
	}
	return t
}
