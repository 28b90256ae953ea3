package life

import (
	"slices"
	"time"
)

// Do decides about an op, and does it if it is allowed.
func (m *Model) Do(o Op) Answer {
	switch o.Do {
	case "pass", "set-back", "flush", "reopen":
		return done
	case "restart", "crash": // short ones: that uses can be recorded was noted just before
		m.beat = m.now()
		return done
	case "beat":
		return m.doBeat(o)
	case "leak":
		return m.leak(o)
	case "leak-handle":
		m.jobs[o.Job].leaked = true
		return done
	case "handle-read", "handle-cancel":
		return m.byHandle(o)
	case "redeem":
		return m.redeem(o)
	}
	if o.By == local {
		return m.byLocal(o)
	}
	h, code := m.enter(o.By)
	if _, again := m.again(o); code == "token_rotated" && o.Do == "rotate" && !again {
		m.reused(h.credential)
		return refused("token_reused")
	}
	if code != "" {
		if a, again := m.again(o); again {
			return a // its own request may have ended it
		}
		return refused(code)
	}
	if h.mode == "late" && o.Do != "job-read" && o.Do != "job-cancel" {
		return refused(h.late())
	}
	a := m.byHolder(o, h)
	if a.Code == "" {
		m.use(h)
	}
	return a
}

func (m *Model) byHolder(o Op, h holder) Answer {
	switch o.Do {
	case "use":
		return refused(h.may(o.Name, h.owner, false))
	case "audit":
		return refused(h.mayAudit())
	case "submit":
		return m.submit(h)
	case "job-read", "job-cancel":
		return m.job(o, h)
	case "create":
		return m.create(o, h)
	case "mint":
		return m.mint(o, h)
	case "rotate":
		return m.rotate(o, h)
	case "renew":
		return m.renew(o, h)
	case "revoke":
		c := m.tokens[o.On]
		if c != h.credential {
			if code := h.may("tokens:self", c.owner, false); code != "" {
				return hidden(code)
			}
		}
		revoke(c, false)
		return done
	case "suspend", "resume":
		c := m.tokens[o.On]
		if code := h.may("tokens:self", c.owner, false); code != "" {
			return hidden(code)
		}
		if o.Do == "resume" && c != h.credential && !within(c.scopes, h.scopes) {
			return refused("scope_widened") // what one could not make, one does not bring back
		}
		return m.stand(o, c, "owner", h.kind == "ses")
	case "revoke-all":
		return m.revokeAll(o, h)
	}
	panic("life: " + o.Do)
}

// hidden: what is not one's own is not there.
func hidden(code string) Answer {
	if code == "not_found" {
		code = "token_not_found"
	}
	return refused(code)
}

func (h holder) mayAudit() string {
	switch {
	case h.owner.role != "auditor":
		return "denied"
	case h.mode == "quarantined":
		return "denied"
	case !slices.Contains(h.scopes, "audit:read"):
		return "scope_missing"
	}
	return ""
}

func revoke(c *credential, fatal bool) {
	c.standing = "revoked"
	c.fatal = c.fatal || fatal
}

// stand suspends or resumes. What an administrator suspended, and what is
// quarantined, only an administrator lets go on.
func (m *Model) stand(o Op, c *credential, by string, signedIn bool) Answer {
	if o.Do == "suspend" {
		switch c.standing {
		case "revoked":
			return refused("token_revoked")
		case "quarantined": // resuming lifts both, so that it is not for its owner
			c.by = "admin"
		case "standard":
			c.by = by
		case "suspended":
			if by == "admin" {
				c.by = by
			}
		}
		c.standing = "suspended"
		return done
	}
	if state, first := m.state(c); state == "idle_expired" && signedIn {
		return m.reactivate(c, first)
	}
	switch {
	case c.standing == "revoked":
		return refused("token_revoked")
	case by == "owner" && (c.standing == "quarantined" || c.standing == "suspended" && c.by != "owner"):
		return refused("suspended_by_admin")
	}
	c.standing, c.by = "standard", ""
	return done
}

