package store

import (
	"context"

	"gradegate/internal/clock"
	"gradegate/internal/principal"
)

// consentRow is form v1 of a consent. Members are never renamed or reordered.
type consentRow struct {
	ID           string `json:"id"`
	Version      int64  `json:"version"`
	Giver        string `json:"giver"`
	Taker        string `json:"taker"`
	GiverEpoch   int64  `json:"giver_epoch"`
	TakerEpoch   int64  `json:"taker_epoch"`
	Credentials  int64  `json:"giver_credentials"`
	Via          string `json:"via"`
	Competitions list   `json:"competitions,omitempty"`
	GivenAt      int64  `json:"given_at"`
	Until        int64  `json:"until"`
	EndedAt      int64  `json:"ended_at,omitempty"`
}

func (r *consentRow) spec() *table { return consentsTable }

func (r *consentRow) fields() []any {
	return []any{&r.ID, &r.Version, &r.Giver, &r.Taker, &r.GiverEpoch, &r.TakerEpoch, &r.Credentials, &r.Via, &r.Competitions, &r.GivenAt, &r.Until, &r.EndedAt}
}

func consentToRow(c principal.Consent) *consentRow {
	return &consentRow{
		ID: c.ID, Version: c.Version, Giver: string(c.Giver), Taker: string(c.Taker), GiverEpoch: c.GiverEpoch, TakerEpoch: c.TakerEpoch,
		Credentials: c.GiverCredentials, Via: c.Via, Competitions: c.Competitions, GivenAt: clock.Micros(c.GivenAt), Until: clock.Micros(c.Until), EndedAt: clock.Micros(c.EndedAt),
	}
}

func (r *consentRow) consent() principal.Consent {
	return principal.Consent{
		ID: r.ID, Version: r.Version, Giver: principal.ID(r.Giver), Taker: principal.ID(r.Taker), GiverEpoch: r.GiverEpoch, TakerEpoch: r.TakerEpoch,
		GiverCredentials: r.Credentials, Via: r.Via, Competitions: r.Competitions, GivenAt: clock.Micro(r.GivenAt), Until: clock.Micro(r.Until), EndedAt: clock.Micro(r.EndedAt),
	}
}

var consentsOf = consentsTable.selectAll + " WHERE giver = $1 OR taker = $1 ORDER BY id"

// Consents implements authority.Store.
func (t *Tokens) Consents(ctx context.Context, who principal.ID) ([]principal.Consent, error) {
	rows, err := many(ctx, t, consentsOf, consentsTable, string(who))
	if err != nil {
		if t.cfg.Memory != nil && isTrouble(err) {
			return t.cfg.Memory.ConsentsOf(who), nil
		}
		return nil, err
	}
	out := make([]principal.Consent, len(rows))
	for i, r := range rows {
		out[i] = t.acked.consent(r.(*consentRow).consent())
	}
	return out, nil
}
