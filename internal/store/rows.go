package store

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// principalRow is form v1 of a principal. Members are never renamed or
// reordered: old MACs and the ledger depend on it. New ones come last and are
// left out while they are empty.
type principalRow struct {
	ID               string `json:"id"`
	Version          int64  `json:"version"`
	Name             string `json:"name"`
	Email            string `json:"email"`
	Kind             string `json:"kind"`
	Role             string `json:"role"`
	Status           string `json:"status"`
	EpochCredentials int64  `json:"epoch_credentials"`
	EpochPerson      int64  `json:"epoch_person"`
	Enrolled         int64  `json:"enrolled"`
	CancelBefore     int64  `json:"cancel_jobs"`
	CreatedAt        int64  `json:"created_at"`
	ChangedAt        int64  `json:"changed_at"`
	Groups           list   `json:"member_of,omitempty"`
	Left             list   `json:"left_groups,omitempty"` // "NAME MICROSECONDS"
	InactiveSince    int64  `json:"inactive_since,omitempty"`
	Owners           list   `json:"owners,omitempty"`
	OwnerGroup       string `json:"owner_group,omitempty"`
	OwnedSince       int64  `json:"owned_since,omitempty"`
	Budget           string `json:"budget,omitempty"`
}

func (r *principalRow) spec() *table { return principalsTable }

func (r *principalRow) fields() []any {
	return []any{&r.ID, &r.Version, &r.Name, &r.Email, &r.Kind, &r.Role, &r.Status, &r.EpochCredentials,
		&r.EpochPerson, &r.Enrolled, &r.CancelBefore, &r.CreatedAt, &r.ChangedAt, &r.Groups,
		&r.Left, &r.InactiveSince, &r.Owners, &r.OwnerGroup, &r.OwnedSince, &r.Budget}
}

func principalToRow(p principal.Principal) *principalRow {
	r := &principalRow{
		ID: string(p.ID), Version: p.Version, Name: p.Name, Email: p.Email, Kind: string(p.Kind), Role: string(p.Role),
		Status: string(p.Status), EpochCredentials: p.Epochs.Credentials, EpochPerson: p.Epochs.Person,
		Enrolled: clock.Micros(p.Enrolled), CancelBefore: p.CancelBefore,
		CreatedAt: clock.Micros(p.CreatedAt), ChangedAt: clock.Micros(p.ChangedAt), Groups: p.Groups,
		InactiveSince: clock.Micros(p.InactiveSince), OwnerGroup: p.OwnerGroup, OwnedSince: clock.Micros(p.OwnedSince),
		Budget: budgetToText(p.Budget, p.Grants),
	}
	for _, d := range p.Left {
		r.Left = append(r.Left, d.Group+" "+strconv.FormatInt(clock.Micros(d.At), 10))
	}
	for _, id := range p.Owners {
		r.Owners = append(r.Owners, string(id))
	}
	return r
}

func (r *principalRow) principal() principal.Principal {
	b, grants := budgetOfText(r.Budget)
	p := principal.Principal{
		ID: principal.ID(r.ID), Version: r.Version, Name: r.Name, Email: r.Email, Kind: principal.Kind(r.Kind),
		Role: principal.Role(r.Role), Status: principal.Status(r.Status),
		Epochs:   principal.Epochs{Credentials: r.EpochCredentials, Person: r.EpochPerson},
		Enrolled: clock.Micro(r.Enrolled), CancelBefore: r.CancelBefore,
		CreatedAt: clock.Micro(r.CreatedAt), ChangedAt: clock.Micro(r.ChangedAt), Groups: r.Groups,
		InactiveSince: clock.Micro(r.InactiveSince), OwnerGroup: r.OwnerGroup, OwnedSince: clock.Micro(r.OwnedSince),
		Budget: b, Grants: grants,
	}
	for _, text := range r.Left {
		group, at, _ := strings.Cut(text, " ")
		us, _ := strconv.ParseInt(at, 10, 64) // our own, under MAC
		p.Left = append(p.Left, principal.Departure{Group: group, At: clock.Micro(us)})
	}
	for _, id := range r.Owners {
		p.Owners = append(p.Owners, principal.ID(id))
	}
	return p
}

