package store

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// member is how one column of a row is written in its image.
type member struct {
	name string // with what goes before and after: ,"name":
	omit bool   // it is left out while it is empty
}

// membersOf reads from a row's type how its columns are written.
func membersOf(r row) []member {
	t := reflect.TypeOf(r).Elem()
	out := make([]member, t.NumField())
	for i := range out {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out[i] = member{name: `"` + name + `":`, omit: options == "omitempty"}
	}
	return out
}

// image is the row as JSON with its members in a fixed order: form v1. It is
// what the ledger holds, what the MAC is over, and what the digest sums.
func image(r row) []byte { return appendImage(nil, r.spec(), r.fields()) }

// appendImage is image for columns, pointers to which are in fields. It writes
// what encoding/json writes, to the byte: at a start it is done for every row.
func appendImage(b []byte, t *table, fields []any) []byte {
	b = append(b, '{')
	for i, m := range t.members {
		if m.omit && empty(fields[i]) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(b, m.name...)
		switch v := fields[i].(type) {
		case *string:
			b = appendString(b, *v)
		case *int64:
			b = strconv.AppendInt(b, *v, 10)
		case *[]byte:
			b = appendBytes(b, *v)
		case *list:
			b = appendList(b, *v)
		default:
			panic("store: a row has a column of a type that images do not know")
		}
	}
	return append(b, '}')
}

func empty(field any) bool {
	switch v := field.(type) {
	case *string:
		return *v == ""
	case *int64:
		return *v == 0
	case *[]byte:
		return len(*v) == 0
	case *list:
		return len(*v) == 0
	}
	return false
}

// appendString writes most strings as they are; for what has to be escaped there
// is encoding/json.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			text, err := json.Marshal(s)
			if err != nil {
				panic("store: " + err.Error()) // a string can be written
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, "null"...)
	}
	return append(base64.StdEncoding.AppendEncode(append(b, '"'), v), '"')
}

func appendList(b []byte, l list) []byte {
	if l == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, s := range l {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}
