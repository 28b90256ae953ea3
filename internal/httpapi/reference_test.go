package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gradegate/internal/fault"
)

// notOfTheAPI are packages whose faults no request meets.
var notOfTheAPI = []string{"cli", "server", "config", "fault", "bundle/pack"}

// TestProblems keeps the list of problems the truth: every fault in the code
// with a code of its own. It is the page that a problem's type leads to, and
// docs/reference/problems.md.
func TestProblems(t *testing.T) {
	list := problemsInCode(t)
	if len(list) < 150 {
		t.Fatalf("only %d problems are found", len(list))
	}
	for _, p := range list {
		if !regexp.MustCompile(`^[a-z0-9_]+$`).MatchString(p.Code) || p.Detail == "" {
			t.Errorf("%+v", p)
		}
	}
	var page bytes.Buffer
	page.WriteString("# Problems\n\nEvery refusal of the API is a problem document (RFC 9457) with one of these codes, which stay as they are; its `fix` says what to do,\n" +
		"with the names that belong to it. `gradegate explain REQUEST_ID` tells how a request was decided. Found in the code; `go test ./internal/httpapi -run Problems -update`\nwrites it anew.\n\n| code | status | what | fix |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, p := range list {
		fmt.Fprintf(&page, "| `%s` | %d | %s | %s |\n", p.Code, p.Status, cell.Replace(p.Detail), cell.Replace(p.Fix))
	}
	for file, want := range map[string][]byte{"problems.json": linewise(t, list), "../../docs/reference/problems.md": page.Bytes()} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(file); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is not what the code says; write it anew: go test ./internal/httpapi -run Problems -update (%v)", file, err)
		}
	}
}

// linewise is JSON with a line for each problem, for those who compare versions.
func linewise(t *testing.T, list []problemText) []byte {
	t.Helper()
	lines := make([]string, len(list))
	for i, p := range list {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = string(text)
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]\n")
}

// TestProblemPage follows the type of a problem to what it means.
func TestProblemPage(t *testing.T) {
	t.Parallel()
	w := build(t)
	refused := w.ask(t, get, "/v1/tokens/nobodys", w.ann, "")
	var problem struct{ Type string }
	if err := json.Unmarshal([]byte(refused.body), &problem); err != nil {
		t.Fatal(err)
	}
	if page := w.ask(t, get, problem.Type, w.ann, ""); page.status != 200 || !strings.Contains(page.body, "token_not_found (404)") || !strings.Contains(page.body, "gradegate token list") {
		t.Errorf("%s: %d %s", problem.Type, page.status, page.body)
	}
	if page := w.ask(t, get, "/problems/nothing_of_that", w.ann, ""); page.status != 404 {
		t.Errorf("%d %s", page.status, page.body)
	}
}

func problemsInCode(t *testing.T) (list []problemText) {
	t.Helper()
	root := filepath.Join("..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
		if slices.ContainsFunc(notOfTheAPI, func(p string) bool { return pkg == p }) || strings.HasSuffix(pkg, "test") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if p, ok := problemAt(n); ok && !slices.ContainsFunc(list, func(q problemText) bool { return q.Code == p.Code && (q.Fix != "" || p.Fix == "") }) {
				list = slices.DeleteFunc(list, func(q problemText) bool { return q.Code == p.Code })
				list = append(list, p)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b problemText) int { return strings.Compare(a.Code, b.Code) })
	return list
}

var kindsByName = map[string]fault.Kind{
	"Internal": fault.Internal, "Invalid": fault.Invalid, "Unauthenticated": fault.Unauthenticated, "Denied": fault.Denied, "NotFound": fault.NotFound,
	"Conflict": fault.Conflict, "TooLarge": fault.TooLarge, "Unsupported": fault.Unsupported, "Limited": fault.Limited, "Unavailable": fault.Unavailable,
	"Mismatched": fault.Mismatched,
}

// problemAt reads fault.New(fault.Kind, "code", "detail", …).…WithFix("fix", …).
func problemAt(n ast.Node) (p problemText, ok bool) {
	call, isCall := n.(*ast.CallExpr)
	if !isCall {
		return p, false
	}
	fix := ""
	for {
		method, isMethod := call.Fun.(*ast.SelectorExpr)
		if !isMethod {
			break
		}
		inner, chained := method.X.(*ast.CallExpr)
		if !chained {
			break
		}
		if method.Sel.Name == "WithFix" && len(call.Args) > 0 {
			fix = literal(call.Args[0])
		}
		call = inner
	}
	method, isMethod := call.Fun.(*ast.SelectorExpr)
	if name, isName := call.Fun.(*ast.Ident); isName && name.Name == "refusal" && len(call.Args) == 3 { // authn's own
		return problemText{Code: literal(call.Args[0]), Status: 401, Detail: literal(call.Args[1]), Fix: literal(call.Args[2])}, true
	}
	if !isMethod {
		return p, false
	}
	if x, isName := method.X.(*ast.Ident); !isName || x.Name != "fault" || method.Sel.Name != "New" && method.Sel.Name != "Wrap" || len(call.Args) < 3 {
		return p, false
	}
	kind, isKind := call.Args[0].(*ast.SelectorExpr)
	code := literal(call.Args[1])
	if !isKind || code == "" || strings.Contains(code, "…") {
		return p, false
	}
	p = problemText{Code: code, Status: statusOf(fault.New(kindsByName[kind.Sel.Name], code, "")), Detail: literal(call.Args[2]), Fix: fix}
	return p, p.Detail != ""
}

var verbs = regexp.MustCompile(`%\+?[a-z]`)

// literal is a string as it stands in the code, with an ellipsis for what is put
// in; only the beginning of one that is put together.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if err != nil {
			return ""
		}
		return verbs.ReplaceAllString(text, "…")
	case *ast.BinaryExpr:
		left, right := literal(e.X), literal(e.Y)
		if right == "" {
			right = "…"
		}
		return left + right
	case *ast.CallExpr:
		if len(e.Args) > 0 {
			return literal(e.Args[0])
		}
	}
	return ""
}