// reactivate brings a token back that was not used, if nothing else has ended it.
func (m *Model) reactivate(c *credential, first end) Answer {
	if !m.now().Before(first.at.Add(7 * day)) {
		return refused("token_expired")
	}
	before := c.renewed
	c.renewed = m.now()
	if state, _ := m.state(c); state != "active" {
		c.renewed = before
		return refused("token_expired")
	}
	beside := 0
	for _, other := range m.of(c.owner) {
		if other != c && m.counts(other) {
			beside++
		}
	}
	if c.kind == "pat" && beside >= strictest(m.inForce(m.stages(c.owner.groups)), func(r Rules) int { return r.MaxPersonal }) {
		c.renewed = before
		return refused("token_limit")
	}
	return done
}

func (m *Model) create(o Op, h holder) Answer {
	if code := h.may("tokens:self", h.owner, false); code != "" {
		return refused(code)
	}
	if h.owner.service {
		return refused("service_mints")
	}
	if a, again := m.again(o); again {
		return a
	}
	own := m.of(h.owner)
	force := m.inForce(m.stages(h.owner.groups))
	for _, s := range force {
		if s.SessionsOnly {
			return refused("sessions_only")
		}
	}
	var replaced *credential
	if o.Replace != never {
		replaced = m.tokens[o.Replace]
		if replaced.owner != h.owner {
			return refused("token_not_found")
		}
		if replaced.standing == "quarantined" || replaced.standing == "suspended" && replaced.by != "owner" {
			return refused("suspended_by_admin")
		}
	}
	existing := 0
	for _, c := range own {
		if c == replaced || !m.counts(c) {
			continue
		}
		if c.name == o.Name {
			return refused("name_taken")
		}
		existing++
	}
	scopes := o.Scopes
	if len(scopes) == 0 {
		scopes = h.scopes
	}
	if !within(scopes, h.scopes) {
		return refused("scope_widened")
	}
	c, code := m.draft(o, h, h.owner, "pat", scopes)
	if code != "" {
		return refused(code)
	}
	if existing >= strictest(force, func(r Rules) int { return r.MaxPersonal }) {
		return refused("token_limit")
	}
	if replaced != nil {
		revoke(replaced, false)
	}
	return m.made(o, m.add(c))
}

// draft is a new token of the owner, as long as the holder's and the policies
// let it live.
func (m *Model) draft(o Op, h holder, owner *person, kind string, scopes []string) (credential, string) {
	force := m.inForce(m.stages(owner.groups))
	most := strictest(force, func(r Rules) time.Duration { return r.MaxLifetime })
	lifetime := min(most, strictest(force, func(r Rules) time.Duration { return r.Lifetime }))
	if o.Span != 0 {
		if lifetime = o.Span; lifetime < 15*time.Minute || lifetime > most {
			return credential{}, "lifetime_out_of_range"
		}
	}
	c := credential{
		kind: kind, owner: owner, name: o.Name, scopes: scopes, family: len(m.tokens), generation: 1,
		born: m.now(), lifetime: lifetime, idle: 30 * day, unused: 14 * day, most: most,
	}
	if o.Fixed {
		c.fixed = m.now().Add(lifetime)
	}
	if !c.fits(h.credential, o) {
		return c, "lifetime_widened"
	}
	return c, ""
}

// fits cuts a new token to the life of the one that makes it, which it may not
// outlive unless that is a session: false if more was asked for.
func (c *credential) fits(maker *credential, o Op) bool {
	if maker.kind == "ses" {
		return true
	}
	longer := c.lifetime > maker.lifetime
	c.born, c.most, c.lifetime = maker.born, min(c.most, maker.most), min(c.lifetime, maker.lifetime)
	if !maker.fixed.IsZero() {
		longer = longer || o.Span > 0 && !o.Fixed || c.fixed.After(maker.fixed)
		if c.fixed.IsZero() || c.fixed.After(maker.fixed) {
			c.fixed = maker.fixed
		}
	}
	return !longer || o.Span == 0
}

// again answers a request that was answered before under its Idempotency-Key,
// ten minutes ago at most.
func (m *Model) again(o Op) (Answer, bool) {
	if r := m.replies[o.Key]; r != nil && o.Key != "" && m.now().Before(r.until) {
		return Answer{Made: r.slot}, true
	}
	return Answer{}, false
}

func (m *Model) made(o Op, c *credential) Answer {
	if o.Key != "" {
		m.replies[o.Key] = &reply{c.slot, m.now().Add(10 * time.Minute)}
	}
	return Answer{Made: c.slot}
}

