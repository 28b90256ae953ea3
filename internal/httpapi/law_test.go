package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"gradegate/internal/fault"
)

// FuzzJSON: what passes is JSON that encoding/json reads, without a member
// twice, and reading it costs a bounded amount.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":{"a":[1,"x",null]}}`, `{"a":1,"a":2}`, `[[[[]]]]`, `{"a":1}x`, "", "null", `"\u0061"`, `{"a":1,"\u0061":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := checkJSON(data, 100)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatalf("%q passed and is no JSON: %v", data, err)
		}
		again, err := json.Marshal(v)
		if err != nil || strings.Count(string(again), ":") > strings.Count(string(data), ":") {
			t.Fatalf("%q became %q", data, again)
		}
		// Nothing was lost: as many members as were written.
		if o, ok := v.(map[string]any); ok && countMembers(o) > 100 {
			t.Fatalf("%d members passed", countMembers(o))
		}
	})
}

func countMembers(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		n = len(v)
		for _, e := range v {
			n += countMembers(e)
		}
	case []any:
		for _, e := range v {
			n += countMembers(e)
		}
	}
	return n
}

// FuzzPath: a path that passes is the one that every other program would make
// of it, and the mux takes it as it is.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/v1/whoami", "/v1/../x", "/a%2fb", "/%61", "/é", "/a b", "/a;b", "//", "/a/", "/.a", "/...", "/%e9", "/a%25b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil || !canonical(u) {
			return
		}
		clean := path.Clean(u.Path)
		if clean != u.Path && clean+"/" != u.Path {
			t.Fatalf("%q is read as %q too", u.Path, clean)
		}
		lower := strings.ToLower(u.EscapedPath())
		for _, bad := range []string{"%2e", "%2f", "%5c", "%3b", "%00", "\\", ";"} {
			if strings.Contains(lower, bad) {
				t.Fatalf("%q holds %s", lower, bad)
			}
		}
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
		if _, pattern := mux.Handler(&http.Request{Method: get, URL: u, Host: "x"}); pattern != "/" {
			t.Fatalf("the mux redirects %q", s)
		}
	})
}

// FuzzCredential: whatever the header, there is an answer, and it is no part
// of the header unless the scheme was understood.
func FuzzCredential(f *testing.F) {
	f.Add("Bearer x")
	f.Add("Basic eDp5")
	f.Add("basic")
	f.Fuzz(func(t *testing.T, v string) {
		text, err := credential(http.Header{"Authorization": {v}})
		if err != nil && (text != "" || fault.KindOf(err) != fault.Unauthenticated) {
			t.Fatalf("%q: %q %v", v, text, err)
		}
	})
}
