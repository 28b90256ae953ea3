package httpapi

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gradegate/internal/config"
	"gradegate/internal/ratelimit"
)

// TestLimitsReference keeps the numbers of docs/reference/limits.md the truth.
func TestLimitsReference(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	rates := DefaultRates()
	rates[Verifying].Events = config.Default().Limits.Verifies // as a server sets it
	rates[Verifying].Burst = rates[Verifying].Events / 6
	for c := range classes {
		r, per := rates[c], map[time.Duration]string{time.Minute: "minute", time.Hour: "hour"}
		begins, ends := fmt.Sprintf("| `%s` |", c), fmt.Sprintf("| %d | %s | %d |", r.Events, per[r.Per], r.Burst)
		found := false
		for line := range strings.Lines(string(page)) {
			found = found || strings.HasPrefix(line, begins) && strings.HasSuffix(strings.TrimSpace(line), ends)
		}
		if !found {
			t.Errorf("no row for %s … %s", begins, ends)
		}
	}
	for _, want := range []string{
		fmt.Sprintf("| %d a minute |\n| of an IPv4 /24", ratelimit.PerMinute), fmt.Sprintf("from one source | %d a minute |", guessRate.Events),
		"draft-ietf-httpapi-ratelimit-headers-11",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
