package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// pages: newest first, each token once, also where several were issued in the
// same instant; and nobody goes on behind somebody else's token.
func pages(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann, ben := Person("ann"), Person("ben")
	all, other := Issued(ann, 7), Token(ben, "n")
	commit(t, s, Add(&ann, all...), audit.TokenIssue)
	commit(t, s, Add(&ben, other), audit.TokenIssue)
	WantPages(t, s.TokensPage, ann.ID, all)
	for _, absent := range []token.ID{other.ID, "tok_none"} {
		_, err := s.TokensPage(t.Context(), ann.ID, absent, 3)
		WantCode(t, err, fault.NotFound, "token_not_found")
	}
	if list, err := s.TokensPage(t.Context(), "usr_none", "", 3); err != nil || len(list) != 0 {
		t.Errorf("a page of nobody: %v, %v", list, err)
	}
}

// among asks every question about some of an owner's tokens: the answer is what
// going through all of them would give, and never somebody else's.
func among(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann, ben := Person("ann"), Person("ben")
	var all []token.Token
	for _, kind := range []token.Kind{token.Personal, token.Session, token.Invite} {
		for _, name := range []string{"laptop", "gpu box"} {
			for state := range 4 {
				k := Token(ann, name)
				k.Kind, k.Family = kind, token.Family("fam_"+name)
				k.Generation = len(all) + 1
				if state&1 != 0 {
					k.Standing, k.Reason, k.RevokedAt = token.Revoked, token.ByOwner, T0
				}
				if state&2 != 0 {
					k.Successor = "tok_after"
				}
				all = append(all, k)
			}
		}
	}
	other := Token(ben, "laptop")
	other.Family = "fam_laptop"
	other.Generation = 1000
	commit(t, s, Add(&ann, all...), audit.TokenIssue)
	commit(t, s, Add(&ben, other), audit.TokenIssue)
	for _, kind := range []token.Kind{0, token.Personal, token.Session, token.Invite, token.Service} {
		for _, name := range []string{"", "laptop", "gpu box", "none"} {
			for _, family := range []token.Family{"", "fam_laptop", "fam_none"} {
				for _, open := range []bool{false, true} {
					q := authority.Among{Kind: kind, Name: name, Family: family, Open: open}
					got, err := s.TokensOf(t.Context(), ann.ID, q)
					must(t, err)
					want := slices.DeleteFunc(slices.Clone(all), func(k token.Token) bool { return !q.Has(&k) })
					if d := gocmp.Diff(want, got, Same); d != "" {
						t.Errorf("%+v: %s", q, d)
					}
				}
			}
		}
	}
}

// oneOfAName: a token is not inserted beside another one of its owner, kind and
// name that is in use, also if that came between the decision and its commit.
func oneOfAName(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann, ben := Person("ann"), Person("ben")
	k := Token(ann, "laptop")
	inUse := func(t *token.Token) bool { return t.Reason == "" }
	try := func(owner *principal.Principal, made token.Token, more ...authority.TokenChange) error {
		d := Add(owner, made)
		d.Tokens = append(more, d.Tokens...)
		d.Named = inUse
		_, err := s.Commit(t.Context(), d, Event(audit.TokenIssue, "x"))
		return err
	}
	session := Token(ann, "laptop")
	session.Kind = token.Session
	must(t, try(&ann, k))
	must(t, try(nil, Token(ann, "gpu box")))
	must(t, try(nil, session))               // another kind
	must(t, try(&ben, Token(ben, "laptop"))) // another owner
	if err := try(nil, Token(ann, "laptop")); !errors.Is(err, authority.ErrMoved) {
		t.Fatalf("a second laptop: %v", err)
	}
	revoked, _ := k.Revoke(token.Replaced, token.Keep, T0)
	must(t, try(nil, Token(ann, "laptop"), authority.TokenChange{Old: &k, New: revoked}))
	left, err := s.TokensOf(t.Context(), ann.ID, authority.Among{Kind: token.Personal, Name: "laptop", Open: true})
	if must(t, err); len(left) != 1 {
		t.Errorf("%d laptops are open", len(left))
	}
}

// Issued are n tokens of the owner, some of them of the same instant.
func Issued(owner principal.Principal, n int) []token.Token {
	all := make([]token.Token, n)
	for i := range all {
		all[i] = Token(owner, fmt.Sprint("n", i))
		all[i].IssuedAt = T0.Add(time.Duration(i/2*5%3) * time.Hour)
	}
	return all
}

// WantPages fails unless the pages of an owner are all of its tokens, newest first.
func WantPages(t *testing.T, page func(context.Context, principal.ID, token.ID, int) ([]token.Token, error), owner principal.ID, want []token.Token) {
	t.Helper()
	slices.SortFunc(want, func(x, y token.Token) int {
		return cmp.Or(y.IssuedAt.Compare(x.IssuedAt), strings.Compare(string(y.ID), string(x.ID)))
	})
	var got []token.Token
	for last := token.ID(""); ; last = got[len(got)-1].ID {
		list, err := page(t.Context(), owner, last, 3)
		must(t, err)
		if got = append(got, list...); len(list) < 3 {
			break
		}
	}
	if d := gocmp.Diff(want, got, Same); d != "" {
		t.Error("pages (-want +got):", d)
	}
}
