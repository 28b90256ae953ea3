package server

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gradegate/internal/httpapi"
)

// written is what a log that was given failures leaves in its file.
func written(t *testing.T, failures ...httpapi.Failure) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "failures.log")
	l := newFailureLog(file, nil, slog.New(slog.DiscardHandler))
	for _, f := range failures {
		l.failed(f)
		for len(l.lines) > 0 {
			l.write(<-l.lines)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var nine = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// filter is the expression of the documentation, as fail2ban reads it: the date
// is cut out of a line before, and <ADDR> is an address and no name.
func filter(t *testing.T) (date, fails *regexp.Regexp) {
	t.Helper()
	text, err := os.ReadFile("../../docs/operator/fail2ban.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^failregex = (.+)$`).FindSubmatch(text)
	if m == nil || !strings.Contains(string(text), "\ndatepattern = ^%%Y-%%m-%%dT%%H:%%M:%%SZ\n") {
		t.Fatal("the page holds no filter")
	}
	return regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), regexp.MustCompile(strings.ReplaceAll(string(m[1]), "<ADDR>", `(?:::f{4,6}:)?([0-9a-fA-F:.]+)`))
}

// R8.5: the documented filter finds each address in the log, and nothing in any
// other line; the form of a line stays as it is.
func TestFail2banReadsIt(t *testing.T) {
	date, fails := filter(t)
	for addr, line := range map[string]string{
		"192.0.2.7":   "2026-11-24T09:00:00Z gradegate failed authentication from 192.0.2.7 reason=token_unknown request=req_1\n",
		"2001:db8::7": "2026-11-24T09:00:00Z gradegate failed authentication from 2001:db8::7 reason=token_unknown request=req_1\n",
	} {
		got := written(t, httpapi.Failure{At: nine, Addr: netip.MustParseAddr(addr), Reason: "token_unknown", Request: "req_1"})
		m := fails.FindStringSubmatch(strings.TrimSuffix(date.ReplaceAllString(got, ""), "\n"))
		if got != line || m == nil || m[1] != addr {
			t.Errorf("%q is read as %q", got, m)
		}
	}
	unknown := written(t, httpapi.Failure{At: nine, Reason: "token_unknown", Request: "req_1"})
	for _, line := range []string{unknown, "2026-11-24T09:00:00Z gradegate left out 7 further failed authentications", `time=2026-11-24T09:00:00Z level=WARN msg="gradegate failed authentication from 192.0.2.7"`} {
		if m := fails.FindStringSubmatch(strings.TrimSpace(date.ReplaceAllString(line, ""))); m != nil {
			t.Errorf("%q is taken for a failure", line)
		}
	}
}

// A flood writes a bounded number of lines, each source its share, and what is
// left out is counted. The file may be moved away at any time.
func TestFailureLogIsBounded(t *testing.T) {
	var all []httpapi.Failure
	for i := range 10_000 {
		f := httpapi.Failure{At: nine, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 2)}), Reason: "token_unknown", Request: "req_1"}
		if i >= 5000 {
			f.Addr = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		}
		all = append(all, f)
	}
	all = append(all, httpapi.Failure{At: nine.Add(time.Minute), Addr: netip.MustParseAddr("192.0.2.9"), Reason: "token_unknown", Request: "req_1"})
	text := written(t, all...)
	if n := strings.Count(text, " from 192.0.2.0 "); n != 30 {
		t.Errorf("one source has %d lines", n)
	}
	if n := strings.Count(text, " failed authentication from "); n != 601 || !strings.Contains(text, " left out ") {
		t.Errorf("%d lines", n)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "failures.log")
	l := newFailureLog(file, nil, slog.New(slog.DiscardHandler))
	l.write("one\n")
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	l.write("two\n")
	if got, err := os.ReadFile(file); err != nil || string(got) != "two\n" {
		t.Errorf("after a rotation: %q, %v", got, err)
	}
	if l := newFailureLog("", nil, nil); l != nil {
		t.Error("a log that nobody wanted")
	}
}
