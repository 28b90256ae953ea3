package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gradegate/internal/token"
	"gradegate/internal/token/tokentest"
)

const (
	guessers  = 50               // addresses, each with a connection of its own
	guessTime = 10 * time.Second // over which they spread what they try
	askEvery  = 4 * time.Millisecond
)

// gate is a server and somebody's token.
type gate struct {
	addr, secret string
	id           token.ID
}

func newGate(tb testing.TB) *gate {
	dir := tb.TempDir()
	t := serve(tb, dir, "gradegate/cmd/gradegate", "serve", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0")
	g := &gate{addr: t.addr, secret: someone(tb, filepath.Join(dir, "gradegate"), filepath.Join(dir, "data"), t.addr)}
	p, err := token.Parse(g.secret)
	if err != nil {
		tb.Fatal(err)
	}
	g.id = p.Public.ID()
	return g
}

// BenchmarkGuessing prints how much longer the owner of a token waits while
// others try 10 000 wrong secrets with its id: the 99th percentile, as a ratio
// to that without them, of five pairs; and to that while they send as many
// requests that are in order, which is what the load alone costs. The owner's
// every request succeeds.
func BenchmarkGuessing(b *testing.B) {
	g := newGate(b)
	var ratios, toLoad []float64
	for b.Loop() {
		for range rounds {
			quiet := g.victim(b, guessTime, nil)
			loud := g.victim(b, guessTime, func() { g.fromAfar(b, true, 10_000, guessTime) })
			busy := g.victim(b, guessTime, func() { g.fromAfar(b, false, 10_000, guessTime) })
			ratios = append(ratios, float64(percentile(loud, 99))/float64(percentile(quiet, 99)))
			toLoad = append(toLoad, float64(percentile(loud, 99))/float64(percentile(busy, 99)))
			fmt.Printf("owner's p99 alone %v, while others guess %v, while others work %v\n", percentile(quiet, 99), percentile(loud, 99), percentile(busy, 99))
		}
	}
	for name, r := range map[string][]float64{"own baseline": ratios, "p99 while as many valid requests come": toLoad} {
		fmt.Printf("p99 while guessed at ÷ %s: median %.2f (%.2f–%.2f), 0 failures\n", name, median(r), slices.Min(r), slices.Max(r))
	}
}

// TestGuessingHoldsNobodyUp: wrong secrets with a token's id, from many
// addresses, and its owner sees no failure (R8.3). What is asserted is not time.
func TestGuessingHoldsNobodyUp(t *testing.T) {
	g := newGate(t)
	if got := g.victim(t, 0, func() { g.others(t, true, 2000, 0) }); len(got) == 0 {
		t.Error("the owner asked nothing")
	}
}

// victim asks whoami at a steady pace for a while, and until the others are
// through, and tells how long each answer took. A refusal is the end.
func (g *gate) victim(tb testing.TB, span time.Duration, others func()) (took []time.Duration) {
	tb.Helper()
	through := make(chan struct{})
	go func() {
		defer close(through)
		if others != nil {
			others()
		}
	}()
	c := g.dial(tb, "127.0.0.1")
	defer c.close()
	pace, end := time.NewTicker(askEvery), time.Now().Add(span)
	defer pace.Stop()
	for {
		began := time.Now()
		if status := c.ask(tb, g.secret); status != http.StatusOK {
			tb.Fatalf("the owner was refused: %d", status)
		}
		took = append(took, time.Since(began))
		select {
		case <-through:
			if time.Now().After(end) {
				return took
			}
		default:
		}
		<-pace.C
	}
}

// fromAfar lets others work in another process, so that this one measures the server
// and not what it does itself.
func (g *gate) fromAfar(tb testing.TB, guess bool, n int, over time.Duration) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestFromAfar$", "-test.count", "1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %t %d %d", afar, g.addr, g.id, g.secret, guess, n, over))
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Errorf("%v\n%s", err, out)
	}
}

// afar is what tells that process what to do.
const afar = "BENCH_GUESS"

func TestFromAfar(t *testing.T) {
	task := os.Getenv(afar)
	if task == "" {
		t.Skip("it is run by BenchmarkGuessing")
	}
	var g gate
	var n int
	var guess bool
	var over time.Duration
	if _, err := fmt.Sscanf(task, "%s %s %s %t %d %d", &g.addr, &g.id, &g.secret, &guess, &n, &over); err != nil {
		t.Fatal(err)
	}
	g.others(t, guess, n, over)
}

// others send n requests from many addresses at once: with wrong secrets, or
// with the right one.
func (g *gate) others(tb testing.TB, guess bool, n int, over time.Duration) {
	var all sync.WaitGroup
	for i := range guessers {
		all.Go(func() {
			c := g.dial(tb, fmt.Sprintf("127.0.1.%d", i+1))
			defer c.close()
			each := max(time.Microsecond, over*guessers/time.Duration(n))
			time.Sleep(each * time.Duration(i) / guessers) // out of step: fifty at the same instant would be a queue of our own making
			pace := time.NewTicker(each)
			defer pace.Stop()
			for range n / guessers {
				secret := g.secret
				if guess {
					secret = tokentest.Guess(g.id).Reveal()
				}
				if status := c.ask(tb, secret); guess == (status == http.StatusOK) {
					tb.Errorf("the others are answered with %d", status)
				}
				<-pace.C
			}
		})
	}
	all.Wait()
}

// client is one connection from an address of its own.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (g *gate) dial(tb testing.TB, from string) *client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", g.addr)
	if err != nil {
		tb.Error(err)
		return &client{Conn: &net.TCPConn{}, r: bufio.NewReader(strings.NewReader(""))}
	}
	return &client{c, bufio.NewReader(c)}
}

func (c *client) close() { _ = c.Close() }

// ask sends one request and reads the whole answer.
func (c *client) ask(tb testing.TB, secret string) (status int) {
	_, err := io.WriteString(c, "GET /v1/whoami HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer "+secret+"\r\n\r\n")
	if err != nil {
		tb.Error(err)
		return 0
	}
	a, err := http.ReadResponse(c.r, nil)
	if err != nil {
		tb.Error(err)
		return 0
	}
	_, err = new(bytes.Buffer).ReadFrom(a.Body)
	if err != nil {
		tb.Error(err)
	}
	return a.StatusCode
}

func percentile(all []time.Duration, p int) time.Duration {
	s := slices.Sorted(slices.Values(all))
	return s[(len(s)-1)*p/100]
}
