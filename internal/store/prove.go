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

// chunk is rows that are read together, and then used again for others: with a
// million of them, making new ones would cost as much as reading.
type chunk struct {
	rows    []row
	fields  [][]any // of the rows and their seals: what Scan fills
	seals   []seal
	n       int // how many there are
	columns int // of a row, without its seal
}

func newChunk(t *table) *chunk {
	c := &chunk{
		rows: make([]row, proveChunk), fields: make([][]any, proveChunk), seals: make([]seal, proveChunk), columns: len(t.columns),
	}
	for i := range c.rows {
		c.rows[i] = t.empty()
		c.fields[i] = append(c.rows[i].fields(), c.seals[i].fields()...)
	}
	return c
}

// proveTable reads a whole table and proves every row, on all cores: reading
// and hashing cost about the same. emit, if set, gets the proven rows in chunks,
// one call at a time, in any order; they are its own until it returns. The
// digest is over the rows read.
func proveTable(ctx context.Context, q querier, t *table, k *keys.Ring, emit func([]row) error) (digest sum, n int, err error) {
	p := prover{table: t, keys: k, emit: emit}
	workers := max(1, runtime.GOMAXPROCS(0)-1)
	free, full := make(chan *chunk, workers+2), make(chan *chunk, workers+2)
	for range cap(free) {
		free <- newChunk(t)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var scratch []byte
			for c := range full {
				scratch = p.prove(c, scratch)
				free <- c
			}
		})
	}
	err = p.read(ctx, q, free, full)
	close(full)
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

// read fills chunks with the rows of the table.
func (p *prover) read(ctx context.Context, q querier, free <-chan *chunk, full chan<- *chunk) error {
	rows, err := q.QueryContext(ctx, p.table.selectAll)
	if err != nil {
		return err
	}
	defer rows.Close()
	c := <-free
	c.n = 0
	for rows.Next() {
		if err := rows.Scan(c.fields[c.n]...); err != nil {
			return err
		}
		if c.n++; c.n < proveChunk {
			continue
		}
		full <- c
		if err := p.failed(); err != nil {
			return err
		}
		c = <-free
		c.n = 0
	}
	full <- c
	return rows.Err()
}

func (p *prover) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// prove checks the rows of a chunk and hands them on. The scratch is for their
// encoding, and comes back for the next ones.
func (p *prover) prove(c *chunk, scratch []byte) []byte {
	var digest sum
	for i := range c.n {
		scratch = appendImage(appendName(scratch[:0], p.table), p.table, c.fields[i][:c.columns])
		if !c.seals[i].proves(p.keys, scratch) {
			p.fail(fmt.Errorf("%s %s: %w", p.table.name, printable(c.rows[i]), errForged))
			return scratch
		}
		if p.table.counted {
			digest = digest.plus(p.keys.TableDigest(scratch))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.digest = p.digest.plus(digest)
	p.n += c.n
	if p.emit != nil && p.err == nil {
		p.err = p.emit(c.rows[:c.n])
	}
	return scratch
}

func (p *prover) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}
