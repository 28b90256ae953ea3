package store

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"gradegate/internal/keys"
)

// proveChunk is how many rows one worker proves at a time.
const proveChunk = 256

// proveTable reads a whole table and proves every row, on all cores: reading
// and hashing cost about the same. emit, if set, gets the proven rows in chunks,
// one call at a time, in any order. The digest is over the rows read.
func proveTable(ctx context.Context, q querier, t *table, k *keys.Ring, emit func([]row) error) (digest sum, n int, err error) {
	p := prover{table: t, keys: k, emit: emit}
	chunks := make(chan []stored, 2)
	var wg sync.WaitGroup
	for range max(1, runtime.GOMAXPROCS(0)-1) {
		wg.Go(func() {
			for chunk := range chunks {
				p.prove(chunk)
			}
		})
	}
	chunk := make([]stored, 0, proveChunk)
	err = each(ctx, q, t.selectAll, t, func(s stored) error {
		if chunk = append(chunk, s); len(chunk) < proveChunk {
			return nil
		}
		chunks <- chunk
		chunk = make([]stored, 0, proveChunk)
		return p.failed()
	})
	chunks <- chunk
	close(chunks)
	wg.Wait()
	if err == nil {
		err = p.err
	}
	return p.digest, p.n, err
}

// prover is what the workers share.
type prover struct {
	table *table
	keys  *keys.Ring
	emit  func([]row) error

	mu     sync.Mutex
	digest sum
	n      int
	err    error
}

func (p *prover) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *prover) prove(chunk []stored) {
	var digest sum
	rows := make([]row, 0, len(chunk))
	for i := range chunk {
		s := &chunk[i]
		if err := s.verify(p.keys); err != nil {
			p.fail(fmt.Errorf("%s %s: %w", p.table.name, printable(s.row), err))
			return
		}
		if p.table.counted {
			digest = digest.plus(term(p.keys, p.table, s.image))
		}
		rows = append(rows, s.row)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.digest = p.digest.plus(digest)
	p.n += len(rows)
	if p.emit != nil && p.err == nil {
		p.err = p.emit(rows)
	}
}

func (p *prover) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}
