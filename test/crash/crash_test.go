// Package crash kills the built binary, at named points and at random times,
// under a load of people who make and revoke tokens and hand in jobs, and
// checks after each start that everything that was acknowledged is still true.
package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// points are those of internal/store, in a batch's order.
var points = []string{"before the ledger write", "after the ledger write", "before COMMIT", "after COMMIT"}

const (
	workers   = 6
	minPerSec = 20 // acknowledged operations: a run that idles proves nothing
)

// kills is how often the server is killed: a hundred times at least, or what
// KILLS says.
func kills(t *testing.T) int {
	t.Helper()
	if s := os.Getenv("KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 100
}

// TestKills: no acknowledged token, revocation, job or grade is lost, no
// revoked token is accepted, and no job starts twice.
func TestKills(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "gradegate")
	if out, err := exec.Command("go", "build", "-tags", "crashpoints", "-o", binary, "gradegate/cmd/gradegate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := newServer(t, binary)
	s.start("")
	s.prepare(workers)
	s.kill()

	n := kills(t)
	var lived time.Duration
	for i := range n {
		at := ""
		if i%2 == 0 { // every other kill comes from inside, at a named point
			at = fmt.Sprintf("%s/%d", points[(i/2)%len(points)], 2+r.IntN(40))
		}
		s.start(at)
		if err := s.check(); err != nil {
			t.Fatalf("after %d kills: %v", i, err)
		}
		lived += s.load(time.Duration(300+r.IntN(900)) * time.Millisecond)
		s.kill()
	}
	s.start("")
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	s.settle()
	if err := s.checkStates(1<<30, false); err != nil {
		t.Fatal(err)
	}
	if err := s.checkJobs(); err != nil {
		t.Fatal(err)
	}
	acked := s.model.acknowledged()
	rate := float64(acked) / lived.Seconds()
	t.Logf("%d kills, %d acknowledged operations in %s of life: %.0f/s", n, acked, lived.Round(time.Second), rate)
	if rate < minPerSec {
		t.Errorf("only %.1f acknowledged operations a second", rate)
	}

	// The ledger alone brings everything back that it holds.
	s.kill()
	if err := os.RemoveAll(s.data()); err != nil {
		t.Fatal(err)
	}
	s.start("")
	if err := s.checkTokens(); err != nil {
		t.Errorf("from the ledger alone: %v", err)
	}
	s.kill()
}

// model is what clients know: what was acknowledged, and what they tried and
// do not know the fate of.
type model struct {
	mu     sync.Mutex
	tokens map[string]*tokenState // by secret
	jobs   map[string]*jobState   // by id
	acked  int
}

type tokenState struct {
	id      string
	owner   int
	revoked fate
}

type jobState struct {
	owner  int
	state  string // the last final state that was seen
	scores string
	runs   bool // a program, whose starts leave marks
}

// fate is what is known of an attempt.
type fate int

const (
	untried fate = iota
	unknown
	known
)

func (m *model) acknowledged() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acked
}

func (m *model) ack(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked++
	do()
}

// marks counts how often a job's program says that it started.
func marks(log string) int { return strings.Count(log, "the program starts\n") }
