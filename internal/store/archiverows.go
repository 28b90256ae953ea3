package store

import (
	"encoding/json"
	"net/netip"

	"gradegate/internal/clock"
	"gradegate/internal/maintenance"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// archiveRow is form v1 of a token in the archive. Members are never renamed or
// reordered. In the ledger it says as well that its token is no longer among
// the tokens.
type archiveRow struct {
	ID         string `json:"id"`
	Version    int64  `json:"version"`
	Digest     []byte `json:"digest"`
	Owner      string `json:"owner,omitempty"`
	Name       string `json:"name,omitempty"`
	Kind       string `json:"kind,omitempty"`
	EndedAt    int64  `json:"ended_at"`
	Why        string `json:"why"`
	ArchivedAt int64  `json:"archived_at"`
	Segment    string `json:"segment,omitempty"`
	Body       string `json:"body,omitempty"`
}

func (r *archiveRow) spec() *table { return archiveTable }

func (r *archiveRow) fields() []any {
	return []any{&r.ID, &r.Version, &r.Digest, &r.Owner, &r.Name, &r.Kind, &r.EndedAt, &r.Why, &r.ArchivedAt, &r.Segment, &r.Body}
}

// archiveBody is what nothing searches for. It is text in one column, so that
// a tombstone has none of it.
type archiveBody struct {
	Token   tokenRow `json:"token"`
	UsedAt  int64    `json:"used_at,omitempty"`
	Address string   `json:"used_from,omitempty"`
	Agent   string   `json:"used_with,omitempty"`
	Uses    int64    `json:"uses,omitempty"`
}

func archivedToRow(a maintenance.Archived) *archiveRow {
	r := &archiveRow{
		ID: string(a.Token.ID), Version: a.Version, Digest: a.Token.Digest.Bytes(), EndedAt: clock.Micros(a.EndedAt), Why: string(a.Why),
		ArchivedAt: clock.Micros(a.ArchivedAt), Segment: a.Segment,
	}
	if a.Segment != "" {
		return r
	}
	r.Owner, r.Name, r.Kind = string(a.Token.Owner), a.Token.Name, a.Token.Kind.String()
	b := archiveBody{Token: *tokenToRow(a.Token), UsedAt: clock.Micros(a.Use.At), Agent: a.Use.Agent, Uses: a.Use.Count}
	if a.Use.Addr.IsValid() {
		b.Address = a.Use.Addr.String()
	}
	text, err := json.Marshal(b)
	if err != nil {
		panic("store: " + err.Error()) // strings, numbers and bytes always encode
	}
	r.Body = string(text)
	return r
}

func (r *archiveRow) archived() maintenance.Archived {
	a := maintenance.Archived{
		Version: r.Version, EndedAt: clock.Micro(r.EndedAt), Why: token.State(r.Why), ArchivedAt: clock.Micro(r.ArchivedAt), Segment: r.Segment,
	}
	var b archiveBody
	if json.Unmarshal([]byte(r.Body), &b) == nil {
		a.Token = b.Token.token()
		a.Use = token.Use{At: clock.Micro(b.UsedAt), Agent: b.Agent, Count: b.Uses}
		a.Use.Addr, _ = netip.ParseAddr(b.Address) // an unknown address stays unknown
	} else {
		a.Token = token.Token{Name: r.Name, Owner: principal.ID(r.Owner), Kind: token.ParseKind(r.Kind)}
	}
	a.Token.ID = token.ID(r.ID)
	a.Token.Digest = token.DigestOf(r.Digest)
	return a
}

// holdRow is form v1 of a legal hold. Members are never renamed or reordered.
type holdRow struct {
	ID        string `json:"id"`
	Version   int64  `json:"version"`
	Kind      string `json:"kind"`
	Subject   string `json:"subject"`
	Name      string `json:"name"`
	Reason    string `json:"reason"`
	By        string `json:"made_by"`
	At        int64  `json:"made_at"`
	Until     int64  `json:"until,omitempty"`
	RemovedAt int64  `json:"removed_at,omitempty"`
	RemovedBy string `json:"removed_by,omitempty"`
}

func (r *holdRow) spec() *table { return holdsTable }

func (r *holdRow) fields() []any {
	return []any{&r.ID, &r.Version, &r.Kind, &r.Subject, &r.Name, &r.Reason, &r.By, &r.At, &r.Until, &r.RemovedAt, &r.RemovedBy}
}

func holdToRow(h maintenance.Hold) *holdRow {
	return &holdRow{
		ID: h.ID, Version: h.Version, Kind: h.Kind, Subject: h.Subject, Name: h.Name, Reason: h.Reason, By: h.By, At: clock.Micros(h.At),
		Until: clock.Micros(h.Until), RemovedAt: clock.Micros(h.RemovedAt), RemovedBy: h.RemovedBy,
	}
}

func (r *holdRow) hold() maintenance.Hold {
	return maintenance.Hold{
		ID: r.ID, Version: r.Version, Kind: r.Kind, Subject: r.Subject, Name: r.Name, Reason: r.Reason, By: r.By, At: clock.Micro(r.At),
		Until: clock.Micro(r.Until), RemovedAt: clock.Micro(r.RemovedAt), RemovedBy: r.RemovedBy,
	}
}
