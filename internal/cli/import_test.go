package cli

import (
	"slices"
	"strings"
	"testing"

	"gradegate/internal/fault"
)

// A row without a digest is refused by itself, by the server, and what stands there
// does not leave this machine: it may be a secret. A column without any is the
// wrong column.
func TestImportRows(t *testing.T) {
	t.Parallel()
	header, digest := []string{"user", "sha256"}, strings.Repeat("Ab", 32)
	list, err := tokensOf(header, [][]string{{"ann", digest}, {"bob", "hunter2-hunter2-hunter2"}, {"eve", digest[2:]}, {"carol"}}, columns{})
	var got []string
	for _, x := range list {
		got = append(got, x.User+" "+x.SHA256)
	}
	if want := []string{"ann " + strings.ToLower(digest), "bob ", "eve ", "carol "}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q %v", got, err)
	}
	if _, err := tokensOf(header, [][]string{{"ann", "x"}, {"bob", ""}}, columns{}); fault.CodeOf(err) != "sha256_invalid" {
		t.Error(err)
	}
}
