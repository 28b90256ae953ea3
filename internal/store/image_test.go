package store

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// An image is what encoding/json makes of the row, whatever is in it: the MACs of
// all rows that were ever written rest on that.
func TestImagesAreJSON(t *testing.T) {
	for _, of := range ledgerTables {
		t.Run(of.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				r := of.empty()
				for i, f := range r.fields() {
					name := of.columns[i]
					if rapid.IntRange(0, 3).Draw(t, name) == 0 {
						continue
					}
					switch f := f.(type) {
					case *string:
						*f = anyText().Draw(t, name)
					case *int64:
						*f = rapid.Int64().Draw(t, name)
					case *[]byte:
						*f = rapid.SliceOf(rapid.Byte()).Draw(t, name)
					case *list:
						*f = rapid.SliceOf(anyText()).Draw(t, name)
					}
				}
				want, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				if got := image(r); !bytes.Equal(got, want) {
					t.Fatalf("\n%s, want\n%s", got, want)
				}
			})
		})
	}
}

// A list is read as encoding/json reads it, whatever somebody has put there.
func TestListsAreJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.Custom(func(t *rapid.T) string {
				made, err := list(rapid.SliceOf(anyText()).Draw(t, "list")).Value()
				if err != nil {
					t.Fatal(err)
				}
				return made.(string)
			}),
			rapid.StringMatching(`\["[a",\\\[\] ]*"\]`),
		).Draw(t, "text")
		var got list
		var want []string
		err := got.Scan(text)
		if bad := json.Unmarshal([]byte(text), &want); text != "" && (bad == nil) != (err == nil) {
			t.Fatalf("%s: %v, want %v", text, err, bad)
		}
		if err == nil && !slices.Equal(got, want) {
			t.Fatalf("%s: %q, want %q", text, got, want)
		}
	})
}

// anyText is plain, or holds what JSON escapes, or is no UTF-8 at all.
func anyText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[ -~]*`), rapid.String(), rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	}), rapid.SampledFrom([]string{"<&>", "\u2028\u2029", "\x7f", "\ufffd", "a\"b\\c", "\t\n\x00"}))
}
