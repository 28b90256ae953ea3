package bench

import (
	"bufio"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/clock"
	"gradegate/internal/policy"
	"gradegate/internal/store"
	"gradegate/internal/token"
	"gradegate/test/bench/fill"
)

// BenchmarkStart prints, for the largest number of tokens, how long the built
// binary takes from its start to its first right answer, beside a bare scan of
// the same table, and what a token costs in memory.
func BenchmarkStart(b *testing.B) {
	of := sizes(b)
	h := filled(b, of[len(of)-1])
	bin := build(b, b.TempDir(), "gradegate/cmd/gradegate")
	var took, ready, scanned, scanCPU, resident, peak []float64
	for b.Loop() {
		for range rounds {
			began := time.Now()
			gate := start(b, bin, "serve", "--data", h.Dir, "--listen", "127.0.0.1:0")
			firstAnswer(b, gate.addr, h.Secrets[0])
			took = append(took, time.Since(began).Seconds())
			ready = append(ready, cpu(b, gate.pid).Seconds())
			time.Sleep(time.Second) // what the start has left is given back
			resident, peak = append(resident, memory(b, gate.pid, "VmRSS")), append(peak, memory(b, gate.pid, "VmHWM"))
			gate.stop()
			before := ownCPU(b)
			began = time.Now()
			scan(b, &h)
			scanned, scanCPU = append(scanned, time.Since(began).Seconds()), append(scanCPU, (ownCPU(b)-before).Seconds())
		}
	}
	fmt.Printf("\nbeside %d tokens\n", h.Tokens)
	fmt.Printf("%-36s %10.2f s %28s ÷ scan (least–most)\n", "start to the first right answer", median(took), ratio(took, scanned))
	fmt.Printf("%-36s %10.2f s %28s ÷ scan (least–most)\n", "processor time until then", median(ready), ratio(ready, scanCPU))
	fmt.Printf("%-36s %10.2f s\n", "bare scan of the table", median(scanned))
	fmt.Printf("%-36s %10.0f MB, at most %.0f MB\n", "resident memory of the server", median(resident), slices.Max(peak))
	perToken, collections := table(b, &h)
	fmt.Printf("%-36s %10.0f B\n", "memory per token and its last use", perToken)
	fmt.Printf("%-36s %10.2f ms (%.2f–%.2f)\n", "forced full collection", median(collections), slices.Min(collections), slices.Max(collections))
}

// firstAnswer asks until the token is let in.
func firstAnswer(b *testing.B, addr string, secret token.Secret) {
	b.Helper()
	c, err := net.Dial("tcp", addr)
	must(b, err)
	defer func() { _ = c.Close() }()
	_, err = fmt.Fprintf(c, "GET /authz/nginx HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n", secret.Reveal())
	must(b, err)
	must(b, answer(bufio.NewReader(c)))
}

// memory is a line of what the kernel says of a process, in megabytes.
func memory(b *testing.B, pid int, name string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(b, err)
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		b.Fatal("the kernel does not say ", name)
	}
	kb, err := strconv.Atoi(string(m[1]))
	must(b, err)
	return float64(kb) / 1024
}

// scan reads every column of every token, and does nothing with it.
func scan(b *testing.B, h *fill.Home) {
	b.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(h.Dir, "tokens.db")+"?mode=ro")
	must(b, err)
	defer func() { _ = db.Close() }()
	rows, err := db.Query("SELECT * FROM tokens")
	must(b, err)
	defer func() { _ = rows.Close() }()
	types, err := rows.ColumnTypes()
	must(b, err)
	to := make([]any, len(types))
	for i, t := range types {
		switch t.DatabaseTypeName() {
		case "TEXT":
			to[i] = new(string)
		case "INTEGER":
			to[i] = new(int64)
		default:
			to[i] = new([]byte)
		}
	}
	n := 0
	for rows.Next() {
		must(b, rows.Scan(to...))
		n++
	}
	must(b, rows.Err())
	if n < h.Tokens {
		b.Fatalf("%d tokens, want %d", n, h.Tokens)
	}
}

// table is what the table in memory takes for one token, and how long a forced
// collection takes beside it.
func table(b *testing.B, h *fill.Home) (perToken float64, collections []float64) {
	b.Helper()
	cfg, err := h.Config()
	must(b, err)
	cfg.Clock, cfg.Log = clock.New(clock.Wall, time.Time{}), slog.New(slog.DiscardHandler)
	s, err := store.OpenTokens(b.Context(), cfg)
	must(b, err)
	defer func() { _ = s.Close() }()
	before := heap()
	t := authn.New(cfg.Clock.Now, 0, policy.Rules{Terms: token.PlatformTerms()})
	must(b, s.Load(b.Context(), func(c authn.Change) error { t.Apply(c); return nil }))
	must(b, s.Uses(b.Context(), func(u authn.LastUse) error { t.ApplyUse(u); return nil }))
	perToken = float64(heap()-before) / float64(t.Len())
	for range rounds {
		began := time.Now()
		runtime.GC()
		collections = append(collections, float64(time.Since(began).Microseconds())/1000)
	}
	runtime.KeepAlive(t)
	return perToken, collections
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one had to leave
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
