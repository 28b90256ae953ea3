package trail

import (
	"context"
	"fmt"
	"testing"

	"gradegate/internal/audit"
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
		if r, err := Verify(dir, key, Options{}); err != nil || !r.OK() {
			b.Fatal(r.Problems, err)
		}
	}
	b.ReportMetric(float64(lines)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
