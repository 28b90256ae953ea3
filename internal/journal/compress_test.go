package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func noPace() {}

// compressAll compresses every sealed segment of a journal.
func compressAll(t testing.TB, dir string, d disk) error {
	t.Helper()
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range segments[:len(segments)-1] {
		if err := compress(context.Background(), s, segments[i+1], noPace, d); err != nil {
			return err
		}
	}
	return nil
}

// made writes a journal of n batches in several segments, with faults in between.
func made(t testing.TB, dir string, n int, r *rand.Rand) (want [][]byte) {
	t.Helper()
	d := newFaultDisk()
	j, _, err := open(dir, Options{Stream: "test", SegmentBytes: 900, Preallocate: 512}, d)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		d.at = 0
		if r.IntN(6) == 0 {
			d.at, d.mode = d.n+1, fault(r.IntN(3))
		}
		b := recs(len(want), 1+r.IntN(4))
		if _, err := j.Write(b, r.IntN(2) == 0); err == nil {
			want = append(want, b...)
		}
	}
	d.at = 0
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return want
}

// Compressed or not, a journal reads the same, from every place, and goes on.
func TestCompress(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		dir := scratch(t)
		want := made(t, dir, 40, rand.New(rand.NewPCG(seed, 7)))
		plain := map[string][]byte{}
		before, err := Segments(dir)
		if err != nil || len(before) < 4 {
			t.Fatal(len(before), err)
		}
		for i, s := range before[:len(before)-1] {
			var text []byte
			text, _ = s.encode()
			if _, err := scanSegment(s, &before[i+1], func(s *scanner) error { text = append(text, s.text()...); return nil }); err != nil {
				t.Fatal(err)
			}
			plain[s.Path] = text
		}
		if err := compressAll(t, dir, osDisk{}); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.jsonl")); len(left) != 1 {
			t.Fatalf("plain are %q", left)
		}
		for path, text := range plain {
			if got := unzstd(t, path+packedSuffix); !bytes.Equal(got, text) {
				t.Fatalf("%s: zstd gives %d bytes, the plain file had %d", path, len(got), len(text))
			}
		}
		wantRecords(t, dir, want)
		for from := range want {
			n := from
			if _, err := Read(dir, uint64(from), func(r Record) error {
				if r.Index != uint64(n) || !bytes.Equal(r.Data, want[n]) {
					return fmt.Errorf("record %d is %s", r.Index, r.Data)
				}
				n++
				return nil
			}); err != nil || n != len(want) {
				t.Fatal(from, n, err)
			}
		}
		var salvaged [][]byte
		Salvage(dir, func(data []byte) { salvaged = append(salvaged, bytes.Clone(data)) })
		for _, w := range want {
			if !slices.ContainsFunc(salvaged, func(b []byte) bool { return bytes.Equal(b, w) }) {
				t.Fatalf("not salvaged: %s", w)
			}
		}
		h := history{acked: want, next: len(want)}
		reopenAndGoOn(t, dir, &h, len(want))
	}
}

