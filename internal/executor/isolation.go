package executor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/job"
)

// The isolations, best first. None means a foreign uid and rlimits, if even
// that: it must be asked for.
const (
	Bwrap      = "bwrap"
	Namespaces = "namespaces"
	None       = "none (unsafe)"
)

// probeTime is how long a trial may take; a good one takes some 50 ms.
const probeTime = 10 * time.Second

// Isolation says what protects this host from a program.
type Isolation struct {
	// Kind is Bwrap, Namespaces or None; empty if programs are refused.
	Kind string
	// Limits says how memory and processes are limited, for example "memory and
	// processes by cgroup".
	Limits string
	// Unfiltered says that the kernel cannot filter system calls: programs of
	// different jobs may then reach each other through what belongs to a uid.
	Unfiltered bool
	// Tried tells for every better isolation why it is not in force.
	Tried []Attempt
}

// Attempt is an isolation that was tried and failed.
type Attempt struct{ Name, Why string }

// String is for people and for job reports: "bwrap, memory and processes by cgroup".
func (i Isolation) String() string {
	if i.Kind == "" {
		return "none: programs are refused"
	}
	text := i.Kind + ", " + i.Limits
	if i.Unfiltered {
		text += ", system calls not filtered"
	}
	return text
}

// boxKind is an isolation with the choices that the probe made.
type boxKind struct {
	Name string `json:"name"`
	// UserNS puts the job into a user namespace made by us: always for a server
	// that is not root, and for root where the host allows it.
	UserNS bool `json:"user_ns"`
	// Bwrap is the program's path, NoNest its --disable-userns.
	Bwrap  string `json:"bwrap"`
	NoNest bool   `json:"no_nest"`
}

// label names a kind in attempts.
func (k boxKind) label() string {
	switch {
	case k.Name == Bwrap && k.NoNest:
		return "bwrap --disable-userns"
	case k.UserNS:
		return k.Name + " with a user namespace"
	}
	return k.Name
}

// candidates are the kinds worth a trial, best first.
func candidates(o Options) (list []boxKind, tried []Attempt) {
	root := os.Geteuid() == 0
	if path, err := exec.LookPath("bwrap"); err != nil {
		tried = append(tried, Attempt{Bwrap, "bwrap is not installed"})
	} else if path, err = filepath.Abs(path); err == nil {
		b := boxKind{Name: Bwrap, Bwrap: path}
		if root {
			list = append(list, boxKind{Name: Bwrap, Bwrap: path, UserNS: true}, b)
		} else {
			list = append(list, boxKind{Name: Bwrap, Bwrap: path, NoNest: true}, b)
		}
	}
	list = append(list, boxKind{Name: Namespaces, UserNS: true})
	if root {
		list = append(list, boxKind{Name: Namespaces})
	}
	if o.Only == "" {
		return list, tried
	}
	kept := list[:0]
	for _, k := range list {
		if k.Name == o.Only {
			kept = append(kept, k)
		}
	}
	return kept, tried
}

// probe finds the best isolation by running a program in it.
func probe(o Options) (boxKind, Isolation) {
	list, tried := candidates(o)
	for _, k := range list {
		limits, err := try(o, k)
		if err == nil {
			return k, Isolation{Kind: k.Name, Limits: limits, Unfiltered: !filters(), Tried: tried}
		}
		tried = append(tried, Attempt{k.label(), err.Error()})
	}
	if o.Unsafe && (o.Only == "" || o.Only == None) {
		k := boxKind{Name: None}
		limits, err := try(o, k)
		if err == nil {
			return k, Isolation{Kind: None, Limits: limits, Unfiltered: !filters(), Tried: tried}
		}
		tried = append(tried, Attempt{None, err.Error()})
	}
	return boxKind{}, Isolation{Tried: tried}
}

// try runs a program that does nothing in a room of kind k.
func try(o Options, k boxKind) (limits string, err error) {
	dir, err := os.MkdirTemp(o.Dir, "probe-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := folder(dir)
	if err := errors.Join(os.Mkdir(f.work(), 0o700), os.Mkdir(f.output(), 0o700),
		os.WriteFile(filepath.Join(f.work(), "true.sh"), []byte(":\n"), 0o600)); err != nil {
		return "", err
	}
	spec := job.Spec{ID: job.ID(filepath.Base(dir)), Dir: dir, Entry: "true.sh", Resources: bounded(job.Resources{})}
	b, err := furnish(plan{Spec: spec, Box: k, Self: o.Self, ReadOnly: o.ReadOnly, Path: o.Path})
	if err != nil {
		return "", err
	}
	if k.Name == None { // the probe folder is ours alone; any folder will do
		b.Dir, b.Argv = "/", []string{"/bin/sh", "-c", ":"}
	}
	group := newCgroup(string(spec.ID), spec.Resources)
	defer group.remove()
	return group.limits(), runOnce(b, group)
}

// runOnce starts the room and waits for its end.
func runOnce(b box, group *cgroup) error {
	runtime.LockOSThread() // the room ends with the thread that started it
	defer runtime.UnlockOSThread()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close() // read only
	c, err := b.start(w, group.add)
	_ = w.Close() // the room has its own copy
	if err != nil {
		return err
	}
	late := time.AfterFunc(probeTime, func() { _ = c.cmd.Process.Kill() }) // may have ended
	defer late.Stop()
	said := make([]byte, 300)
	n, _ := r.Read(said) // EOF once it has ended in silence
	<-c.done
	switch end := c.end(); {
	case end.Error != "":
		return fmt.Errorf("%s: %s", end.Error, firstLine(string(said[:n])))
	case end.ExitCode == nil || *end.ExitCode != 0:
		return fmt.Errorf("a trial failed: %s", firstLine(string(said[:n])))
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if line == "" {
		return "it ended without a word"
	}
	return line
}

// errNoSandbox refuses programs on a host that cannot hold them.
func errNoSandbox(i Isolation) error {
	why := make([]string, 0, len(i.Tried))
	for _, a := range i.Tried {
		why = append(why, a.Name+": "+a.Why)
	}
	return fault.New(fault.Denied, "no_sandbox", "This host cannot isolate programs, so they are not run.").
		WithFix("Install bubblewrap or allow user namespaces; or set executor.local.unsafe: true.").
		Caused(errors.New(strings.Join(why, "; ")))
}
