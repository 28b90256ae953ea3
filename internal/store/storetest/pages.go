package storetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"gradegate/internal/audit"
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
