package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a span that people write as 90d, 12h or 1d12h.
type Duration time.Duration

// ParseDuration reads what time.ParseDuration reads, and days before it. A
// hundred years is the most, and nothing is negative.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errors.New("a duration is wanted, such as 90d or 12h")
	}
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		rest = s
	}
	var d time.Duration
	if ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is no duration, such as 90d or 12h", s)
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if rest != "" {
		r, err := time.ParseDuration(rest)
		if err != nil || r < 0 || r > 36500*24*time.Hour {
			return 0, fmt.Errorf("%q is no duration, such as 90d or 12h", s)
		}
		d += r
	}
	return d, nil
}

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// String writes whole days as days.
func (d Duration) String() string { return FormatDuration(time.Duration(d)) }

// FormatDuration writes a span as people do: 90d, 12h, 1m30s.
func FormatDuration(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// units are the sizes that ParseBytes knows, longest name first.
var units = []struct {
	name string
	size int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1000}, {"MB", 1000_000}, {"GB", 1000_000_000}, {"TB", 1000_000_000_000}, {"B", 1},
}

// ParseBytes reads a size such as 256MiB.
func ParseBytes(s string) (int64, error) {
	for _, u := range units {
		text, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.size {
			break
		}
		return n * u.size, nil
	}
	return 0, fmt.Errorf("%q is no size, such as 256MiB", s)
}

// FormatBytes writes a size in the largest unit that fits it.
func FormatBytes(n int64) string {
	for i := 3; i >= 0; i-- {
		if u := units[i]; n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
