package trail

import (
	"strings"

	"gradegate/internal/audit"
)

// holder is somebody whose secret was the right one and who was refused all the
// same, and why: a token by its id, the handle of a job by the job, and the
// local socket by its user. Where he sends from is not part of it, so that more
// addresses are not more lines.
type holder struct{ token, job, actor, reason string }

const (
	// maxHolders bounds the memory of a minute, to about 5 MB, and its lines, to
	// 180 000. It takes that many tokens, or reasons of theirs, to get there: one
	// of each leaves eleven lines a minute, which is less than what it is allowed.
	maxHolders = 1 << 14
	// maxActors is for the holders beyond that: by actor and reason.
	maxActors = 1 << 10
)

// manyHolders stands for those that do not even fit by actor.
var manyHolders = holder{reason: "many_tokens"}

// holderOf is who a refusal is about; false if no secret was proven.
func holderOf(e *audit.Event) (holder, bool) {
	h := holder{token: e.Token, actor: e.Actor, reason: e.Reason}
	if h.token == "" && e.Kind != "" {
		if h.job = e.Detail["handle"]; h.job == "" { // else it is the target
			h.job = e.Target
		}
	}
	return h, h.token != "" || h.job != "" || h.actor != ""
}

// ownOf counts one more refusal of a holder that may have so many lines, and
// says whether it is one of them.
func (r *refusals) ownOf(h holder, lines int8) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &r.now
	n, known := m.holders[h]
	if !known {
		if len(m.holders) >= maxHolders {
			m.beyond.add(h, 1, 0)
			return false
		}
		h.job = strings.Clone(h.job) // it may be part of a long path
	}
	n.all++
	own := n.own < lines
	if own {
		n.own++
	}
	m.holders[h] = n
	return own
}

// owe takes over what a minute leaves to be told of holders.
func (r *refusals) owe(m *minute) {
	for h, n := range m.holders {
		if more := n.all - int64(n.own); more > 0 {
			r.owed.add(h, more, maxHolders)
		}
	}
	for h, n := range m.beyond {
		r.owed.add(h, n, maxHolders)
	}
}

// owed is how many refusals of holders are still to be told.
type owed map[holder]int64

// add adds refusals of a holder, under its own name if there are fewer than
// most.
func (o owed) add(h holder, n int64, most int) {
	if _, known := o[h]; !known && len(o) >= most {
		h = holder{actor: h.actor, reason: h.reason}
		if _, known := o[h]; !known && len(o) >= most+maxActors {
			h = manyHolders
		}
	}
	o[h] += n
}

// lineOf tells how many refusals of a holder it stands for.
func (r *refusals) lineOf(h holder, n int64) []byte {
	e := audit.Event{
		ID: r.trail.NewID(), At: r.trail.Now(), Action: audit.Aggregate, Outcome: audit.Deny,
		Actor: h.actor, Token: h.token, Target: h.job, Reason: h.reason, Count: n,
	}
	return scrubbed(&e).Encode()
}
