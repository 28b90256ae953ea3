package fault_test

import (
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gradegate/internal/fault"
)

// TestWord: what a reader copies out of a fix reaches the program as the word
// that was meant, by the word of a real shell.
func TestWord(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[^\x00]{0,12}`), 1, 8).Draw(rt, "words")
		line := "printf '%s\\0'"
		for _, w := range words {
			line += " " + fault.Word(w)
		}
		out, err := exec.Command("sh", "-c", line).Output()
		if got := strings.Split(string(out), "\x00"); err != nil || !reflect.DeepEqual(got[:len(got)-1], words) {
			rt.Fatalf("%s gave %q, %v", line, got, err)
		}
	})
	for plain, want := range map[string]string{"laptop": "laptop", "": "''", "gpu box": "'gpu box'", "=ls": "'=ls'"} {
		if got := fault.Word(plain); got != want {
			t.Errorf("%q became %s", plain, got)
		}
	}
}

// TestTwoTexts: what the log may see is nowhere in what the reader sees.
func TestTwoTexts(t *testing.T) {
	cause := errors.New("disk /dev/sdb1 at 10.0.0.7")
	for _, err := range []error{
		cause,
		fmt.Errorf("writing: %w", cause),
		fault.Wrap(fault.Unavailable, "store_down", "The store does not answer.", cause),
		fmt.Errorf("committing: %w", fault.New(fault.Unavailable, "store_down", "The store does not answer.").WithFix("Try again.").Caused(cause)),
	} {
		f := fault.Of(err)
		if shown := f.Detail + f.Fix + f.Code + fmt.Sprint(f.More); strings.Contains(shown, "sdb1") {
			t.Errorf("the reader sees %q", shown)
		}
		if !strings.Contains(f.Error(), "sdb1") || !errors.Is(f, cause) {
			t.Errorf("the log does not see the cause of %v", f)
		}
	}
	if fault.KindOf(cause) != fault.Internal || fault.CodeOf(cause) != "internal" {
		t.Error("an error that is no fault is milder than internal")
	}
}

// TestCopies: what the With methods give is another fault of the same code; the
// one they began with, often shared by all requests, stays as it was.
func TestCopies(t *testing.T) {
	base := fault.New(fault.Denied, "scope_missing", "The token lacks %s.", "submit").With("required", "submit")
	was := *base
	all := base.WithFix("gradegate token create --scope %s", "submit").WithRetry(time.Second).With("granted", "read").Caused(errors.New("x"))
	if !reflect.DeepEqual(*base, was) || len(base.More) != 1 {
		t.Fatalf("the first fault is now %+v", base)
	}
	if !errors.Is(all, base) || errors.Is(all, fault.New(fault.Denied, "other", "")) {
		t.Fatal("faults are not told apart by their code")
	}
	want := map[string]any{"required": "submit", "granted": "read"}
	if !reflect.DeepEqual(all.More, want) || all.Fix != "gradegate token create --scope submit" || all.RetryAfter != time.Second || all.Detail != "The token lacks submit." {
		t.Fatalf("%+v", all)
	}
}

// TestKinds: each has a name of its own, and a number that is none reads as the gravest.
func TestKinds(t *testing.T) {
	seen := map[string]fault.Kind{}
	for k := fault.Internal; k <= fault.Mismatched; k++ {
		if other, ok := seen[k.String()]; ok {
			t.Errorf("kinds %d and %d are both %s", k, other, k)
		}
		seen[k.String()] = k
	}
	if (fault.Mismatched + 1).String() != "internal" {
		t.Error("an unknown kind does not read as internal")
	}
}
