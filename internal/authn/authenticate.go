package authn

import (
	"net/netip"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Ref points at what authenticated a request, for Used and Admit.
type Ref struct {
	id    token.PublicID
	noted bool // whether the use is noted
	owner *owner
}

// The refusals. Unknown is the one answer to everybody who does not hold the
// right secret; the others are told to its holder only. They are made once, so
// that refusing allocates nothing.
var (
	ErrUnknown = refusal("token_unknown", "The token is not valid.",
		"Sign in again (gradegate login --invite CODE) or create a token: gradegate token create")
	ErrStale = fault.New(fault.Unavailable, "stale", "This node has lost touch with the database and cannot tell whether the token is still good.").
			WithFix("Try again in a few seconds; if it lasts, tell the operator.").WithRetry(2 * time.Second)
	ErrAddress = fault.New(fault.Denied, "ip_denied", "The token may not be used from this address.").
			WithFix("Use it from an allowed network, or ask for another token.")

	byState = map[token.State]*fault.Error{
		token.StateExpired:       refusal("token_expired", "The token has expired.", "Use another token of yours (--token-file FILE), or sign in again: an administrator gives you a code for gradegate login --invite CODE"),
		token.StateIdleExpired:   refusal("token_idle_expired", "The token ended because it was not used for too long.", "Sign in again: gradegate login --invite CODE"),
		token.StateRotated:       refusal("token_rotated", "The token was rotated and its grace period is over.", "Use its successor (gradegate token list). If none of you rotated it, somebody else holds its secret: gradegate leak report --file FILE"),
		token.StateRevoked:       refusal("token_revoked", "The token was revoked.", "Use another token of yours (--token-file FILE), or sign in again: an administrator gives you a code for gradegate login --invite CODE"),
		token.StateSuspended:     refusal("token_suspended", "The token is suspended.", "Resume it with another token of yours or your session, or ask an administrator: gradegate user tokens NAME, then gradegate token resume ID"),
		token.StateUnproven:      refusal("token_unproven", "After a restore nobody can prove that this token is still good.", "Sign in again, or ask an administrator for an invite."),
		token.StateParentEnded:   refusal("token_parent_ended", "The token that this one was made from has ended, is suspended or was revoked.", "Make another one from a token that is active: POST /oauth2/token (token exchange), or sign in: gradegate login --invite CODE"),
		token.StateOwnerInactive: refusal("owner_inactive", "The token's owner is not active.", "Ask an administrator."),
	}
)

func refusal(code, detail, fix string) *fault.Error {
	return fault.New(fault.Unauthenticated, code, detail).WithFix(fix)
}

// Authenticate finds the subject behind a presented secret at this moment.
// Its errors are faults: ErrUnknown unless the secret is the right one; the
// reason if it is right and no longer active; Unavailable if this process
// cannot know. It makes no call outside the process.
func (t *Table) Authenticate(p token.Presented, addr netip.Addr) (policy.Subject, Ref, error) {
	now := t.now()
	var s policy.Subject
	if t.maxStaleness > 0 && now.Sub(clock.Micro(t.fresh.Load())) > t.maxStaleness {
		return s, Ref{}, ErrStale
	}
	if p.Kind == token.JobKind || p.Kind == token.Run {
		return t.authenticateHandle(p, addr, now)
	}
	// An unknown id is compared with a digest that nothing has, so that both
	// refusals take the same steps.
	var record held
	known := t.find(p.Public, &record)
	if !record.Digest.Is(p.Digest, t.peppers) || record.Kind != p.Kind || !known {
		return s, Ref{}, t.unknown(record.Digest)
	}
	owner := record.owner.person.Load()
	if owner == nil {
		return s, Ref{}, ErrUnknown // a token without an owner: doubt tightens
	}
	s.Token, s.Kind = record.ID, record.Kind
	ref := Ref{id: p.Public, noted: true, owner: record.owner}
	state, end, rights := t.judge(&record.Token, record.last, &owner.Holder, &addr, now)
	switch {
	case state == token.StateActive:
		if record.Digest.Pepper != t.peppers.Newest() {
			t.worn(&record.Token, &p)
		}
	case state == token.StateQuarantined:
		s.Mode = policy.ModeQuarantined
		if owner.Quarantines(now) {
			s.Ownerless = owner.owned.Since
		}
	case record.Parent == "" && record.ReadsAfter(&owner.Holder, state, end, now):
		// What such a use is not: a renewal.
		s.Mode, s.Ended, ref.noted = policy.ModeExpiredRead, end.At, false
		end.At = end.At.Add(token.ReadAfter)
	default:
		s.Until, s.By, s.Level = end.At, end.Clock, end.Level // for whoever asks why
		return s, Ref{}, byState[state]
	}
	if !authenticates(record.Kind) {
		return s, Ref{}, ErrUnknown // an invite or a refresh token is not for requests
	}
	if len(record.CIDRs) > 0 && !policy.Within(record.CIDRs, addr) {
		if s.Outside = token.OwnLevel; !record.Observe {
			return s, Ref{}, ErrAddress
		}
	}
	if len(owner.networks) > 0 {
		level, refused := policy.Outside(owner.networks, addr, now)
		if level != "" {
			s.Outside = level
		}
		if refused {
			return s, Ref{}, ErrAddress
		}
	}
	s.Principal = owner.Principal
	s.Scopes, s.Competitions, s.CIDRs, s.Addr = rights.scopes, rights.competitions, record.Networks(), addr
	s.Until, s.By, s.Level = end.At, end.Clock, end.Level
	if record.Successor == "" && record.Parent == "" {
		s.Due = end.Due
	}
	if record.Kind == token.Session && record.Parent == "" && record.Generation == 1 {
		s.SignedIn = record.BornAt
	}
	return s, ref, nil
}

// Lapsed is the subject of a secret whatever its token's state, in ModeReplay:
// for who asks again for an answer that was lost, and for nothing else.
func (t *Table) Lapsed(p token.Presented, addr netip.Addr) (policy.Subject, bool) {
	var k held
	if !t.find(p.Public, &k) {
		return policy.Subject{}, false
	}
	owner := k.owner.person.Load()
	if owner == nil || !k.Digest.Is(p.Digest, t.peppers) || k.Kind != p.Kind || !authenticates(k.Kind) {
		return policy.Subject{}, false
	}
	if list := k.Networks(); len(list) > 0 && !policy.Within(list, addr) {
		return policy.Subject{}, false
	}
	return policy.Subject{
		Principal: owner.Principal, Token: k.ID, Kind: k.Kind, Scopes: k.Scopes, Competitions: k.Competitions, CIDRs: k.Networks(),
		Addr: addr, Mode: policy.ModeReplay,
	}, true
}

// Presenter is the subject of a secret that is the right one, whatever became of
// it and wherever it is presented, in ModeEnded: for who asks why he was refused,
// and for nothing else. Of its owner it has the id alone, and so no right.
func (t *Table) Presenter(p token.Presented) (policy.Subject, bool) {
	s := policy.Subject{Kind: p.Kind, Mode: policy.ModeEnded}
	if p.Kind == token.JobKind || p.Kind == token.Run {
		if s.Job = t.HandleJob(p); s.Job == "" {
			return policy.Subject{}, false
		}
		e, _ := t.handles.get(p.Public)
		s.Principal.ID = e.record.Load().Owner
		return s, true
	}
	id, known := t.TokenOf(p)
	if !known || !authenticates(p.Kind) {
		return policy.Subject{}, false
	}
	k, _ := t.Token(id)
	s.Token, s.Principal.ID = id, k.Owner
	return s, true
}

func authenticates(k token.Kind) bool {
	return k == token.Personal || k == token.Session || k == token.Service || k == token.Legacy
}

func (t *Table) authenticateHandle(p token.Presented, addr netip.Addr, now time.Time) (policy.Subject, Ref, error) {
	var s policy.Subject
	e, known := t.handles.get(p.Public)
	record := &t.noHandle
	if known {
		record = e.record.Load()
	}
	if !record.Digest.Is(p.Digest, t.peppers) || record.Kind != p.Kind || record == &t.noHandle {
		return s, Ref{}, t.unknown(record.Digest)
	}
	owner := e.owner.person.Load()
	if owner == nil {
		return s, Ref{}, ErrUnknown
	}
	s.Kind, s.Job = record.Kind, record.Job
	switch {
	case record.Leaked, owner.Principal.Epochs.Person > record.Person, t.endsHandles(record.Via):
		return s, Ref{}, byState[token.StateRevoked]
	case owner.Principal.Status != principal.Active:
		return s, Ref{}, byState[token.StateOwnerInactive]
	case record.Submitter != "" && record.Kind == token.JobKind && !t.submitterStands(record):
		return s, Ref{}, byState[token.StateOwnerInactive]
	case !record.Until.IsZero() && !now.Before(record.Until):
		return s, Ref{}, byState[token.StateExpired]
	}
	s.Principal, s.Addr, s.Until, s.By = owner.Principal, addr, record.Until, token.ClockExpires
	return s, Ref{owner: e.owner}, nil
}

// submitterStands reports whether who handed a job in for somebody else, and got
// its handle, is still the one that it was.
func (t *Table) submitterStands(h *Handle) bool {
	p := t.owner(h.Submitter).person.Load()
	return p != nil && p.Principal.Status == principal.Active && p.Principal.Epochs.Person == h.SubmitterPerson
}

// endsHandles reports whether the token that submitted a job was reported
// leaked or compromised.
func (t *Table) endsHandles(via token.ID) bool {
	ends := false
	t.line(via, func(k *token.Token) { ends = ends || k.Standing == token.Revoked && k.Reason.EndsHandles() })
	return ends // an archived one ended long ago, and in another way
}

// Admit begins the admission of a job: it checks once more that the subject is
// active and holds its owner's gate until release is called. A revocation is
// acknowledged only after every admission that began before it has been
// released, so nothing is admitted after an acknowledgement.
func (t *Table) Admit(s *policy.Subject) (release func(), err error) {
	o := t.owner(s.Principal.ID)
	o.gate.RLock()
	if err := t.stillActive(s, o); err != nil {
		o.gate.RUnlock()
		return nil, err
	}
	return o.gate.RUnlock, nil
}

func (t *Table) stillActive(s *policy.Subject, o *owner) error {
	var record held
	owner := o.person.Load()
	if !t.find(publicOf(s.Token), &record) || owner == nil {
		return ErrUnknown
	}
	state, _, _ := t.judge(&record.Token, record.last, &owner.Holder, &s.Addr, t.now())
	if state == token.StateActive {
		return nil
	}
	if refusal := byState[state]; refusal != nil {
		return refusal
	}
	return fault.New(fault.Denied, "denied", "The token is %s.", state)
}

// Drain waits until every admission of the owner that began before this call
// has been released.
func (t *Table) Drain(id principal.ID) {
	o := t.owner(id)
	o.gate.Lock()
	//lint:ignore SA2001 an empty critical section is the point: it waits
	o.gate.Unlock()
}

// JobWish is what is to happen to a job of this owner that was submitted with
// this token under this person epoch, judged by the facts of this moment.
func (t *Table) JobWish(id principal.ID, via token.ID, person int64) token.Wish {
	wish := token.Keep
	if owner := t.owner(id).person.Load(); owner != nil {
		gone := owner.Principal.Status != principal.Active || owner.Principal.Epochs.Person > person
		if gone {
			wish = token.CancelQueued
		}
		if owner.CancelBefore > person {
			wish = token.CancelAll
		}
	}
	t.line(via, func(k *token.Token) {
		if k.Standing == token.Revoked {
			wish = wish.Stricter(k.Jobs)
		}
	})
	return wish
}