func unzstd(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	text, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A journal whose newest segment is a compressed one goes on behind it.
func TestOpenBehindCompressed(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	want := made(t, dir, 40, rand.New(rand.NewPCG(1, 1)))
	if err := compressAll(t, dir, osDisk{}); err != nil {
		t.Fatal(err)
	}
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	last := segments[len(segments)-1]
	if err := os.Remove(last.Path); err != nil {
		t.Fatal(err)
	}
	want = want[:last.First]
	h := history{acked: want, next: len(want)}
	reopenAndGoOn(t, dir, &h, len(want))
}

const killedAt = "JOURNAL_KILLED_AT"

// Whenever the process is killed in a compression, everything can be read, and
// the next compression finishes the work.
func TestCompressKills(t *testing.T) {
	if at := os.Getenv(killedAt); at != "" {
		dir, point, _ := strings.Cut(at, "|")
		crashPoint = func(p string) {
			if p == point {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // the signal is on its way
			}
		}
		t.Fatal("not killed: ", compressAll(t, dir, osDisk{}))
	}
	t.Parallel()
	for _, point := range []string{pointBegun, pointHalf, pointWritten, pointChecked, pointRenamed, pointNamed, pointReplaced} {
		dir := scratch(t)
		want := made(t, dir, 30, rand.New(rand.NewPCG(2, 2)))
		child := exec.Command(os.Args[0], "-test.run=^TestCompressKills$")
		child.Env = append(os.Environ(), killedAt+"="+dir+"|"+point)
		out, err := child.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: %v\n%s", point, err, out)
		}
		wantRecords(t, dir, want)
		if _, err := Verify(dir); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		h := history{acked: want, next: len(want)}
		reopenAndGoOn(t, dir, &h, len(want))
		if temps, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(temps) > 0 {
			t.Errorf("%s: after opening there are %q", point, temps)
		}
		want = append(want, recs(h.next, 2)...)
		if err := compressAll(t, dir, osDisk{}); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		wantRecords(t, dir, want)
		segments, err := Segments(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range segments {
			if sealed := i+1 < len(segments); s.Compressed != sealed || sealed && exists(strings.TrimSuffix(s.Path, packedSuffix)) {
				t.Errorf("%s: segment %d is %s", point, i+1, s.Path)
			}
		}
	}
}

// Each operation of a compression fails once, in each way, and the power goes.
func TestCompressFaults(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 3))
	for _, mode := range []fault{failBefore, failAfter, failShort} {
		for at := 1; ; at++ {
			dir := scratch(t)
			want := made(t, dir, 12, rand.New(rand.NewPCG(4, 4)))
			d := newFaultDisk()
			files, _ := filepath.Glob(filepath.Join(dir, "*"))
			for _, path := range files {
				d.remember(path)
			}
			d.mode, d.at = mode, at
			err := compressAll(t, dir, d)
			if d.hit == (err == nil) {
				t.Fatalf("mode %d, fault %d: %v", mode, at, err)
			}
			wantRecords(t, dir, want)
			d.powerCut(t, dir, r)
			wantRecords(t, dir, want)
			if err := compressAll(t, dir, osDisk{}); err != nil {
				t.Fatal(err)
			}
			wantRecords(t, dir, want)
			if !d.hit {
				if at < 15 {
					t.Fatalf("only %d operations", at)
				}
				break
			}
		}
	}
}

