package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"gradegate/api"
)

// TestMistakesSendNothing: a mistyped command ends with 2 and a way on, and
// nothing has happened.
func TestMistakesSendNothing(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"frobnicate":                             `unknown command "frobnicate".`,
		"tokn list":                              `unknown command "tokn"; did you mean "token"?`,
		"token revok laptop":                     `unknown command "revok" of gradegate token; did you mean "revoke"?`,
		"token laptop":                           `unknown command "laptop" of gradegate token.`,
		"token revoke":                           "NAME|ID|self is missing.\nusage: gradegate token revoke NAME|ID|self [flags]",
		"token list extra":                       `"extra" is one argument too many.`,
		"token list --colour":                    "unknown flag: --colour.",
		"token create --scop jobs:read":          `unknown flag: --scop; did you mean "--scope"?`,
		"token list -o xml":                      `no output "xml"`,
		"token list -o jsn":                      `did you mean "json"?`,
		"token revoke laptop -o secret":          "makes no secret",
		"token revoke-all --keep-this --user a":  "--keep-this and --user exclude each other.",
		"token create --until tomorrow":          "--until wants an instant",
		"job wait job_1 --timeout soon":          `--timeout wants a span of time such as 30s, 10m or 2h, and "soon" is none.`,
		"job list --limit 0":                     "--limit",
		"job list --limit x":                     `--limit wants a whole number, and "x" is none.`,
		"job list --state runing":                `"runing" is none`,
		"job show ..":                            `JOB is "..", which is the name of a folder`,
		"user invite ..":                         `NAME is ".."`,
		"submit iris":                            "PATH is missing.\nusage: gradegate submit COMPETITION PATH",
		"submit iris usage_test.go --label best": "a label is a name and a value",
		"submit iris usage_test.go --label a=1 --label a=2": "each name comes once",
		"submit iris usage_test.go --run":                   "--run belongs to --check",
		"help nonsense":                                     `unknown command "nonsense"`,
		"help token rotat":                                  `did you mean "rotate"?`,
		"submit iris usage_test.go --timeout 1s":            "--timeout belongs to --wait",
		"quota iris":                                        `unknown command "iris" of gradegate quota.`,
		"result --help":                                     "\"result\" stands behind a noun: gradegate job result\nfix: gradegate job result --help\n",
		"logs -h":                                           "fix: gradegate job logs --help\n",
		"wait job_1":                                        "fix: gradegate job wait --help\n",
		"help result":                                       "gradegate job result",
		"list":                                              "gradegate token list",
		"frobnicate --help":                                 `unknown command "frobnicate".`,
		"token laptop --help":                               `unknown command "laptop" of gradegate token.`,
	} {
		f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(1))
		got := m.run("", append(strings.Fields(line), "--url", f.url)...)
		got.want(t, 2, "", want)
		if !strings.Contains(got.errout, "\nfix: ") || got.out != "" || len(f.requests()) != 0 {
			t.Errorf("%s: stdout %q, stderr %q, asked %v", line, got.out, got.errout, f.requests())
		}
	}
}

// TestEmptyArgument: an unset variable of a script is not sent as a name.
func TestEmptyArgument(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(1))
	m.run("", "job", "show", "", "--url", f.url).want(t, 2, "", "JOB is empty; is a variable not set?")
	if len(f.requests()) != 0 {
		t.Error("it was sent")
	}
}

// TestErrorsAsJSON: with -o json, stderr holds one problem object and nothing
// else, whoever found the mistake, and the exit code is the same.
func TestErrorsAsJSON(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(1))
	f.handle("GET /v1/tokens/self", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(409)
		_, _ = io.WriteString(w, `{"status":409,"code":"token_limit","detail":"You have one.","fix":"Rotate it.","request_id":"req_1","existing":["laptop"]}`)
	})
	for line, want := range map[string]struct {
		exit int
		code string
	}{
		"token show self -o json":                       {6, "token_limit"},
		"tokn -o json":                                  {2, "usage"},
		"token show --nope --output=json":               {2, "usage"},
		"token create -o json --until x":                {2, "usage"},
		"-o json submit iris /nowhere":                  {2, "path_unreadable"},
		"whoami --token-file /nowhere -ojson":           {2, "file_unreadable"},
		"whoami -o json --url http://127.0.0.1:1 --url": {2, "usage"},
	} {
		got := m.run("", append(strings.Fields(line), "--url", f.url)...)
		var p struct{ Code, Detail, Fix string }
		if err := json.Unmarshal([]byte(got.errout), &p); err != nil || got.code != want.exit || p.Code != want.code || p.Detail == "" || p.Fix == "" || got.out != "" {
			t.Errorf("%s: exit %d, %v: %s%s", line, got.code, err, got.out, got.errout)
		}
	}
	got := m.run("", "token", "show", "self", "-o", "json", "--url", f.url)
	got.want(t, 6, "", `"existing":["laptop"]`)
	got.want(t, 6, "", `"request_id":"req_1"`)
}

