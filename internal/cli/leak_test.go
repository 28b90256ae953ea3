package cli

import (
	"slices"
	"strings"
	"testing"

	"gradegate/api"
	"gradegate/internal/token"
)

// TestLeakedFindsTokens wherever they stand, each once, and nothing else.
func TestLeakedFindsTokens(t *testing.T) {
	t.Parallel()
	a, b := secretOf(token.Personal), secretOf(token.Service)
	wrong := a[:66] + "0"
	if wrong == a {
		wrong = a[:66] + "1"
	}
	for text, want := range map[string]struct {
		found   []string
		damaged int
	}{
		"{\"cell\": \"os.environ['GRADEGATE_TOKEN'] = '" + a + "'\"}\nand " + b + ", " + a: {[]string{a, b}, 0},
		"8f14e45f-ceea-467f-a9c1-000000000000\nx\n":                                        {nil, 0},
		"see " + wrong + " and " + b:                                                       {[]string{b}, 1},
		" \n":                                                                              {nil, 0},
	} {
		slices.Sort(want.found)
		if got, damaged := leaked(text); !slices.Equal(got, want.found) || damaged != want.damaged {
			t.Errorf("%q: %q, %d damaged", text, got, damaged)
		}
	}
}

func TestLeakReport(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	f.on("POST /v1/leaks", api.LeaksAccepted{Accepted: 1000, Detail: "Thank you."})
	var b strings.Builder
	for range leaksMax + 1 {
		b.WriteString(secretOf(token.Personal) + "\n")
	}
	m.run(b.String(), "leak", "report", "--url", f.url).want(t, 0, "Thank you.", "Reported: 1001 tokens.\n")
	if all := f.requests(); len(all) != 2 || all[0].token != "" {
		t.Errorf("%d reports; none needs a credential: %q", len(all), all[0].token)
	}
	m.run(secretOf(token.Personal), "leak", "report", "--url", f.url).want(t, 0, "Thank you.", "Reported: 1 token.\n")
}

// TestLeakReportOfNothing thanks nobody, and sends nothing.
func TestLeakReportOfNothing(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	f.on("POST /v1/leaks", api.LeaksAccepted{Accepted: 2, Detail: "Thank you."})
	for text, want := range map[string]string{
		"":                      "There is no token in it: it is empty.",
		"one\ntwo\n":            "There is no token of gradegate's in it (2 lines read), so nothing was reported.",
		"one":                   "(1 line read)",
		secretOf(1)[:66] + "-x": "There is no token of gradegate's in it",
	} {
		m.run(text, "leak", "report", "--url", f.url).want(t, 2, "", want)
	}
	wrong := []byte(secretOf(token.Personal))
	wrong[66] = map[bool]byte{true: '1', false: '0'}[wrong[66] == '0']
	m.run(string(wrong), "leak", "report", "--url", f.url).want(t, 2, "", "1 word looks like a token, but with a wrong checksum.")
	m.run("", "leak", "report", "--file", "/nowhere", "--url", f.url).want(t, 2, "", "/nowhere cannot be read: no such file or directory.\nfix: Name a file that is there with --file; or with --file - its content comes on stdin.\n")
	if len(f.requests()) != 0 {
		t.Error("something was sent")
	}
	// An imported token has no form of ours: whoever reports one says so.
	m.run("8f14e45f-ceea-467f-a9c1-000000000000\n", "leak", "report", "--words", "--url", f.url).want(t, 0, "Thank you.", "Reported: 1 token.\n")
	if f.last().body != `{"tokens":["8f14e45f-ceea-467f-a9c1-000000000000"]}` {
		t.Error(f.last().body)
	}
}
