package httpapi

import (
	"strings"
	"testing"
)

// R2.2: networks have one form, whoever gives another one is told, and there are
// 50 of them at most.
func TestNetworks(t *testing.T) {
	for given, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "10.1.2.3/8": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.0/120": "192.0.2.0/24",
		"::ffff:192.0.2.7": "192.0.2.7/32", "fd00::1/8": "fd00::/8", "FD00::/8": "fd00::/8", "2001:db8::1": "2001:db8::1/128", "fe80::1%eth0": "fe80::1/128",
		"::ffff:0.0.0.0/95": "", "10.0.0.0/33": "", "10.0.0.0/-1": "", "10.0.0": "", "": "", "010.0.0.0/8": "", "all": "",
	} {
		got, err := networks([]string{given})
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken as %v", given, got)
			}
			continue
		}
		if err != nil || got[0].String() != want {
			t.Errorf("%q: %v %v", given, got, err)
			continue
		}
		changed := strings.Contains(given, "/") && !strings.EqualFold(given, want)
		if warned := normalised([]string{given}); (len(warned) == 1) != changed {
			t.Errorf("%q: warned %v", given, warned)
		}
	}
	many := make([]string, 51)
	for i := range many {
		many[i] = "10.0.0.1"
	}
	if _, err := networks(many[:50]); err != nil {
		t.Error(err)
	}
	if _, err := networks(many); err == nil {
		t.Error("51 are taken")
	}
}
