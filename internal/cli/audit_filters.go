package cli

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/token"
	"gradegate/internal/trail"
)

// checkFilters refuses what no line can match.
func checkFilters(cmd *cobra.Command, v url.Values) error {
	if err := oneOf(cmd, "stream", v.Get("stream"), []string{trail.Use, trail.Act}); err != nil {
		return err
	}
	if err := oneOf(cmd, "outcome", v.Get("outcome"), []string{string(audit.Allow), string(audit.Deny), string(audit.Done)}); err != nil {
		return err
	}
	var known []string
	for _, x := range audit.Actions {
		known = append(known, string(x))
		if group, _, ok := strings.Cut(string(x), "."); ok && !slices.Contains(known, group+".") {
			known = append(known, group+".")
		}
	}
	if err := oneOf(cmd, "action", v.Get("action"), known); err != nil {
		return err
	}
	if ip := v.Get("ip"); ip != "" {
		_, errAddr := netip.ParseAddr(ip)
		_, errNet := netip.ParsePrefix(ip) // lines with a count name networks
		if errAddr != nil && errNet != nil {
			return usage{fault.New(fault.Invalid, "usage", "--ip wants an address such as 192.0.2.1 or 2001:db8::1, and %q is none.", ip).
				WithFix("%s --help", cmd.CommandPath()), cmd.CommandPath()}
		}
	}
	return noSecret(cmd, v)
}

// oneOf refuses a value that is none of those that exist, and tells them, the
// nearest first.
func oneOf(cmd *cobra.Command, flag, value string, known []string) error {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	slices.SortStableFunc(known, func(a, b string) int { return distance(value, a) - distance(value, b) })
	return usage{fault.New(fault.Invalid, "usage", "There is no %s %q; did you mean %q?", flag, value, known[0]).With("choices", known).
		WithFix("%s --%s %s", cmd.CommandPath(), flag, known[0]), cmd.CommandPath()}
}

// noSecret keeps secrets out of what is sent, which would be written down.
func noSecret(cmd *cobra.Command, v url.Values) error {
	for name := range v {
		text := v.Get(name)
		if audit.Scrub(text) == text {
			continue
		}
		f := fault.New(fault.Invalid, "usage", "--%s wants an id, and that is a secret. Nothing was sent; it is in your shell's history.", name).
			WithFix("%s --help", cmd.CommandPath())
		if p, err := token.Parse(text); err == nil {
			f = f.WithFix("%s", fmt.Sprintf("%s --%s %s", cmd.CommandPath(), name, p.Public.ID()))
		}
		return usage{f, cmd.CommandPath()}
	}
	return nil
}
