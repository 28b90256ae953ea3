package story

import (
	"strings"
	"testing"

	"gradegate/api"
)

// B12, B14, R3.5: a service and a consent by hand. The owners of the service see its
// jobs; when they go, everybody is told; and a job says who handed it in.
func TestServiceAndConsent(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("boss", "competition", "apply", "examples/iris")
	for _, name := range []string{"ann", "bob", "carol"} {
		w.must(name, "login", "--invite", w.local("user", "invite", name, "-o", "secret"))
	}
	w.local("service", "create", "ci", "--owner", "ann", "--owner", "bob")
	secret := w.file("ci", w.must("ann", "token", "create", "--service", "ci", "--name", "runner", "-o", "secret"))
	if out, errs, _ := w.cli("boss", "token", "create", "--service", "ci", "-o", "secret"); out != "" || !strings.Contains(errs, "Only who answers for a service") {
		t.Errorf("an administrator gets %s%s", out, errs)
	}
	const predictions = "examples/iris/predictions.csv"
	w.must("robot", "submit", "iris", predictions, "--token-file", secret, "--wait")
	if list := w.must("bob", "job", "list", "--user", "ci", "-o", "name"); !strings.HasPrefix(list, "job_") {
		t.Errorf("bob sees %q", list)
	}
	if _, errs, exit := w.cli("carol", "service", "show", "ci"); exit != 3 || !strings.Contains(errs, "There is no such service") {
		t.Errorf("carol: exit %d, %s", exit, errs)
	}
	_, errs, _ := w.cli("boss", "user", "offboard", "bob", "--yes")
	if !strings.Contains(errs, "service ci: Only one active owner is left") {
		t.Errorf("off-boarding says %s", errs)
	}
	if _, errs, _ := w.cli("robot", "whoami", "--token-file", secret); !strings.Contains(errs, "Only one active owner is left") {
		t.Errorf("whoami says %s", errs)
	}

	_, errs, exit := w.cli("ann", "submit", "iris", predictions, "--on-behalf-of", "carol")
	if exit != 5 || !strings.Contains(errs, "gradegate consent give ann --competition iris") {
		t.Errorf("without consent: exit %d, %s", exit, errs)
	}
	w.must("carol", "consent", "give", "ann", "--competition", "iris")
	made := object[api.Submitted](t, w.must("ann", "submit", "iris", predictions, "--on-behalf-of", "carol", "--submitted-by", "Joe", "-o", "json"))
	shown := w.must("carol", "job", "show", made.Job.ID)
	for _, want := range []string{"ann, for carol by consent cns_", "(verified)", "Joe (as claimed, not verified)"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
	if list := w.must("ann", "job", "list", "--for-others", "-o", "name"); list != made.Job.ID {
		t.Errorf("ann handed in %q", list)
	}
	w.must("carol", "consent", "withdraw", "ann")
	if _, _, exit := w.cli("ann", "submit", "iris", predictions, "--on-behalf-of", "carol"); exit != 5 {
		t.Errorf("after the withdrawal: exit %d", exit)
	}
}
