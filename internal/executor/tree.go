package executor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// identity names a process for good: the kernel reuses a pid, but not with the
// same start time in the same boot.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
	Boot  string `json:"boot"`
}

// process is a line of /proc/PID/stat.
type process struct {
	identity
	Parent  int
	Session int
	State   byte
	Threads int
}

var bootID = sync.OnceValue(func() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // "" compares unequal to nothing real
	return strings.TrimSpace(string(text))
})

// inspect reads one process. ok is false if there is none.
func inspect(pid int) (p process, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, false
	}
	// The second field is the program's name in brackets, chosen by the program.
	_, rest, found := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ")
	field := strings.Fields(rest)
	if !found || len(field) < 20 {
		return p, false
	}
	p.PID, p.Boot, p.State = pid, bootID(), field[0][0]
	p.Parent, _ = strconv.Atoi(field[1])   // the kernel wrote a number
	p.Session, _ = strconv.Atoi(field[3])  // likewise
	p.Threads, _ = strconv.Atoi(field[17]) // likewise
	p.Start, err = strconv.ParseUint(field[19], 10, 64)
	return p, err == nil
}

// self identifies the calling process.
func self() identity {
	p, _ := inspect(os.Getpid()) // our own entry exists
	return p.identity
}

// signal sends s to the very process, never to one that inherited its pid.
func (i identity) signal(s unix.Signal) error {
	if i.PID <= 1 {
		return unix.ESRCH
	}
	fd, err := unix.PidfdOpen(i.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if p, ok := inspect(i.PID); !ok || p.identity != i {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, s, nil, 0)
}

// descendants are the processes below root, without it, parents first.
func descendants(root int) []process {
	below := map[int][]process{}
	for _, p := range everybody() {
		below[p.Parent] = append(below[p.Parent], p)
	}
	all := below[root]
	for i := 0; i < len(all); i++ {
		all = append(all, below[all[i].PID]...)
	}
	return all
}

// everybody is every process of this host that we can see.
func everybody() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []process
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := inspect(pid); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// tasksOf counts the processes and threads of a uid.
func tasksOf(uid int) (n int) {
	for _, p := range everybody() {
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d", p.PID), &st) == nil && int(st.Uid) == uid {
			n += p.Threads
		}
	}
	return n
}

// killSession kills what is left of the session that leader started. The kernel
// gives a session's number to nobody as long as it has members; once another
// process has that pid, there are none of ours.
func killSession(leader identity) {
	if p, ok := inspect(leader.PID); leader.PID <= 1 || leader.Boot != bootID() || ok && p.identity != leader {
		return
	}
	for _, p := range everybody() {
		if p.Session == leader.PID {
			_ = p.signal(unix.SIGKILL) // gone already
		}
	}
}

// isInit reports whether p is the first process of the PID namespace below
// that of its parent: bwrap's reaper, which is not the program's.
func isInit(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(rest)
			return len(ids) > 1 && ids[len(ids)-1] == "1"
		}
	}
	return false
}

// program are those of all, the processes of a sandbox below root, that belong
// to the program: everything except the first processes of the sandbox.
func program(all []process, root int) []process {
	kept := make([]process, 0, len(all))
	for _, p := range all {
		if p.PID != root && (p.Parent != root || !isInit(p.PID)) {
			kept = append(kept, p)
		}
	}
	return kept
}

func pids(all []process) []int {
	list := make([]int, 0, len(all))
	for _, p := range all {
		list = append(list, p.PID)
	}
	return list
}

// killAll kills everything below the calling process. A program that forks
// outruns a kill that goes by a list, so all are stopped first: those who are
// stopped do not fork, and sooner or later there is nobody else.
func killAll() (left int) {
	var all []process
	for range 50 {
		all = descendants(os.Getpid())
		running := 0
		for _, p := range all {
			if p.State != 'T' && p.State != 'Z' {
				running++
				_ = p.signal(unix.SIGSTOP) // gone already
			}
		}
		if running == 0 {
			break
		}
	}
	for _, p := range all {
		_ = p.signal(unix.SIGKILL) // gone already
	}
	return len(all)
}

// sweep kills everything below the calling process, which must be a
// subreaper, until nothing is left, and collects the dead.
func sweep() error {
	for range 200 {
		if killAll() == 0 {
			return nil
		}
		var status unix.WaitStatus
		for {
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if pid <= 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		time.Sleep(5 * time.Millisecond) // dying takes a moment
	}
	return errors.New("some processes of the job survived SIGKILL")
}
