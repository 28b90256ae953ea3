package trail

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/journal"
)

// BenchmarkRecord is the price of a line, with the kernel and durable, in one
// sink and in two.
func BenchmarkRecord(b *testing.B) {
	for _, durable := range []bool{false, true} {
		for _, second := range []bool{false, true} {
			name := fmt.Sprintf("durable=%v", durable)
			c := config(b.TempDir(), "")
			c.SegmentBytes, c.Preallocate = 0, 0
			if second {
				name += "/sinks=2"
				c.Second = b.TempDir()
			}
			b.Run(name, func(b *testing.B) {
				tr := openWith(b, c)
				e := event(1)
				b.ReportAllocs()
				b.SetParallelism(32)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := tr.Record(context.Background(), e, durable); err != nil {
							b.Error(err)
							return
						}
					}
				})
				shut(b, tr)
			})
		}
	}
}

// BenchmarkVerify is the price of proving a line.
func BenchmarkVerify(b *testing.B) {
	const lines = 100_000
	dir := b.TempDir()
	c := config(dir, "")
	c.SegmentBytes, c.Preallocate = 0, 0
	tr := openWith(b, c)
	var batch []audit.Event
	for i := range lines {
		if batch = append(batch, event(i)); len(batch) == 500 {
			effects(b, tr, batch...)
			batch = batch[:0]
		}
	}
	shut(b, tr)
	key := keyText(b)
	b.ResetTimer()
	for b.Loop() {
		if r, err := Verify(b.Context(), dir, key, Options{}); err != nil || !r.OK() {
			b.Fatal(r.Problems, err)
		}
	}
	b.ReportMetric(float64(lines)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

// longTrail is a trail of that many lines, over 90 days, with the segments of a server.
func longTrail(b *testing.B, lines int) (dir string, start time.Time) {
	b.Helper()
	dir, start = b.TempDir(), time.Now().Add(-90*24*time.Hour).UTC()
	j, _, err := journal.Open(filepath.Join(dir, Use), journal.Options{Stream: Use})
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, Act), 0o700); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var batch [][]byte
	for i := range lines {
		if batch = append(batch, likely(r, timeOfLine(start, i, lines)).Encode()); len(batch) == 50 || i == lines-1 {
			if _, err := j.Write(batch, false); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, start
}

func timeOfLine(start time.Time, i, lines int) time.Time {
	return start.Add(time.Duration(i) * (90 * 24 * time.Hour / time.Duration(lines))).Truncate(time.Microsecond)
}

// likely is a line of the use stream as a server writes it, of one of a thousand tokens.
func likely(r *rand.Rand, at time.Time) audit.Event {
	who := r.IntN(1000)
	return audit.Event{
		ID: "evt_" + authority.SortableID(at), At: at, Action: audit.Request, Outcome: audit.Allow, Actor: fmt.Sprintf("usr_01jd%022d", who),
		Token: fmt.Sprintf("tok_01jd%022d", who), Kind: "personal", Addr: fmt.Sprintf("10.3.%d.%d", who%7, who%250), Agent: "gradegate/1.4.2 (linux; amd64)",
		Route: []string{"GET /v1/jobs/{id}", "GET /v1/jobs", "POST /v1/competitions/{id}/jobs"}[r.IntN(3)], Request: "req_" + authority.SortableID(at), Status: 200,
	}
}

// BenchmarkSearchRequest is the price of finding the lines of one request among 90
// days of them: ten thousand lines, and a million.
func BenchmarkSearchRequest(b *testing.B) {
	for _, lines := range []int{10_000, 1_000_000} {
		dir, start := longTrail(b, lines)
		for _, form := range []string{"plain", "compressed"} {
			if form == "compressed" {
				tidied(b, filepath.Join(dir, Use))
			}
			b.Run(fmt.Sprintf("lines=%d/%s", lines, form), func(b *testing.B) {
				n := 0
				for b.Loop() {
					n++
					at := timeOfLine(start, (n*7919)%lines, lines)
					if _, err := Search(b.Context(), dir, Query{Stream: Use, Request: "req_" + authority.SortableID(at)}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSearchAll is the price of a line in a search that has to read them all.
func BenchmarkSearchAll(b *testing.B) {
	const lines = 1_000_000
	dir, _ := longTrail(b, lines)
	for _, form := range []string{"plain", "compressed"} {
		if form == "compressed" {
			tidied(b, filepath.Join(dir, Use))
		}
		b.Run(form, func(b *testing.B) {
			var size int64
			for b.Loop() {
				if _, err := Search(b.Context(), dir, Query{Stream: Use, Text: "nowhere"}); err != nil {
					b.Fatal(err)
				}
			}
			segments, err := journal.Segments(filepath.Join(dir, Use))
			if err != nil {
				b.Fatal(err)
			}
			for _, s := range segments {
				size += s.Size
			}
			b.ReportMetric(float64(lines)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
			b.ReportMetric(float64(size)/lines, "B/line")
		})
	}
}