// A segment that is damaged is not compressed: the evidence stays as it is.
func TestDamagedIsNotCompressed(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	made(t, dir, 30, rand.New(rand.NewPCG(5, 5)))
	segments, _ := Segments(dir)
	data, err := os.ReadFile(segments[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 4
	if err := os.WriteFile(segments[0].Path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := compressAll(t, dir, osDisk{}); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.zst*")); len(files) > 0 {
		t.Error(files)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	big := scratch(t)
	wide(t, big)
	segments, _ = Segments(big)
	if err := Compress(ctx, segments[0], segments[1], noPace); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(big, "*.zst*")); len(files) > 0 {
		t.Error(files)
	}
}

// wide writes a journal of two segments, the first of them with several frames.
func wide(t testing.TB, dir string) (n int) {
	t.Helper()
	j, _ := mustOpen(t, dir, Options{SegmentBytes: 4 << 20})
	r := rand.New(rand.NewPCG(6, 6))
	text := make([]byte, 40<<10)
	for j.Position().Segment == 1 {
		for i := range text {
			text[i] = 'a' + byte(r.IntN(26))
		}
		mustWrite(t, j, [][]byte{fmt.Appendf(nil, `{"n":%d,"x":%q}`, n, text), fmt.Appendf(nil, `{"n":%d}`, n+1)}, false)
		n += 2
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// A damaged frame costs its own records, and it is said which those are.
func TestDamagedFrame(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	n := wide(t, dir)
	if err := compressAll(t, dir, osDisk{}); err != nil {
		t.Fatal(err)
	}
	segments, err := Segments(dir)
	if err != nil || !segments[0].Compressed {
		t.Fatal(segments, err)
	}
	path := segments[0].Path
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opened, _, err := openSegment(path)
	if err != nil {
		t.Fatal(err)
	}
	z := opened.(*frames)
	for z.walk() == nil {
	}
	z.Close()
	if len(z.known) < 4 {
		t.Fatalf("only %d frames", len(z.known))
	}
	r := rand.New(rand.NewPCG(8, 8))
	for range 60 {
		i := 1 + r.IntN(len(z.known)-1)
		f := z.known[i]
		bad := bytes.Clone(good)
		bad[f.off+r.Int64N(f.size)] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		read := 0
		_, err := Read(dir, 0, func(Record) error { read++; return nil })
		corrupt, ok := errors.AsType[*CorruptError](err)
		if !ok || corrupt.Segment != 1 || corrupt.Path != path || corrupt.Next != uint64(read) || corrupt.Until <= corrupt.Next {
			t.Fatalf("frame %d: after %d records: %+v", i, read, err)
		}
		held := map[string]bool{}
		Salvage(dir, func(data []byte) { held[string(data[:bytes.IndexAny(data, ",}")])] = true })
		for k := range n {
			lost := uint64(k) >= corrupt.Next && uint64(k) < corrupt.Until
			if have := held[fmt.Sprintf(`{"n":%d`, k)]; have == lost {
				t.Fatalf("frame %d is lost, said are %d to %d; record %d is there: %v", i, corrupt.Next, corrupt.Until-1, k, have)
			}
		}
	}
	for _, size := range []int64{0, 1, z.known[1].off - 1, z.known[2].off, z.known[3].off + 9} {
		if err := os.WriteFile(path, good[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", size, err)
		}
	}
}

// Readers beside compressions and the removal of the oldest segments see what is
// there, and no damage.
func TestReadersBesideCompression(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	want := made(t, dir, 200, rand.New(rand.NewPCG(9, 9)))
	var work sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		work.Go(func() {
			for {
				segments, err := Segments(dir)
				if err == nil {
					_, err = Read(dir, segments[0].First, func(r Record) error {
						if !bytes.Equal(r.Data, want[r.Index]) {
							return errors.New("another record")
						}
						return nil
					})
				}
				if err != nil && !errors.Is(err, ErrRemoved) {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	if err := compressAll(t, dir, osDisk{}); err != nil {
		t.Error(err)
	}
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Drop(segments[:len(segments)-2]); err != nil {
		t.Error(err)
	}
	close(done)
	work.Wait()
	if left, err := Segments(dir); err != nil || len(left) != 2 {
		t.Error(left, err)
	}
}

// FuzzFrames: whatever bytes stand in the place of a compressed segment, reading ends
// without a panic and makes up no record.
func FuzzFrames(f *testing.F) {
	dir := scratch(f)
	made(f, dir, 6, rand.New(rand.NewPCG(1, 1)))
	if err := compressAll(f, dir, osDisk{}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, segmentName(1)+packedSuffix))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(append(bytes.Clone(good), good...))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := scratch(t)
		if err := os.WriteFile(filepath.Join(dir, segmentName(1)+packedSuffix), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, _ = readAll(dir)
		Salvage(dir, func([]byte) {})
	})
}

// BenchmarkSegments is the price of a listing, which reads each header.
func BenchmarkSegments(b *testing.B) {
	for _, compressed := range []bool{false, true} {
		dir := scratch(b)
		made(b, dir, 300, rand.New(rand.NewPCG(1, 1)))
		if compressed {
			if err := compressAll(b, dir, osDisk{}); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("compressed=%v", compressed), func(b *testing.B) {
			n := 0
			for b.Loop() {
				segments, err := Segments(dir)
				if err != nil {
					b.Fatal(err)
				}
				n = len(segments)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*b.N), "ns/segment")
		})
	}
}
