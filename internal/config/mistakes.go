package config

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"gradegate/internal/fault"
)

// fileMistake tells the first thing that is wrong with a configuration file, by
// its line and its key. For a key that does not exist, "unknown" and "keys" in
// the fault say what was written and what could have been.
func fileMistake(file string, data []byte, err error) error {
	bad := func(detail string) *fault.Error {
		return fault.Wrap(fault.Invalid, "config_invalid", file+": "+detail, err).
			WithFix("Mend %s. Without a file, gradegate check-config lists every setting.", file)
	}
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) == nil && len(doc.Content) == 1 {
		if m := wrongIn(doc.Content[0], reflect.TypeFor[Config](), ""); m != nil {
			f := bad(fmt.Sprintf("line %d: %s", m.line, m.text))
			if m.unknown != "" {
				f = f.With("unknown", m.unknown).With("keys", m.keys)
			}
			return f
		}
	}
	return bad(sentence(err))
}

// wrong is a mistake at a place of the file.
type wrong struct {
	line    int
	text    string
	unknown string
	keys    []string
}

// wrongIn looks for the first mistake in a block of keys; prefix is its path.
func wrongIn(block *yaml.Node, t reflect.Type, prefix string) *wrong {
	block = meant(block)
	if block.Kind == yaml.ScalarNode && block.Tag == "!!null" {
		return nil // a key with nothing under it
	}
	if block.Kind != yaml.MappingNode {
		return &wrong{line: block.Line, text: cmp.Or(strings.TrimSuffix(prefix, "."), "what stands there") + " does not fit (a block of keys is wanted)."}
	}
	members, keys := map[string]reflect.Type{}, []string{}
	for i := range t.NumField() {
		key := t.Field(i).Tag.Get("yaml")
		members[key], keys = t.Field(i).Type, append(keys, key)
	}
	for i := 0; i+1 < len(block.Content); i += 2 {
		key, value := block.Content[i], block.Content[i+1]
		member, ok := members[key.Value]
		switch {
		case !ok:
			text := fmt.Sprintf("there is no setting %q", key.Value)
			if prefix != "" {
				text += " in " + strings.TrimSuffix(prefix, ".")
			}
			return &wrong{key.Line, text + ".", key.Value, keys}
		case member.Kind() == reflect.Struct:
			if m := wrongIn(value, member, prefix+key.Value+"."); m != nil {
				return m
			}
		default:
			if text := unfit(value, member); text != "" {
				return &wrong{line: value.Line, text: prefix + key.Value + ": " + text}
			}
		}
	}
	return nil
}

// meant is what an alias stands for, or the node itself.
func meant(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// unfit says why a value is none of a setting's, or "".
func unfit(value *yaml.Node, t reflect.Type) string {
	to := reflect.New(t)
	if u, ok := to.Interface().(encoding.TextUnmarshaler); ok {
		// Asked itself, since the decoder would wrap what it says.
		value = meant(value)
		if value.Kind != yaml.ScalarNode {
			return "one value is wanted."
		}
		if err := u.UnmarshalText([]byte(value.Value)); err != nil {
			return err.Error() + "."
		}
		return ""
	}
	err := value.Decode(to.Interface())
	if err == nil {
		return ""
	}
	return lineOf.ReplaceAllString(sentence(err), "")
}

var (
	noField = regexp.MustCompile(`field (\S+) not found in type [^\n]*`)
	noValue = regexp.MustCompile("cannot unmarshal !!\\w+ (`[^`]*`)? ?into (\\S+)[^\n]*")
	spaces  = regexp.MustCompile(`\s*\n\s*`)
	lineOf  = regexp.MustCompile(`^line \d+: `)
)

// typeWords are Go's names of what a setting holds, in ours.
var typeWords = map[string]string{"int": "a whole number", "bool": "true or false", "string": "text", "[]string": "a list such as [a, b]"}

// sentence turns the decoder's words, which speak of Go types, into ours.
func sentence(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:")
	text = noField.ReplaceAllString(text, "there is no setting $1")
	text = noValue.ReplaceAllStringFunc(text, func(found string) string {
		m := noValue.FindStringSubmatch(found)
		return cmp.Or(m[1], "what stands there") + " does not fit (" + cmp.Or(typeWords[m[2]], m[2]) + " is wanted)"
	})
	return strings.TrimPrefix(spaces.ReplaceAllString(text, "; "), "; ") + "."
}
