// Package bench measures the built binary against an empty net/http handler:
// both run as processes of their own, are loaded in turn, and what counts is
// the ratio within one pair. It asserts nothing on time.
package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gradegate/api"
)

const (
	rounds      = 5
	connections = 64
	loadTime    = 1500 * time.Millisecond
)

// target is one address under load, served by one process.
type target struct {
	name, addr, path, secret string
	pid                      int
	stop                     func()
	perSecond, cpu           []float64 // for each round; cpu in microseconds a request
}

// BenchmarkPairs prints throughput and CPU per request of the verifying routes
// as ratios to the empty handler: median, and least to most, of five pairs.
func BenchmarkPairs(b *testing.B) {
	dir := b.TempDir()
	empty := serve(b, dir, "gradegate/test/bench/empty")
	gate := serve(b, dir, "gradegate/cmd/gradegate", "serve", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0")
	secret := someone(b, filepath.Join(dir, "gradegate"), filepath.Join(dir, "data"), gate.addr)
	targets := []*target{
		{name: "empty handler", addr: empty.addr, path: "/", pid: empty.pid},
		{name: "/authz/nginx", addr: gate.addr, path: "/authz/nginx", pid: gate.pid, secret: secret},
		{name: "GET /v1/whoami", addr: gate.addr, path: "/v1/whoami", pid: gate.pid, secret: secret},
	}
	for b.Loop() {
		for range rounds {
			for _, t := range targets {
				t.load(b)
			}
		}
	}
	fmt.Printf("\n%-16s %12s %26s %14s %26s\n", "", "requests/s", "÷ empty (least–most)", "CPU µs", "÷ empty (least–most)")
	for _, t := range targets {
		fmt.Printf("%-16s %12.0f %26s %14.1f %26s\n", t.name, median(t.perSecond), ratio(t.perSecond, targets[0].perSecond), median(t.cpu), ratio(t.cpu, targets[0].cpu))
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func ratio(v, base []float64) string {
	r := make([]float64, len(v))
	for i := range v {
		r[i] = v[i] / base[i]
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(r), slices.Min(r), slices.Max(r))
}

var onRE = regexp.MustCompile(`on http://(\S+)`)

// serve builds a program and starts it.
func serve(b testing.TB, dir, pkg string, args ...string) *target {
	b.Helper()
	return start(b, build(b, dir, pkg), args...)
}

func build(b testing.TB, dir, pkg string) string {
	b.Helper()
	bin := filepath.Join(dir, filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", bin, pkg).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// start starts a program and reads its address from what it says.
func start(b testing.TB, bin string, args ...string) *target {
	b.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), "GRADEGATE_LIMITS_READS=1000000000", "GRADEGATE_LIMITS_VERIFIES=1000000000")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	t := &target{pid: cmd.Process.Pid, stop: sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})}
	b.Cleanup(t.stop)
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		if m := onRE.FindStringSubmatch(lines.Text()); m != nil {
			t.addr = m[1]
		}
		if strings.HasPrefix(lines.Text(), "manage") {
			break
		}
	}
	return t
}

// someone is the token of a person.
func someone(b testing.TB, bin, data, addr string) string {
	b.Helper()
	code, err := exec.Command(bin, "user", "invite", "ann", "--data", data, "-o", "secret").Output()
	if err != nil {
		b.Fatal(err)
	}
	c, err := api.NewClient("http://"+addr, "")
	if err != nil {
		b.Fatal(err)
	}
	made, err := c.Redeem(b.Context(), api.Redeem{Code: strings.TrimSpace(string(code)), Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	return made.Secret
}

// load asks on many connections for a while, and notes what it cost.
func (t *target) load(b *testing.B) {
	b.Helper()
	request := "GET " + t.path + " HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n"
	if t.secret != "" {
		request += "Authorization: Bearer " + t.secret + "\r\n"
	}
	request += "\r\n"
	var done atomic.Int64
	var wg sync.WaitGroup
	stop := time.Now().Add(loadTime)
	before, began := cpu(b, t.pid), time.Now()
	for range connections {
		wg.Go(func() {
			n, err := ask(t.addr, []byte(request), stop)
			done.Add(n)
			if err != nil {
				b.Error(t.name, err)
			}
		})
	}
	wg.Wait()
	n := float64(max(1, done.Load()))
	t.perSecond = append(t.perSecond, n/time.Since(began).Seconds())
	t.cpu = append(t.cpu, float64((cpu(b, t.pid)-before).Microseconds())/n)
}

func ask(addr string, request []byte, stop time.Time) (n int64, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for time.Now().Before(stop) {
		if _, err := c.Write(request); err != nil {
			return n, err
		}
		if err := answer(r); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// answer reads one response of known length and checks that it allows.
func answer(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.Contains(line, []byte(" 200 ")) {
		return fmt.Errorf("answered %q", line)
	}
	length := 0
	for len(line) > 2 {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return err
			}
		}
	}
	_, err = r.Discard(length)
	return err
}

// cpu is the processor time that a process has used.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64) // the kernel writes numbers
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}
