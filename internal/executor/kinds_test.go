package executor

import (
	"strings"
	"testing"
)

// TestEveryKind tries every way to make a room that this host has, not only
// the best one: each is the last resort of some other host. bwrap comes first
// in the list and may be missing, or too old for --disable-userns.
func TestEveryKind(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}.withDefaults()
	list, tried := candidates(o)
	if len(list)+len(tried) < 2 {
		t.Fatalf("%v, %v", list, tried)
	}
	for _, k := range list {
		limits, err := try(o, k)
		if err != nil || !strings.Contains(limits, "memory") {
			t.Errorf("%s: %q, %v", k.label(), limits, err)
		}
	}
}
