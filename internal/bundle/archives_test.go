package bundle

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"testing"
)

type entry struct {
	h    tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}, body}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t testing.TB, change func(*zip.FileHeader), files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		if change != nil {
			change(h)
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write([]byte("content of " + name))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// nested are files that each bring four folders of their own.
func nested(n int) (out []entry) {
	for i := range n {
		out = append(out, file(fmt.Sprintf("%d/a/b/c/f", i), ""))
	}
	return out
}

func cut(b []byte, n int) []byte { return b[:len(b)-n] }

// flip changes one bit of the byte at i, counted from the end.
func flip(b []byte, i int) []byte {
	b[len(b)+i] ^= 1
	return b
}

// overlapping is a zip whose directory names the same stored bytes many times.
func overlapping(t testing.TB, n int) []byte {
	t.Helper()
	b := zipOf(t, func(h *zip.FileHeader) { h.Method = zip.Store }, "0")
	at := bytes.Index(b, []byte("PK\x01\x02"))
	end := bytes.Index(b, []byte("PK\x05\x06"))
	out := bytes.Clone(b[:at])
	for i := range n {
		one := bytes.Clone(b[at:end])
		one[46] = byte('0' + i) // the name's one letter
		binary.LittleEndian.PutUint32(one[20:], 11)
		out = append(out, one...)
	}
	last := bytes.Clone(b[end:])
	binary.LittleEndian.PutUint16(last[8:], uint16(n))
	binary.LittleEndian.PutUint16(last[10:], uint16(n))
	binary.LittleEndian.PutUint32(last[12:], uint32(n*(end-at)))
	out = append(out, last...)
	// Enough entries to be longer than the file, whatever its directory adds.
	for at := 0; ; at++ {
		i := bytes.Index(out[at:], []byte("PK\x01\x02"))
		if i < 0 {
			return out
		}
		at += i
		binary.LittleEndian.PutUint32(out[at+20:], uint32(len(out)/2))
	}
}

// lying is a zip whose directory declares fewer bytes than come out.
func lying(t testing.TB) []byte {
	t.Helper()
	b := zipOf(t, nil, "a")
	binary.LittleEndian.PutUint32(b[bytes.Index(b, []byte("PK\x01\x02"))+24:], 3)
	return b
}

// oldSparse is a tar entry of GNU's old sparse type, which archive/tar reads
// but does not write.
func oldSparse(t testing.TB) []byte {
	t.Helper()
	b := tarOf(t, file("a", ""))
	b[156] = tar.TypeGNUSparse
	copy(b[257:], "ustar  \x00")
	clear(b[148:156])
	sum := 8 * ' '
	for _, c := range b[:512] {
		sum += int32(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}