// tokenRow is form v1 of a token. Members are never renamed or reordered.
type tokenRow struct {
	ID               string `json:"id"`
	Version          int64  `json:"version"`
	Kind             string `json:"kind"`
	Digest           []byte `json:"digest"`
	Name             string `json:"name"`
	Owner            string `json:"owner"`
	EpochCredentials int64  `json:"epoch_credentials"`
	EpochPerson      int64  `json:"epoch_person"`
	Scopes           list   `json:"scopes,omitempty"`
	Competitions     list   `json:"competitions,omitempty"`
	CIDRs            list   `json:"cidrs,omitempty"`
	Parent           string `json:"parent,omitempty"`
	Standing         string `json:"standing"`
	Reason           string `json:"reason,omitempty"`
	RevokedAt        int64  `json:"revoked_at,omitempty"`
	Jobs             string `json:"jobs,omitempty"`
	Family           string `json:"family"`
	Generation       int64  `json:"generation"`
	Predecessor      string `json:"predecessor,omitempty"`
	Successor        string `json:"successor,omitempty"`
	GraceUntil       int64  `json:"grace_until,omitempty"`
	IssuedAt         int64  `json:"issued_at"`
	IssuedBy         string `json:"issued_by"`
	Lifetime         int64  `json:"lifetime"`
	Renewal          string `json:"renewal"`
	FixedEnd         int64  `json:"fixed_end,omitempty"`
	Idle             int64  `json:"idle,omitempty"`
	Unused           int64  `json:"unused,omitempty"`
	BornAt           int64  `json:"born_at"`
	MaxLifetime      int64  `json:"max_lifetime,omitempty"`
	RotateAfter      int64  `json:"rotate_after,omitempty"`
	EnforceRotation  int64  `json:"enforce_rotation,omitempty"`
	Note             string `json:"note,omitempty"`
	RenewedAt        int64  `json:"renewed_at,omitempty"`
	Budget           string `json:"budget,omitempty"`
	Account          string `json:"account,omitempty"`
}

func (r *tokenRow) spec() *table { return tokensTable }

func (r *tokenRow) fields() []any {
	return []any{&r.ID, &r.Version, &r.Kind, &r.Digest, &r.Name, &r.Owner, &r.EpochCredentials, &r.EpochPerson,
		&r.Scopes, &r.Competitions, &r.CIDRs, &r.Parent, &r.Standing, &r.Reason, &r.RevokedAt, &r.Jobs,
		&r.Family, &r.Generation, &r.Predecessor, &r.Successor, &r.GraceUntil, &r.IssuedAt, &r.IssuedBy,
		&r.Lifetime, &r.Renewal, &r.FixedEnd, &r.Idle, &r.Unused, &r.BornAt, &r.MaxLifetime, &r.RotateAfter,
		&r.EnforceRotation, &r.Note, &r.RenewedAt, &r.Budget, &r.Account}
}

func tokenToRow(t token.Token) *tokenRow {
	r := &tokenRow{
		ID: string(t.ID), Version: t.Version, Kind: t.Kind.String(), Digest: t.Digest.Bytes(), Name: t.Name, Owner: string(t.Owner),
		EpochCredentials: t.Epochs.Credentials, EpochPerson: t.Epochs.Person,
		Scopes: t.Scopes, Competitions: t.Competitions, Parent: string(t.Parent),
		Standing: string(t.Standing), Reason: string(t.Reason), RevokedAt: clock.Micros(t.RevokedAt), Jobs: string(t.Jobs),
		Family: string(t.Family), Generation: int64(t.Generation), Predecessor: string(t.Predecessor),
		Successor: string(t.Successor), GraceUntil: clock.Micros(t.GraceUntil),
		IssuedAt: clock.Micros(t.IssuedAt), IssuedBy: t.IssuedBy, Lifetime: t.Lifetime.Microseconds(),
		Renewal: string(t.Renewal), FixedEnd: clock.Micros(t.FixedEnd), Idle: t.Idle.Microseconds(), Unused: t.Unused.Microseconds(),
		BornAt: clock.Micros(t.BornAt), MaxLifetime: t.MaxLifetime.Microseconds(), RotateAfter: t.RotateAfter.Microseconds(),
		EnforceRotation: bit(t.EnforceRotation), Note: t.Note, RenewedAt: clock.Micros(t.RenewedAt),
		Budget: budgetToText(t.Budget, nil), Account: string(t.Account),
	}
	if t.Observe {
		r.CIDRs = append(r.CIDRs, observeMark)
	}
	for _, p := range t.CIDRs {
		r.CIDRs = append(r.CIDRs, p.String())
	}
	return r
}

