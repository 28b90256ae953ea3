package executor

import (
	"os/exec"
	"testing"
)

// TestBurst has a process grow and end faster than anybody looks at it.
func TestBurst(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("dd", "if=/dev/zero", "of=/dev/null", "bs=500M", "count=1").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if !burst(100 << 20) {
		t.Error("500 MB were not seen")
	}
	if burst(100 << 30) {
		t.Error("500 MB were seen as more than 100 GB")
	}
}
