package executor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gradegate/internal/job"
)

// cgroupRoot is where every distribution mounts it.
const cgroupRoot = "/sys/fs/cgroup"

// spareTasks are threads of the sandbox itself, which count as the job's.
const spareTasks = 32

// cgroup is a job's own control groups, as far as this host lets us make any:
// version 1 has one per controller, version 2 one for all. An empty cgroup is
// valid and does nothing.
type cgroup struct {
	dirs         []string
	memory, pids string // folders; empty if that controller is not ours
	v2           bool
}

// newCgroup makes the groups. It never fails: what it could not make is not
// in force, and limits says so.
func newCgroup(id string, r job.Resources) *cgroup {
	r = bounded(r)
	own := ownCgroups()
	g := &cgroup{}
	tasks := strconv.Itoa(r.Processes + spareTasks)
	bytes := strconv.FormatInt(r.MemoryBytes, 10)
	quota := strconv.Itoa(r.CPUs * 100_000) // of a period of 100 ms
	if dir := v1Dir("memory", own, id); dir != "" {
		g.memory = g.keep(dir, map[string]string{"memory.limit_in_bytes": bytes})
		put(dir, "memory.memsw.limit_in_bytes", bytes) // only where swap is counted
	}
	if dir := v1Dir("pids", own, id); dir != "" {
		g.pids = g.keep(dir, map[string]string{"pids.max": tasks})
	}
	if dir := v1Dir("cpu", own, id); dir != "" {
		g.keep(dir, map[string]string{"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": quota})
	}
	if len(g.dirs) > 0 {
		return g
	}
	if dir := v2Dir(id); dir != "" {
		g.v2 = true
		g.memory = g.keep(dir, map[string]string{"memory.max": bytes, "pids.max": tasks})
		g.pids = g.memory
		put(dir, "memory.swap.max", "0")
		put(dir, "cpu.max", quota+" 100000") // only where the controller is on
	}
	return g
}

// keep makes the group and sets its limits, or removes it again.
func (g *cgroup) keep(dir string, limits map[string]string) string {
	if os.Mkdir(dir, 0o755) != nil {
		return ""
	}
	for name, value := range limits {
		if !put(dir, name, value) {
			_ = os.Remove(dir) // it is empty
			return ""
		}
	}
	g.dirs = append(g.dirs, dir)
	return dir
}

func put(dir, name, value string) bool {
	return os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644) == nil
}

// ownCgroups are our own groups of version 1, by controller.
func ownCgroups() map[string]string {
	own := map[string]string{}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return own
	}
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) == 3 {
			for _, name := range strings.Split(part[1], ",") {
				own[name] = part[2]
			}
		}
	}
	return own
}

// v1Dir is where a job's group of a controller belongs: below our own, so that
// a limit on the server holds for its jobs too.
func v1Dir(controller string, own map[string]string, id string) string {
	path, ok := own[controller]
	base := filepath.Join(cgroupRoot, controller)
	if _, err := os.Stat(filepath.Join(base, "cgroup.procs")); !ok || err != nil {
		return ""
	}
	if below := filepath.Join(base, path); isDir(below) {
		base = below
	}
	return filepath.Join(base, "gradegate-"+id)
}

// v2Dir is a group beside the server's, since a group with processes cannot
// have groups with limits below it.
func v2Dir(id string) string {
	text, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"))
	if err != nil || !strings.Contains(string(text), "memory") || !strings.Contains(string(text), "pids") {
		return ""
	}
	all := filepath.Join(cgroupRoot, "gradegate")
	if os.Mkdir(all, 0o755) != nil && !isDir(all) {
		return ""
	}
	if !put(all, "cgroup.subtree_control", "+memory +pids") {
		return ""
	}
	put(all, "cgroup.subtree_control", "+cpu") // if it may
	return filepath.Join(all, id)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// add moves a process into the groups.
func (g *cgroup) add(pid int) error {
	for _, dir := range g.dirs {
		if !put(dir, "cgroup.procs", strconv.Itoa(pid)) {
			return fmt.Errorf("cannot move the job into its cgroup %s", dir)
		}
	}
	return nil
}

// limits says who limits what.
func (g *cgroup) limits() string {
	switch {
	case g.memory != "" && g.pids != "":
		return "memory and processes by cgroup"
	case g.memory != "":
		return "memory by cgroup, processes by polling"
	case g.pids != "":
		return "memory by polling, processes by cgroup"
	}
	return "memory and processes by polling"
}

// members are the processes in the groups; ok is false if only a look at the
// whole host can tell.
func (g *cgroup) members() (all []process, ok bool) {
	if g.pids == "" {
		return nil, false
	}
	text, err := os.ReadFile(filepath.Join(g.pids, "cgroup.procs"))
	if err != nil {
		return nil, false
	}
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			if p, there := inspect(pid); there {
				all = append(all, p)
			}
		}
	}
	return all, true
}

// outOfMemory reports whether the kernel had to kill for want of memory.
func (g *cgroup) outOfMemory() bool {
	if g.v2 {
		return happened(g.memory, "memory.events", "oom_kill")
	}
	return happened(g.memory, "memory.oom_control", "oom_kill")
}

// outOfTasks reports whether the kernel had to refuse a new process.
func (g *cgroup) outOfTasks() bool { return happened(g.pids, "pids.events", "max") }

// happened reads a counter of a group; no group has none.
func happened(dir, file, counter string) bool {
	if dir == "" {
		return false
	}
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, counter+" "); ok {
			return strings.TrimSpace(n) != "0"
		}
	}
	return false
}

// killCgroups kills what is in the groups, and removes them. The dead leave a
// group a little later than they are killed, hence the rounds.
func killCgroups(dirs []string) {
	for range 100 {
		left := false
		for _, dir := range dirs {
			if text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil {
				for _, field := range strings.Fields(string(text)) {
					if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
						_ = unix.Kill(pid, unix.SIGKILL) // gone already
					}
				}
			}
			if os.Remove(dir) != nil && isDir(dir) {
				left = true
			}
		}
		if !left {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (g *cgroup) remove() { killCgroups(g.dirs) }
