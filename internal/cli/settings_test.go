package cli

import (
	"fmt"
	"strings"
	"testing"

	"gradegate/internal/config"
)

// The page of settings is what the server reads: every key, its variable, its
// flag, its form and its default.
func TestSettingsReference(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Settings\n\nMade from the code. The server reads defaults, then a YAML file (`--config` or `GRADEGATE_CONFIG`), then variables, then flags; the later one\n" +
		"counts. A key that does not exist is an error with its line. A dot is a level of the file: `ledger.dir` is `ledger: {dir: …}`. `gradegate check-config`\n" +
		"shows what is in force, where it comes from, and tries the folders and files. A change takes a restart; only the files of `tls` are read again by themselves.\n\n" +
		"## Of the server (serve, check-config)\n\n| key | variable | flag | form | default | meaning |\n|---|---|---|---|---|---|\n")
	known := map[string]bool{}
	for _, s := range config.Default().Settings(nil) {
		known[s.Name] = true
		flag := ""
		if f := flagOf[s.Name]; f != "" {
			flag = "`" + f + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s |\n", s.Name, s.Env, flag, s.Form, s.Value, s.Doc)
	}
	table := func(title, text string, list []config.Variable) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| variable | meaning |\n|---|---|\n", title, text)
		for _, v := range list {
			fmt.Fprintf(&b, "| `%s` | %s |\n", v.Name, v.Doc)
		}
	}
	table("Of the command line", "A flag comes before a variable (`--url`, `--token-file`), and a variable before what `login` has stored. `~/.netrc` (or `NETRC`) comes last. What is stored lies in\n"+
		"`$XDG_CONFIG_HOME/gradegate/hosts.yaml`, or `~/.config/gradegate/hosts.yaml`; proxies are those of `HTTPS_PROXY` and `NO_PROXY`.", config.Client)
	table("Of a job", "What a submitted program is given.", config.Job)
	reference(t, "settings.md", b.String())

	serve := (&app{}).serve()
	for key, flag := range flagOf {
		if name := strings.TrimPrefix(flag, "--"); !known[key] || name != "data" && serve.Flags().Lookup(name) == nil {
			t.Errorf("%s and %s: one of the two does not exist", key, flag)
		}
	}
}
