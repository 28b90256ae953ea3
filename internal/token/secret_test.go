package token

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
)

// vectors are secrets with their parts, made once and never to change: other
// programs recognise our tokens by them. None of them was ever issued.
var vectors = []struct{ secret, kind, public string }{
	{"ggpat_000000000000" + strings.Repeat("0", 43) + "0I6TkU", "pat", "000000000000"},
	{"ggses_ABCDEFGHIJKL" + strings.Repeat("z", 43) + "3t5Sks", "ses", "ABCDEFGHIJKL"},
	{"ggjob_abcdefghijkl0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2bIld0", "job", "abcdefghijkl"},
}

// R8.1, R8.8: the format is exactly this, for everybody and for ever.
func TestSecretVectors(t *testing.T) {
	for _, v := range vectors {
		p, err := Parse(v.secret)
		if err != nil {
			t.Errorf("Parse(%s…): %v; its checksum should be %s", v.secret[:12], err, sumOf(v.secret))
			continue
		}
		if p.Kind.String() != v.kind || string(p.Public[:]) != v.public || p.Public.ID() != ID("tok_"+v.public) {
			t.Errorf("Parse(%s…) = %v %s", v.secret[:12], p.Kind, p.Public.ID())
		}
	}
}

// R8.8: the page for those who look for tokens says what the code does.
func TestFormPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/security/tokens.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"    " + Pattern + "\n", "regex = '''" + Pattern + "'''"}
	for k := Personal; k <= Invite; k++ {
		want = append(want, "`gg"+k.String()+"_`", `"gg`+k.String()+`_"`)
	}
	for _, v := range vectors {
		s := v.secret[prefixLen:]
		want = append(want, "    "+s[:idLen]+" "+s[idLen:idLen+randomLen]+" "+s[idLen+randomLen:]+"\n")
	}
	for _, w := range want {
		if !strings.Contains(string(page), w) {
			t.Errorf("it does not say %q", w)
		}
	}
}

func sumOf(secret string) string {
	s := checksum([]byte(secret[prefixLen : SecretLen-sumLen]))
	return string(s[:])
}

// R8.1: what we issue has the published form, and no two are alike.
func TestNewSecretForm(t *testing.T) {
	re := regexp.MustCompile(Pattern)
	seen := map[string]bool{}
	for k := Personal; k <= Invite; k++ {
		for range 50 {
			s := NewSecret(k)
			if !re.MatchString(s.Reveal()) || len(s.Reveal()) != SecretLen {
				t.Fatalf("kind %v: wrong form", k)
			}
			p := s.Presented()
			if p.Kind != k || p.Digest == (Digest{}) {
				t.Fatalf("kind %v: parsed as %v", k, p.Kind)
			}
			if seen[s.Reveal()] || seen[string(p.Public[:])] {
				t.Fatal("a secret or public id came twice")
			}
			seen[s.Reveal()], seen[string(p.Public[:])] = true, true
		}
	}
}

// R8.1: any one changed character is refused.
func TestOneChangedCharacterIsRefused(t *testing.T) {
	secret := NewSecret(Personal).Reveal()
	for i := range secret {
		for c := range 256 {
			if byte(c) == secret[i] {
				continue
			}
			b := []byte(secret)
			b[i] = byte(c)
			if p, err := Parse(b); err == nil {
				t.Fatalf("position %d changed to byte %d was accepted as %v", i, c, p.Kind)
			}
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	good := NewSecret(Personal).Reveal()
	for _, c := range []struct {
		in   string
		want Malformed
	}{
		{"", Missing},
		{"g", UnknownPrefix},
		{"ghp_abc", UnknownPrefix},
		{"ggxyz_" + good[6:], UnknownPrefix},
		{"GGPAT_" + good[6:], UnknownPrefix},
		{good[:40], WrongLength},
		{good + " ", WrongLength},
		{good + good, WrongLength},
		{good[:20] + "-" + good[21:], WrongAlphabet},
		{good[:66] + "é"[:1], WrongAlphabet},
		{good[:60] + swap(good[60]) + good[61:], WrongChecksum},
	} {
		if _, err := Parse(c.in); err != c.want { //nolint:errorlint // a Malformed is compared as the value it is
			t.Errorf("Parse of %d characters: %v, want %v", len(c.in), err, c.want)
		}
	}
}

func swap(c byte) string {
	if c == 'a' {
		return "b"
	}
	return "a"
}

// R8.1: junk costs no memory.
func TestParseAllocatesNothing(t *testing.T) {
	good := NewSecret(Personal).Reveal()
	for name, in := range map[string]string{
		"good": good, "short": good[:50], "prefix": "Bearer of bad news", "checksum": good[:66] + swap(good[66]),
	} {
		b := []byte(in)
		if n := testing.AllocsPerRun(100, func() { _, _ = Parse(in) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = Parse(b) }); n != 0 {
			t.Errorf("%s as bytes: %v allocations", name, n)
		}
	}
}

// A secret cannot print itself, whatever is tried.
func TestSecretNeverPrints(t *testing.T) {
	s := NewSecret(Personal)
	body := s.Reveal()[prefixLen+4:]
	asJSON, err := json.Marshal(map[string]any{"s": s, "p": &s, "n": []Secret{s}})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "in", struct{ S Secret }{s})
	for _, out := range []string{
		fmt.Sprint(s), fmt.Sprintf("%s %v %+v %#v %q %x %d", s, s, s, s, s, s, s), s.String(), s.GoString(),
		string(asJSON), log.String(), fmt.Sprintf("%v", struct{ S Secret }{s}), fmt.Sprint(fmt.Errorf("x %v", s)),
	} {
		if strings.Contains(out, body[:10]) || strings.Contains(out, fmt.Sprintf("%x", body[:8])) {
			t.Errorf("the secret is in %q", out)
		}
	}
}

// The law of the parser: what it accepts has the one form and parses to its
// own parts; what it refuses is a Malformed; it never panics.
func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.secret)
		f.Add(v.secret[1:])
	}
	f.Add("ggpat_")
	f.Add("\xff\x00gg")
	re := regexp.MustCompile("^" + Pattern + "$")
	f.Fuzz(func(t *testing.T, in string) {
		p, err := Parse(in)
		if err != nil {
			if m, ok := err.(Malformed); !ok || m.Error() == "" { //nolint:errorlint // never wrapped
				t.Fatalf("refused with %T", err)
			}
			return
		}
		if !re.MatchString(in) {
			t.Fatal("accepted what scanners would not find")
		}
		back := "gg" + p.Kind.String() + "_" + string(p.Public[:]) + in[prefixLen+idLen:]
		if back != in {
			t.Fatal("format of parse is not the identity")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	good := NewSecret(Personal).Reveal()
	junk := good[:66] + swap(good[66])
	b.Run("good", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Parse(good)
		}
	})
	b.Run("junk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Parse(junk)
		}
	})
}
