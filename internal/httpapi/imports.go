package httpapi

import (
	"context"
	"encoding/hex"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
)

type importIn struct{ Body api.ImportTokens }

func (a *API) importTokens(ctx context.Context, s *policy.Subject, in *importIn) (api.Imports, error) {
	list := make([]authority.Import, len(in.Body.Tokens))
	for i, t := range in.Body.Tokens {
		x := authority.Import{User: t.User, Name: t.Name, Scopes: t.Scopes, Competitions: t.Competitions}
		sum, err := hex.DecodeString(t.SHA256)
		x.Unreadable = err != nil || len(sum) != len(x.Digest.Sum)
		copy(x.Digest.Sum[:], sum)
		if t.ExpiresAt != nil {
			x.ExpiresAt = t.ExpiresAt.UTC()
		}
		list[i] = x
	}
	done, err := a.Authority.ImportTokens(ctx, s, list, authority.ImportOptions{CreateUsers: in.Body.CreateUsers, DryRun: in.Body.DryRun})
	if err != nil {
		return api.Imports{}, err
	}
	out := api.Imports{DryRun: in.Body.DryRun, Items: make([]api.ImportedToken, len(done))}
	for i, d := range done {
		item := api.ImportedToken{User: d.User, Outcome: d.Outcome, NewUser: d.NewUser}
		if d.Refusal != nil {
			f := fault.Of(d.Refusal)
			item.Code, item.Detail, item.Fix = f.Code, f.Detail, f.Fix
		} else {
			item.TokenID, item.Name, item.ExpiresAt = string(d.Token.ID), d.Token.Name, instant(d.Token.FixedEnd)
		}
		out.Items[i] = item
	}
	return out, nil
}
