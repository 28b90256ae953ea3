// Package storetest is the conformance suite of the store: what every engine
// has to keep, told as tests. It is imported by tests only.
package storetest

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// T0 is when tests begin.
var T0 = time.Date(2026, 11, 24, 9, 0, 0, 123456000, time.UTC)

var counter atomic.Int64

// Person is a new principal with every field set.
func Person(name string) principal.Principal {
	n := counter.Add(1)
	return principal.Principal{
		ID: principal.ID(fmt.Sprintf("usr_%026d", n)), Version: 1, Name: name, Email: name + "@example.org",
		Kind: principal.Human, Role: principal.User, Status: principal.Active, Epochs: principal.Epochs{Credentials: 2, Person: 1},
		Enrolled: T0, CreatedAt: T0, ChangedAt: T0,
	}
}

// Token is a new active token of the owner with every kind of field set.
func Token(owner principal.Principal, name string) token.Token {
	n := counter.Add(1)
	id := fmt.Sprintf("%012d", n)
	return token.Token{
		ID: token.ID("tok_" + id), Version: 1, Kind: token.Personal, Digest: token.Digest{Sum: sha256.Sum256([]byte(id))}, Name: name,
		Owner: owner.ID, Epochs: owner.Epochs, Scopes: []string{"jobs:read", "jobs:submit"}, Competitions: []string{"mnist"},
		CIDRs:    []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Standing: token.Standard, Family: token.Family("fam_" + id), Generation: 1, IssuedAt: T0, IssuedBy: string(owner.ID),
		Lifetime: 90 * 24 * time.Hour, Renewal: token.Sliding, Idle: 30 * 24 * time.Hour, Unused: 14 * 24 * time.Hour, BornAt: T0,
		MaxLifetime: 365 * 24 * time.Hour, RotateAfter: 90 * 24 * time.Hour, Note: "a “note” <&>\u2028",
	}
}

// Consent is a consent between two, with every field set but that of its end.
func Consent(giver, taker principal.Principal) principal.Consent {
	return principal.Consent{
		ID: fmt.Sprintf("cns_%026d", counter.Add(1)), Version: 1, Giver: giver.ID, Taker: taker.ID, GiverEpoch: giver.Epochs.Person,
		TakerEpoch: taker.Epochs.Person, GiverCredentials: giver.Epochs.Credentials, Via: "tok_giver",
		Competitions: []string{"iris", "mnist"}, GivenAt: T0, Until: T0.Add(24 * time.Hour),
	}
}

// Event is an audit event of the action.
func Event(action audit.Action, target string) audit.Event {
	return audit.Event{
		ID: fmt.Sprintf("evt_%026d", counter.Add(1)), At: T0, Action: action, Outcome: audit.Done, Actor: "system", Target: target,
	}
}

// Add is a decision that inserts the owner and its tokens.
func Add(owner *principal.Principal, tokens ...token.Token) authority.Decision {
	var d authority.Decision
	if owner != nil {
		d.Principals = []authority.PrincipalChange{{New: *owner}}
	}
	for _, k := range tokens {
		d.Tokens = append(d.Tokens, authority.TokenChange{New: k})
	}
	return d
}

// Change is a decision that replaces one token.
func Change(old, is token.Token) authority.Decision {
	return authority.Decision{Tokens: []authority.TokenChange{{Old: &old, New: is}}}
}

// Reply is an answer remembered under the key.
func Reply(key string, until time.Time) *authority.Reply {
	return &authority.Reply{
		Key: sha256.Sum256([]byte(key)), Request: sha256.Sum256([]byte("request")), Ref: "tok_x", Sealed: []byte{0, 1, 255}, Until: until,
	}
}
