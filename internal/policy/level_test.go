package policy

import (
	"testing"
	"time"

	"gradegate/internal/token"
)

const day = 24 * time.Hour

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return t0.Add(d) }

func idle(d time.Duration) (r Rules) {
	r.Idle.Span = d
	return r
}

// What a change does not touch keeps its date: an edit of one demand moves no
// end of another.
func TestSetDatesWhatIsStricter(t *testing.T) {
	l := Level{Name: "group:ml"}.Set(idle(7*day), Rules{}, at(0), at(0))
	if !l.Rules.Idle.Since.Equal(at(0)) || l.Version != 1 {
		t.Errorf("%+v", l)
	}
	more := idle(7 * day)
	more.MaxPersonal, more.MaxLifetime.Span = 2, 90*day
	l = l.Set(more, Rules{}, at(20*day), at(20*day))
	if !l.Rules.Idle.Since.Equal(at(0)) || !l.Rules.MaxLifetime.Since.Equal(at(20*day)) {
		t.Errorf("%+v", l.Rules)
	}
	l = l.Set(idle(5*day), Rules{}, at(40*day), at(30*day))
	if !l.Rules.Idle.Since.Equal(at(0)) || !l.Coming.Idle.Since.Equal(at(40*day)) || l.Rules.Idle.Span != 7*day {
		t.Errorf("%+v", l)
	}
	// The coming rules are in force by now, and milder ones replace them at once.
	l = l.Set(idle(9*day), Rules{}, time.Time{}, at(50*day))
	if l.coming() || l.Rules.Idle.Span != 9*day || !l.Rules.Idle.Since.Equal(at(40*day)) {
		t.Errorf("%+v", l)
	}
}

// What is taken back leaves the default, from the date of the change if that is
// stricter.
func TestSetBackToTheDefault(t *testing.T) {
	base := Rules{Terms: token.PlatformTerms()}
	var strict, mild Rules
	mild.MaxLifetime.Span, strict.MaxLifetime.Span = 700*day, 60*day
	l := Level{Name: token.Platform}.Set(mild, base, at(0), at(0))
	l = l.Set(Rules{}, base, at(14*day), at(0))
	levels := Levels{Base: base, Named: map[string]Level{token.Platform: l}}
	rules := levels.For(nil)
	if len(rules) != 2 || rules[1].MaxLifetime != (token.Limit{Span: 365 * day, Since: at(14 * day)}) || !rules[0].Until.Equal(at(14*day)) {
		t.Errorf("%+v", rules)
	}
	l = Level{Name: token.Platform}.Set(strict, base, at(0), at(0)).Set(Rules{}, base, at(0), at(0))
	levels.Named[token.Platform] = l
	if got := levels.For(nil)[0]; got.MaxLifetime.Span != 365*day || got.Level != token.Platform || got.Idle.Span != 30*day {
		t.Errorf("%+v", got)
	}
}

// R1.3: the strictest of all levels that bear on a person, with its name.
func TestDemanded(t *testing.T) {
	base := Rules{Terms: token.PlatformTerms(), Lifetime: 90 * day, MaxPersonal: 1}
	var ml, late Rules
	ml.MaxLifetime.Span, ml.MaxPersonal = 60*day, 3
	late.SessionsOnly.On = true
	levels := Levels{Base: base, Named: map[string]Level{
		"group:ml":   Level{Name: "group:ml"}.Set(ml, Rules{}, at(0), at(0)),
		"group:late": Level{Name: "group:late"}.Set(late, Rules{}, at(10*day), at(0)),
	}}
	d := Demanded(levels.For([]string{"ml", "late", "none"}), at(day))
	if d.MaxLifetime != (Demand[time.Duration]{60 * day, "group:ml"}) || d.Lifetime != d.MaxLifetime ||
		d.MaxPersonal != (Demand[int]{1, token.Platform}) || d.SessionsOnly.Value {
		t.Errorf("%+v", d)
	}
	if d = Demanded(levels.For([]string{"late"}), at(10*day)); d.SessionsOnly.Level != "group:late" {
		t.Errorf("%+v", d)
	}
	if d = Demanded(levels.For(nil), at(10*day)); d.SessionsOnly.Value || d.MaxLifetime.Level != token.Platform {
		t.Errorf("%+v", d)
	}
}

func TestLevelName(t *testing.T) {
	for in, want := range map[string]string{
		"platform": "platform", " Platform ": "platform", "interns": "group:interns", "group:interns": "group:interns",
		"": "", "group:": "", "a b": "", "a..b": "", "-a": "",
	} {
		if got, err := LevelName(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
}

// R2.6: what a token carries counts only as far as its owner has it now.
func TestRoleOfTheMoment(t *testing.T) {
	s := Subject{Scopes: []string{ScopeVerify, ScopeAudit, ScopeAdmin}, Kind: token.Personal}
	s.Principal.Role = "user"
	for _, a := range []Action{TokenVerify, AuditRead, UserManage, PolicyManage} {
		if Decide(&s, a, Resource{}) == nil {
			t.Errorf("%s by somebody who is no administrator any more", a.Name)
		}
	}
}