func within(asked, granted []string) bool {
	for _, s := range asked {
		if !slices.Contains(granted, s) {
			return false
		}
	}
	return true
}

// rotate gives a token its one successor.
func (m *Model) rotate(o Op, h holder) Answer {
	if a, again := m.again(o); again {
		return a
	}
	old := m.tokens[o.On]
	if code := h.may("tokens:self", old.owner, false); code != "" {
		return hidden(code)
	}
	if !within(old.scopes, h.scopes) {
		return refused("scope_widened")
	}
	if old.kind != "pat" && old.kind != "svc" {
		return refused("kind_not_rotatable")
	}
	state, first := m.state(old)
	if state != "active" {
		return refused("token_" + state)
	}
	if s := old.successor; s != nil {
		if !o.ReplaceUnused || !s.used.IsZero() || s.standing != "standard" || s.successor != nil {
			return refused("already_rotated")
		}
		revoke(s, false)
	}
	c := *old
	c.predecessor, c.successor, c.grace, c.rotated = old, nil, time.Time{}, time.Time{}
	c.used, c.renewed, c.by = time.Time{}, time.Time{}, ""
	c.generation++
	if h.kind == "ses" && !m.now().After(h.born.Add(15*time.Minute)) {
		// Its holder has just signed in: a family of its own.
		c.family, c.generation, c.born = len(m.tokens), 1, m.now()
	}
	made := m.add(c)
	old.successor, old.rotated, old.grace = made, m.now(), m.now().Add(o.Span)
	if first.at.Before(old.grace) {
		old.grace = first.at
	}
	if o.Compromised {
		old.grace = m.now()
		revoke(old, true)
	}
	return m.made(o, made)
}

// reused: a predecessor that has ended is presented for another rotation, so
// its secret is in two hands, and its family ends.
func (m *Model) reused(old *credential) {
	for _, c := range m.of(old.owner) {
		if c.family == old.family {
			revoke(c, true)
		}
	}
}

func (m *Model) renew(o Op, h holder) Answer {
	c := m.tokens[o.On]
	if c != h.credential {
		if code := h.may("tokens:self", c.owner, false); code != "" {
			return hidden(code)
		}
	}
	if state, _ := m.state(c); state != "active" {
		return refused("token_" + state)
	}
	switch {
	case c.successor != nil: // never in grace
	case c.kind == "ses":
		if end := m.now().Add(c.lifetime); end.After(c.fixed) {
			c.fixed = end
		}
		if most := c.born.Add(c.most); c.fixed.After(most) {
			c.fixed = most
		}
	case c != h.credential:
		c.renewed = m.now()
	}
	if c == h.credential {
		c.used = m.now() // that use is its renewal
	}
	return Answer{Made: never, Note: m.limit(c)}
}

// limit is what keeps a renewed token from living longer.
func (m *Model) limit(c *credential) string {
	first := m.nearest(c)
	switch {
	case first.clock == "expires_at" && c.kind == "ses" && !first.at.Before(c.born.Add(c.most)):
		return "max_lifetime"
	case first.clock == "expires_at" && c.kind != "ses" && !c.fixed.IsZero():
		return "fixed"
	}
	return map[string]string{
		"grace_until": "grace", "max_expires_at": "max_lifetime", "rotate_by": "rotation", "policy": "policy",
	}[first.clock]
}

// leak is a report by whoever holds a secret: possession is the proof.
func (m *Model) leak(o Op) Answer {
	c := m.tokens[o.On]
	suspects := false
	for _, s := range m.inForce(m.stages(nil)) {
		suspects = suspects || s.Quarantine
	}
	switch {
	case !suspects || c.kind == "inv" || c.standing == "revoked": // what is revoked needs no look
		revoke(c, true)
	case c.standing == "standard":
		c.standing, c.by = "quarantined", ""
	case c.standing == "suspended":
		c.by = "admin" // a report never gives anything back
	}
	return done
}

func (m *Model) revokeAll(o Op, h holder) Answer {
	if code := h.may("tokens:self", h.owner, false); code != "" {
		return refused(code)
	}
	h.owner.credentials++
	if o.Keep {
		h.credential.credentials = h.owner.credentials
	}
	return done
}
