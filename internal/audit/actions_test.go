package audit

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"slices"
	"strconv"
	"testing"
)

// TestActionsAreAll: the list has every action that is declared.
func TestActionsAreAll(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []Action
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if name, ok := v.Type.(*ast.Ident); ok && name.Name == "Action" {
				text, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				want = append(want, Action(text))
			}
		}
		return true
	})
	have := slices.Clone(Actions)
	slices.Sort(have)
	slices.Sort(want)
	if len(want) < 20 || !slices.Equal(have, want) {
		t.Errorf("known are %q\nand there are %q", have, want)
	}
}
