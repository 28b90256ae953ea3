package store

import (
	"fmt"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/keys"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// BenchmarkCommit is one acknowledged decision: ledger fsync and COMMIT.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers, " at once"), func(b *testing.B) {
			s, err := OpenTokens(b.Context(), TokensConfig{Dir: b.TempDir(), Keys: keys.New([32]byte{1})})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ann := storetest.Person("ann")
			if _, err := s.Commit(b.Context(), storetest.Add(&ann), storetest.Event(audit.UserCreate, "x")); err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(max(1, writers/2))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					d := storetest.Add(nil, storetest.Token(ann, "n"))
					if _, err := s.Commit(b.Context(), d, storetest.Event(audit.TokenIssue, "x")); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkStart is opening, proving and loading 100 000 tokens, and what a
// bare scan of the same table takes.
func BenchmarkStart(b *testing.B) {
	cfg := TokensConfig{Dir: b.TempDir(), Keys: keys.New([32]byte{1})}
	s, err := OpenTokens(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	var ann principal.Principal
	for i := range 100 {
		ann = storetest.Person(fmt.Sprint("p", i))
		d := storetest.Add(&ann)
		for range 1000 {
			d.Tokens = append(d.Tokens, tokenInsert(storetest.Token(ann, "n")))
		}
		if _, err := s.Commit(b.Context(), d, storetest.Event(audit.TokenIssue, "x")); err != nil {
			b.Fatal(err)
		}
	}
	_ = s.Close()
	for b.Loop() {
		start := time.Now()
		s, err := OpenTokens(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Since(start)
		n := 0
		err = s.Load(b.Context(), func(c authn.Change) error { n += len(c.Tokens); return nil })
		if err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
		loaded := time.Since(start) - opened
		start = time.Now()
		err = each(b.Context(), s.db.Load().read, tokensTable.selectAll, tokensTable, func(s stored) error {
			if s.row.(*tokenRow).token().ID == token.ID("") {
				return errForged
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(opened.Seconds(), "open-s")
		b.ReportMetric(loaded.Seconds(), "load-s")
		b.ReportMetric(time.Since(start).Seconds(), "scan-s")
		_ = s.Close()
	}
}
