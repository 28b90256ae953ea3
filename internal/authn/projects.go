package authn

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"gradegate/internal/policy"
)

// projects are which competitions each project holds. A token may be for a
// project: it is for what is in there when it is used.
type projects struct {
	mu    sync.Mutex
	of    map[string]placed // by competition
	holds atomic.Pointer[map[string][]string]
}

type placed struct {
	project string
	version int64
}

// ApplyCompetition takes over which project a competition is in, if any, unless
// a newer version of it is known.
func (t *Table) ApplyCompetition(name, project string, version int64) {
	p := &t.projects
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.of[name]; ok && known.version >= version {
		return
	}
	if p.of == nil {
		p.of = map[string]placed{}
	}
	p.of[name] = placed{project, version}
	holds := map[string][]string{}
	for competition, in := range p.of {
		if in.project != "" {
			holds[in.project] = append(holds[in.project], competition)
		}
	}
	p.holds.Store(&holds)
}

// in is what a project holds at this moment, and whether the entry of a list
// names one.
func (p *projects) in(entry string) (competitions []string, is bool) {
	name, is := strings.CutPrefix(entry, policy.ProjectPrefix)
	if holds := p.holds.Load(); is && holds != nil {
		competitions = (*holds)[name]
	}
	return competitions, is
}

// Reach is what a token may be used for that is limited to these competitions
// and projects: they, and what the projects hold at this moment.
func (t *Table) Reach(list []string) []string {
	out := list
	for _, entry := range list {
		held, _ := t.projects.in(entry)
		for _, c := range held {
			if !slices.Contains(out, c) {
				out = append(slices.Clip(out), c)
			}
		}
	}
	return out
}

// Handed is what of a reach is handed on: without what it has by its projects
// alone, which another token has by them as well, for as long as they hold it.
func (t *Table) Handed(reach []string) []string {
	var within []string
	for _, entry := range reach {
		held, _ := t.projects.in(entry)
		within = append(within, held...)
	}
	if within == nil {
		return reach
	}
	return slices.DeleteFunc(slices.Clone(reach), func(c string) bool { return slices.Contains(within, c) })
}