func TestNear(t *testing.T) {
	t.Parallel()
	all := []string{"metrics", "name", "title", "open", "gpus"}
	for typed, want := range map[string]string{"metric": "metrics", "metrcs": "metrics", "gpu": "gpus", "nmae": "name", "tit": "title", "colour": "", "x": "", "": ""} {
		if got := near(typed, all); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}

// TestExitCodes: what programs may rely on.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		status int
		code   string
		exit   int
	}{
		{400, "request_invalid", 2},
		{401, "token_expired", 4},
		{403, "scope_missing", 5},
		{404, "not_found", 3},
		{409, "token_limit", 6},
		{412, "precondition_failed", 6},
		{413, "bundle_too_large", 2},
		{415, "content_type", 2},
		{422, "idempotency_key_reused", 6},
		{429, "rate_limited", 7},
		{429, "quota_exceeded", 6},
		{429, "budget_exceeded", 6},
		{403, "budget_exceeded", 6},
		{500, "internal", 1},
		{502, "http_502", 8},
	} {
		f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(1))
		f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
			f.refuse(w, x.status, x.code, "It is so.", "gradegate login")
		})
		got := m.run("", "whoami", "--url", f.url)
		got.want(t, x.exit, "", "error: It is so.\nfix: gradegate login\nrequest: req_1\n")
		if got.out != "" || x.status == 401 != strings.Contains(got.errout, "credential: GRADEGATE_TOKEN\n") {
			t.Errorf("%d: %q %q", x.status, got.out, got.errout)
		}
	}
}

func TestRefusalSaysWhatBelongsToIt(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(1))
	f.handle("POST /v1/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(409)
		_, _ = io.WriteString(w, `{"code":"token_limit","detail":"You have one.\u001b[2J","existing":["laptop","a\tb"],"choices":["rotate","replace"],"type":"x"}`)
	})
	m.run("", "token", "create", "--url", f.url).want(t, 6, "", "error: You have one.?[2J\nexisting: laptop a?b\nchoices: rotate replace\n")
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	got := m.run("", "status", "--data", m.home)
	got.want(t, 8, "", "fix: Start the server if it does not run: gradegate serve --data "+m.home)
}

// TestHelpNamesNine: the first page is short and the rest is one command away.
func TestHelpNamesNine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, args := range [][]string{nil, {"--help"}, {"help"}} {
		got := m.run("", args...)
		got.want(t, 0, "gradegate help all", "")
		_, list, _ := strings.Cut(got.out, "Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		if n := len(strings.Split(list, "\n")); n > 9 {
			t.Errorf("%v: %d commands on the first page", args, n)
		}
	}
	got := m.run("", "help", "all")
	for _, want := range []string{"token rotate", "audit verify", "user offboard", "competition apply", "job logs", "leak report", "check-config"} {
		if !strings.Contains(got.out, "  "+want) {
			t.Errorf("help all lacks %s", want)
		}
	}
	m.run("", "help", "token", "rotate").want(t, 0, "grace period", "")
	m.run("", "token").want(t, 0, "  rotate ", "")
}

// TestExamplesParse: every command that does something has an example, and
// every example is a command that exists, with its flags and arguments.
func TestExamplesParse(t *testing.T) {
	t.Parallel()
	seen := 0
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if c.HasSubCommands() || c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
			return
		}
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, line := range strings.Split(c.Example, "\n") {
			rest, ok := strings.CutPrefix(line, "  gradegate ")
			if !ok {
				t.Errorf("%s: example %q", c.CommandPath(), line)
				continue
			}
			seen++
			root := (&app{}).root() // flags keep what was parsed: a fresh tree each time
			cmd, args, err := root.Find(strings.Fields(rest))
			if err != nil || cmd.Name() != c.Name() { // job submit shows its short form
				t.Errorf("%q runs %s: %v", line, cmd.CommandPath(), err)
				continue
			}
			if err := cmd.ParseFlags(args); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	visit((&app{}).root())
	if seen < 30 {
		t.Errorf("only %d examples", seen)
	}
}

func TestEmptyLists(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(1))
	f.on("GET /v1/jobs", api.Page[api.Job]{}).on("GET /v1/tokens", api.Page[api.Token]{})
	for _, noun := range []string{"job", "token"} {
		if got := m.run("", noun, "list", "-o", "json", "--url", f.url); got.code != 0 || got.out != "{\n  \"items\": []\n}\n" {
			t.Errorf("%s: %q", noun, got.out)
		}
		if got := m.run("", noun, "list", "-o", "name", "--url", f.url); got.code != 0 || got.out != "" {
			t.Errorf("%s: %q", noun, got.out)
		}
	}
}

// TestForeignNamesAreHarmless: what others chose to call things cannot move
// the cursor of whoever lists them, or add a row to the table.
func TestForeignNamesAreHarmless(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(1))
	j := api.Job{ID: "job_1", Competition: "iris", State: "queued", CreatedAt: birth, SubmittedBy: "joe\x1b]0;x\a", Submission: api.Submission{Name: "a\nb\tc\u202e"}}
	f.on("GET /v1/jobs", api.Page[api.Job]{Items: []api.Job{j}}).on("GET /v1/jobs/job_1", j)
	got := m.run("", "job", "list", "--url", f.url)
	got.want(t, 0, "a?b?c?", "")
	if strings.Count(got.out, "\n") != 2 {
		t.Errorf("%q", got.out)
	}
	m.run("", "job", "show", "job_1", "--url", f.url).want(t, 0, "joe?]0;x? (as claimed, not verified)", "")
}
