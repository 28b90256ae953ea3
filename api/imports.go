package api

import (
	"context"
	"time"
)

// ImportToken is a token of an earlier system.
type ImportToken struct {
	User string `json:"user"`
	// SHA256 is of its secret, as 64 hexadecimal digits.
	SHA256 string `json:"sha256"`
	Name   string `json:"name,omitempty"`
	// ExpiresAt is its end there; without one it gets one, 30 to 90 days from now.
	ExpiresAt    *time.Time `json:"expires_at,omitempty"`
	Scopes       []string   `json:"scopes,omitempty"`
	Competitions []string   `json:"competitions,omitempty"`
}

// ImportTokens asks to take over tokens, 500 at most.
type ImportTokens struct {
	Tokens      []ImportToken `json:"tokens"`
	CreateUsers bool          `json:"create_users,omitempty"` // those that do not exist
	DryRun      bool          `json:"dry_run,omitempty"`
}

// ImportedToken is what became of one of them.
type ImportedToken struct {
	User      string     `json:"user"`
	Outcome   string     `json:"outcome"` // imported, known, refused
	TokenID   string     `json:"token_id,omitempty"`
	Name      string     `json:"name,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	NewUser   bool       `json:"new_user,omitempty"`
	Code      string     `json:"code,omitempty"` // why it was refused
	Detail    string     `json:"detail,omitempty"`
	Fix       string     `json:"fix,omitempty"`
}

// Imports is the answer, an item for each token in the order of the request.
type Imports struct {
	DryRun bool            `json:"dry_run"`
	Items  []ImportedToken `json:"items"`
}

// ImportTokens takes over tokens of an earlier system. Only the local
// administrator may.
func (c *Client) ImportTokens(ctx context.Context, r ImportTokens) (Imports, error) {
	return post[Imports](ctx, c, "/v1/tokens/import", r)
}
