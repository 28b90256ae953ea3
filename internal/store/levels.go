package store

import (
	"context"
	"encoding/json"
	"net/netip"

	"gradegate/internal/budget"
	"gradegate/internal/clock"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// levelRow is form v1 of a level of policy. Its rules are one column: they are
// read as a whole, and never searched.
type levelRow struct {
	Name      string `json:"name"`
	Version   int64  `json:"version"`
	Body      string `json:"body"`
	ChangedAt int64  `json:"changed_at"`
}

func (r *levelRow) spec() *table { return levelsTable }

func (r *levelRow) fields() []any { return []any{&r.Name, &r.Version, &r.Body, &r.ChangedAt} }

// levelBody is the text in the column. Spans are microseconds.
type levelBody struct {
	Rules  *rulesBody `json:"rules,omitempty"`
	Coming *rulesBody `json:"coming,omitempty"`
}

type rulesBody struct {
	Since        int64    `json:"since,omitempty"`
	Lifetime     int64    `json:"lifetime,omitempty"`
	MaxLifetime  dated    `json:"max_lifetime,omitzero"`
	Idle         dated    `json:"idle,omitzero"`
	ServiceIdle  dated    `json:"service_idle,omitzero"`
	Unused       dated    `json:"unused,omitzero"`
	RotateAfter  dated    `json:"rotate_after,omitzero"`
	Enforced     dated    `json:"enforced,omitzero"`
	SessionsOnly *int64   `json:"sessions_only,omitempty"` // since when
	MaxPersonal  int      `json:"max_personal,omitempty"`
	Budget       string   `json:"budget,omitempty"`
	Networks     []string `json:"networks,omitempty"`
	Observe      bool     `json:"observe,omitempty"`
	Quarantine   bool     `json:"quarantine,omitempty"`
}

// dated is a limit: its span, and since when it is in force.
type dated struct {
	Span  int64 `json:"span"`
	Since int64 `json:"since,omitempty"`
}

func limitToBody(l token.Limit) dated {
	return dated{l.Span.Microseconds(), clock.Micros(l.Since)}
}

func (d dated) limit() token.Limit {
	return token.Limit{Span: micros(d.Span), Since: clock.Micro(d.Since)}
}

func levelToRow(l policy.Level) *levelRow {
	text, err := json.Marshal(levelBody{Rules: rulesToBody(l.Rules), Coming: rulesToBody(l.Coming)})
	if err != nil {
		panic("store: " + err.Error()) // numbers and text always encode
	}
	return &levelRow{Name: l.Name, Version: l.Version, Body: string(text), ChangedAt: clock.Micros(l.ChangedAt)}
}

func rulesToBody(r policy.Rules) *rulesBody {
	b := &rulesBody{
		Since: clock.Micros(r.Since), Lifetime: r.Lifetime.Microseconds(), MaxLifetime: limitToBody(r.MaxLifetime),
		Idle: limitToBody(r.Idle), ServiceIdle: limitToBody(r.ServiceIdle), Unused: limitToBody(r.Unused),
		RotateAfter: limitToBody(r.RotateAfter), Enforced: limitToBody(r.Enforced), MaxPersonal: r.MaxPersonal,
		Budget: budgetToText(r.Budget, nil), Observe: r.Observe, Quarantine: r.Quarantine,
	}
	if r.SessionsOnly.On {
		since := clock.Micros(r.SessionsOnly.Since)
		b.SessionsOnly = &since
	}
	for _, p := range r.Networks {
		b.Networks = append(b.Networks, p.String())
	}
	return b
}

// level is the row's level. What cannot be read demands the most: doubt
// tightens.
func (r *levelRow) level() policy.Level {
	l := policy.Level{Name: r.Name, Version: r.Version, ChangedAt: clock.Micro(r.ChangedAt)}
	var b levelBody
	if err := json.Unmarshal([]byte(r.Body), &b); err != nil || b.Rules == nil {
		l.Rules = policy.Rules{Terms: token.Terms{Level: l.Name, SessionsOnly: token.Flag{On: true}}, MaxPersonal: 1, Budget: budget.Nothing}
		return l
	}
	l.Rules = b.Rules.rules(r.Name)
	if b.Coming != nil {
		l.Coming = b.Coming.rules(r.Name)
	}
	return l
}

func (b *rulesBody) rules(level string) policy.Rules {
	r := policy.Rules{
		Terms: token.Terms{
			Level: level, Since: clock.Micro(b.Since), MaxLifetime: b.MaxLifetime.limit(), Idle: b.Idle.limit(),
			ServiceIdle: b.ServiceIdle.limit(), Unused: b.Unused.limit(), RotateAfter: b.RotateAfter.limit(), Enforced: b.Enforced.limit(),
		},
		Lifetime: micros(b.Lifetime), MaxPersonal: b.MaxPersonal, Observe: b.Observe, Quarantine: b.Quarantine,
	}
	r.Budget, _ = budgetOfText(b.Budget)
	if b.SessionsOnly != nil {
		r.SessionsOnly = token.Flag{On: true, Since: clock.Micro(*b.SessionsOnly)}
	}
	for _, text := range b.Networks {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			p = netip.Prefix{} // contains nothing: a list that cannot be read is not "from everywhere"
		}
		r.Networks = append(r.Networks, p)
	}
	return r
}

// Levels implements authority.Store.
func (t *Tokens) Levels(ctx context.Context) ([]policy.Level, error) {
	rows, err := many(ctx, t, levelsTable.selectAll+" ORDER BY name", levelsTable)
	if err != nil {
		return nil, err
	}
	out := make([]policy.Level, len(rows))
	for i, r := range rows {
		out[i] = r.(*levelRow).level()
	}
	return out, nil
}