func (r *tokenRow) token() token.Token {
	t := token.Token{
		ID: token.ID(r.ID), Version: r.Version, Kind: token.ParseKind(r.Kind), Name: r.Name, Owner: principal.ID(r.Owner),
		Epochs: principal.Epochs{Credentials: r.EpochCredentials, Person: r.EpochPerson},
		Scopes: r.Scopes, Competitions: r.Competitions, Parent: token.ID(r.Parent),
		Standing: token.Standing(r.Standing), Reason: token.Reason(r.Reason), RevokedAt: clock.Micro(r.RevokedAt), Jobs: token.Wish(r.Jobs),
		Family: token.Family(r.Family), Generation: int(r.Generation), Predecessor: token.ID(r.Predecessor),
		Successor: token.ID(r.Successor), GraceUntil: clock.Micro(r.GraceUntil),
		IssuedAt: clock.Micro(r.IssuedAt), IssuedBy: r.IssuedBy, Lifetime: micros(r.Lifetime),
		Renewal: token.Renewal(r.Renewal), FixedEnd: clock.Micro(r.FixedEnd), Idle: micros(r.Idle), Unused: micros(r.Unused),
		BornAt: clock.Micro(r.BornAt), MaxLifetime: micros(r.MaxLifetime), RotateAfter: micros(r.RotateAfter),
		EnforceRotation: r.EnforceRotation != 0, Note: r.Note, RenewedAt: clock.Micro(r.RenewedAt),
		Account: token.Family(r.Account),
	}
	t.Budget, _ = budgetOfText(r.Budget)
	t.Digest = token.DigestOf(r.Digest)
	for i, text := range r.CIDRs {
		if i == 0 && text == observeMark {
			t.Observe = true
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			// A prefix that contains nothing: a list that cannot be read must
			// not turn into "from everywhere".
			p = netip.Prefix{}
		}
		t.CIDRs = append(t.CIDRs, p)
	}
	return t
}

// observeMark before the networks of a token says that they are only observed. A
// version that does not know it takes it for a network that contains nothing.
const observeMark = "observe"

// replyRow is form v1 of a reply.
type replyRow struct {
	Key     []byte `json:"key"`
	Request []byte `json:"request"`
	Ref     string `json:"ref"`
	Sealed  []byte `json:"sealed,omitempty"`
	Until   int64  `json:"until"`
}

func (r *replyRow) spec() *table { return repliesTable }

func (r *replyRow) fields() []any {
	if r.Sealed == nil {
		r.Sealed = []byte{} // the column is NOT NULL
	}
	return []any{&r.Key, &r.Request, &r.Ref, &r.Sealed, &r.Until}
}

func replyToRow(r authority.Reply) *replyRow {
	return &replyRow{Key: r.Key[:], Request: r.Request[:], Ref: r.Ref, Sealed: r.Sealed, Until: clock.Micros(r.Until)}
}

func (r *replyRow) reply() authority.Reply {
	out := authority.Reply{Ref: r.Ref, Sealed: r.Sealed, Until: clock.Micro(r.Until)}
	copy(out.Key[:], r.Key)
	copy(out.Request[:], r.Request)
	return out
}

// key is the row's primary key as a string, for maps.
func key(r row) string {
	switch k := r.fields()[0].(type) {
	case *string:
		return *k
	case *[]byte:
		return string(*k)
	}
	return ""
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
