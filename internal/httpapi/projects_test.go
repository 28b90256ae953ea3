package httpapi

import (
	"fmt"
	"strings"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// R2.6: a token for a project is for the competitions that are in it when it is
// used; what is made from it has no more, and one of them may be asked for.
func TestProjects(t *testing.T) {
	w := build(t)
	place := func(name, project string) {
		t.Helper()
		c, known := w.jobs.competitions[name]
		old := c
		if !known {
			c = w.jobs.competitions["iris"]
			c.Name, c.Version = name, 0
		}
		c.Project, c.Version = project, c.Version+1
		before := &old
		if !known {
			before = nil
		}
		if err := w.jobs.SetCompetition(t.Context(), before, c, audit.Event{}); err != nil {
			t.Fatal(err)
		}
	}
	place("iris", "flowers")
	place("roses", "flowers")
	place("cats", "animals")
	for range 3 {
		w.job("ann", job.Running) // in iris
	}
	a := w.ask(t, post, "/v1/tokens", w.ann, `{"name":"p","competitions":["project:flowers"],"replace":"laptop"}`)
	if a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p := secretOf(t, a, "secret")
	reads := func(s token.Secret, want ...string) {
		t.Helper()
		got := ""
		for _, name := range []string{"iris", "roses", "cats"} {
			switch a := w.ask(t, get, "/v1/competitions/"+name, s, ""); {
			case a.status == 200:
				got += name + " "
			case a.status != 403 || !strings.Contains(a.body, fmt.Sprintf(`"missing":[%q]`, name)):
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
		if got = strings.TrimSpace(got); got != strings.Join(want, " ") {
			t.Errorf("it reads %q, want %q", got, want)
		}
	}
	reads(p, "iris", "roses")
	if a := w.ask(t, get, "/v1/jobs", p, ""); len(a.json["items"].([]any)) != 3 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/authz/forward?competition=roses", p, ""); a.status != 200 || a.header.Get("X-Auth-Competitions") != "project:flowers iris roses" {
		t.Errorf("%d %v", a.status, a.header)
	}
	child := secretOf(t, w.exchange(t, p), "access_token")
	if a := w.ask(t, get, "/v1/tokens/self", child, ""); !strings.Contains(a.body, `"competitions":["project:flowers"]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	reads(child, "iris", "roses")
	for body, status := range map[string]int{`["iris"]`: 200, `["cats"]`: 403, `["project:animals"]`: 403, `["project:flowers","cats"]`: 403} {
		one := secretOf(t, w.exchange(t, p), "access_token")
		if a := w.ask(t, "PATCH", "/v1/tokens/self", one, `{"competitions":`+body+`}`); a.status != status {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		} else if status == 200 {
			reads(one, "iris")
		}
	}
	// What is in a project changes for what was made before as well.
	place("iris", "")
	place("cats", "flowers")
	reads(p, "roses", "cats")
	reads(child, "roses", "cats")
	place("roses", "animals")
	place("cats", "")
	reads(p) // an empty project is nothing, and not everything
	if _, err := w.api.Grading.Apply(t.Context(), &policy.Subject{Local: true}, grading.Competition{Name: "x", Project: "No Name", Metrics: []string{"accuracy"}}, nil, 0); err == nil {
		t.Error("a project of that name")
	}
}
