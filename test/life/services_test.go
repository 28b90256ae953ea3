package life

import "time"

// mint makes a token of the service, or tries to.
func (d *driver) mint() {
	o := Op{Do: "mint", By: d.living("by"), Name: pick(d, "name", "a", "b")}
	o.Scopes = pick(d, "scopes", nil, nil, []string{"jobs:submit", "tokens:self"}, []string{"audit:read"})
	o.Span = pick(d, "lifetime", 0, 0, time.Hour, 10*day, 44*day)
	d.do(o)
}

// owners changes who answers for the service.
func (d *driver) owners() {
	d.do(Op{Do: "owners", By: local, Who: d.who(), Name: pick(d, "how", "add", "add", "remove", "group")})
}

// strand takes the owners away, comes back to the service about a week later, and
// gives it an owner again, or not.
func (d *driver) strand() {
	s := d.model.people[2]
	own := -1
	for slot, c := range d.model.tokens {
		if state, _ := d.model.state(c); c.owner == s && state == "active" {
			own = slot
		}
	}
	if own < 0 {
		if a := d.do(Op{Do: "mint", By: d.living("by"), Name: "c"}); a.Made == never {
			return
		}
		own = len(d.model.tokens) - 1
	}
	job := d.do(Op{Do: "submit", By: own})
	for who := range d.model.people[:2] {
		d.do(Op{Do: pick(d, "do", "suspend-user", "suspend-user", "offboard", "groups"), By: local, Who: who})
	}
	if pick(d, "remove", true, false) {
		d.do(Op{Do: "owners", By: local, Who: d.human(), Name: "remove"})
	}
	if since := s.ownerless; !since.IsZero() {
		at := since.Add(stranded + pick(d, "beside", 0, 0, -time.Microsecond, time.Hour))
		for d.model.now().Before(at) && at.Before(d.from.Add(longest)) {
			d.do(Op{Do: "use", By: own}) // in use, so that nothing else ends it
			d.do(Op{Do: "pass", Span: min(day, at.Sub(d.model.now()))})
		}
	}
	d.do(Op{Do: pick(d, "then", "use", "submit", "renew"), By: own, On: own})
	if job.Code == "" {
		d.do(Op{Do: pick(d, "job", "job-read", "job-cancel"), Job: job.Made, By: own})
	}
	d.do(Op{Do: pick(d, "back", "resume-user", "resume-user", "invite"), By: local, Who: d.human()})
	d.do(Op{Do: "use", By: own})
}
