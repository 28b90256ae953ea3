package story

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gradegate/api"
)

// commands lists every command that the help names, such as "token create".
func commands(t *testing.T) (all []string) {
	t.Helper()
	name := regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) +\S`)
	var below func(path []string)
	below = func(path []string) {
		out, err := exec.Command(binary, append(path, "--help")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v --help: %v", path, err)
		}
		_, list, ok := strings.Cut(string(out), "\nCommands:\n")
		if !ok {
			all = append(all, strings.Join(path, " "))
			return
		}
		list, _, _ = strings.Cut(list, "\n\n")
		for _, m := range name.FindAllStringSubmatch(list, -1) {
			if m[1] != "help" {
				below(append(append([]string{}, path...), m[1]))
			}
		}
	}
	for _, top := range []string{
		"login", "submit", "status", "cancel", "token", "job", "competition", "quota", "user", "service", "consent", "policy", "block", "audit", "leak", "clock",
		"archive", "sweep", "hold", "growth",
		"whoami", "doctor", "explain", "logout", "check-config", "version", "serve", "demo",
	} {
		below([]string{top})
	}
	return all
}

// examples are the example lines of a command's help.
func examples(t *testing.T, command string) (lines []string) {
	t.Helper()
	out, err := exec.Command(binary, append(strings.Fields(command), "--help")...).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(out), "\nExamples:\n")
	if !ok {
		t.Errorf("%s has no example", command)
		return nil
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		if l := strings.TrimSpace(line); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// administrators' examples are run by an administrator.
var byBoss = regexp.MustCompile(`^gradegate (quota (grant|end)|user|service create|service owners|policy|block|clock|audit|archive|sweep|hold|growth|competition apply|status --data|token revoke-all --user)`)

var requestRE = regexp.MustCompile(`req_[0-9a-z]{26}`)

// Every example of every help page works as it is written, on a server where
// ann is signed in with a token named laptop and has handed something in. CODE
// and JOB stand for a code and a job.
func TestHelpExamples(t *testing.T) {
	list := commands(t)
	if len(list) < 40 {
		t.Fatalf("only %d commands are found: %v", len(list), list)
	}
	for _, command := range list {
		for _, line := range examples(t, command) {
			if command == "demo" {
				continue // TestDemo runs it
			}
			t.Run(line, func(t *testing.T) {
				t.Parallel()
				if command == "serve" {
					serveExample(t, line)
					return
				}
				runExample(t, line)
			})
		}
	}
}

func runExample(t *testing.T, line string) {
	t.Helper()
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("boss", "competition", "apply", "examples/iris")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	who := "ann"
	if byBoss.MatchString(line) {
		who = "boss"
	}
	// A token cannot resume itself, and nobody has two: those examples are run
	// with the session alone.
	switch {
	case strings.HasPrefix(line, "gradegate token create") && !strings.Contains(line, "--replace"):
	case strings.HasPrefix(line, "gradegate token resume"):
		w.must("ann", "token", "create", "--name", "laptop", "-o", "secret")
	default:
		w.must("ann", "token", "create", "--name", "laptop", "--save")
	}
	if strings.Contains(line, "REQUEST") {
		_, errs, _ := w.cli("ann", "user", "list")
		line = strings.ReplaceAll(line, "REQUEST", requestRE.FindString(errs))
	}
	if strings.Contains(line, "bob") || strings.Contains(line, "service") {
		for _, name := range []string{"bob", "carol", "dan"} {
			w.local("user", "create", name)
		}
		for _, name := range []string{"ann", "bob"} {
			w.local("user", "set", name, "--group", "vision")
		}
		if !strings.Contains(line, "service create") {
			w.local("service", "create", "ci", "--owner", "ann", "--owner", "bob")
		}
	}
	if strings.Contains(line, "consent withdraw") {
		w.must("ann", "consent", "give", "bob")
	}
	code := w.local("user", "invite", "joe-"+time.Now().Format("150405"), "-o", "secret")
	if strings.Contains(line, "JOB") {
		j := object[api.Job](t, w.must("ann", "submit", "iris", "examples/iris/predictions.csv", "--wait", "-o", "json"))
		line = strings.ReplaceAll(line, "JOB", j.ID)
	}
	if strings.Contains(line, "GRANT") {
		g := object[api.Grant](t, w.local("quota", "grant", "ann", "--gpu-hours", "1", "--for", "1d", "--reason", "test", "-o", "json"))
		line = strings.ReplaceAll(line, "GRANT", g.ID)
	}
	if strings.Contains(line, "HOLD") {
		line = strings.ReplaceAll(line, "HOLD", strings.TrimSpace(w.local("hold", "add", "ann", "--reason", "case", "-o", "name")))
	}
	line = strings.ReplaceAll(line, "CODE", code)
	line = strings.ReplaceAll(line, "http://127.0.0.1:8080", w.url)
	line = strings.ReplaceAll(line, "https://grade.example.org", w.url)
	line = strings.ReplaceAll(line, "gradegate-data", filepath.Join(w.dir, "data"))
	if strings.Contains(line, "resume laptop") {
		w.must(who, "token", "suspend", "laptop")
	}
	if strings.Contains(line, "resume ann") {
		w.local("user", "suspend", "ann")
	}
	if name := regexp.MustCompile(`user create (\S+)`).FindStringSubmatch(line); name != nil {
		line = strings.Replace(line, name[1], name[1]+"-new", 1)
	}
	// Files that an example reads are there.
	for _, f := range []string{"code.txt", "found.txt", "imported.txt"} {
		if strings.Contains(line, f) {
			p := filepath.Join(w.dir, f)
			if err := os.WriteFile(p, []byte(code+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			line = strings.ReplaceAll(line, f, p)
		}
	}
	for f, write := range map[string]func(*testing.T, string){"tokens.csv": writeOldCSV, "old.db": writeOldDB, "./pepper": func(*testing.T, string) {}} {
		if strings.Contains(line, " "+f) {
			p := filepath.Join(w.dir, filepath.Base(f))
			write(t, p)
			line = strings.Replace(line, " "+f, " "+p, 1)
		}
	}
	args := strings.Fields(line)[1:]
	want := 0
	if strings.HasPrefix(line, "gradegate archive show") {
		want = 3 // nothing ended long ago on a server that has just started
	}
	if out, errs, exit := w.cli(who, args...); exit != want {
		t.Errorf("%s: exit %d\n%s%s", line, exit, out, errs)
	}
}

// serveExample starts a server as the example says, in a folder of its own,
// and stops it.
func serveExample(t *testing.T, line string) {
	t.Helper()
	dir := t.TempDir()
	line = strings.NewReplacer("/var/lib/gradegate", filepath.Join(dir, "data"), "/mnt/other/ledger", filepath.Join(dir, "ledger")).Replace(line)
	args := strings.Fields(line)[1:]
	if !strings.Contains(line, "--listen") {
		args = append(args, "--listen", "127.0.0.1:0") // another test may have the port
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, &lockedBuffer{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t}
	w.until("it serves", func() bool { return strings.Contains(out.String(), "manage") }, out)
	if n := strings.Count(out.String(), "\n"); n > 12 {
		t.Errorf("%d lines at the start:\n%s", n, out)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it did not end well: %v", err)
	}
}
