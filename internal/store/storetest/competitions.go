package storetest

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
)

func competitions(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	c := grading.Competition{
		Name: "mnist", Project: "digits", Version: 1, Title: "MNIST", Description: "Read\ndigits", Metrics: []string{"acc"}, Public: []string{"train.csv"},
		Resources: job.Resources{GPUs: 1}, PerDay: 5, Concurrent: 2, Accept: []string{"program"}, Open: true, Files: "abc", CreatedAt: T0, ChangedAt: T0,
	}
	allSet(t, c)
	must(t, s.SetCompetition(t.Context(), nil, c, Event(audit.CompetitionApply, c.Name)))
	WantCode(t, s.SetCompetition(t.Context(), nil, c, Event(audit.CompetitionApply, c.Name)), fault.Conflict, "name_taken")
	second := c
	second.Version, second.Open, second.Project = 2, false, "vision"
	var mu sync.Mutex // where there are other nodes, theirs are told as well
	told := map[int64]string{}
	s.FollowCompetitions(func(c grading.Competition) {
		mu.Lock()
		defer mu.Unlock()
		told[c.Version] = c.Project
	})
	must(t, s.SetCompetition(t.Context(), &c, second, Event(audit.CompetitionApply, c.Name)))
	WantCode(t, s.SetCompetition(t.Context(), &c, second, Event(audit.CompetitionApply, c.Name)), fault.Conflict, "version_moved")
	mu.Lock()
	if told[2] != "vision" {
		t.Errorf("who follows was told %v before the answer", told)
	}
	mu.Unlock()
	other := grading.Competition{Name: "cifar", Version: 1}
	must(t, s.SetCompetition(t.Context(), nil, other, Event(audit.CompetitionApply, other.Name)))
	got, err := s.Competition(t.Context(), "mnist")
	must(t, err)
	if d := cmp.Diff(second, got); d != "" {
		t.Error(d)
	}
	all, err := s.Competitions(t.Context())
	must(t, err)
	if d := cmp.Diff([]grading.Competition{other, second}, all, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}
