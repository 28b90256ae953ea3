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
var notOfTheAPI = []string{"cli", "server", "config", "bundle/pack"}

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
			for _, p := range problemsAt(n) {
				if !slices.ContainsFunc(list, func(q problemText) bool { return q.Code == p.Code && (q.Fix != "" || p.Fix == "") }) {
					list = slices.DeleteFunc(list, func(q problemText) bool { return q.Code == p.Code })
					list = append(list, p)
				}
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

// problemsAt reads fault.New(fault.Kind, "code", "detail", …).…WithFix("fix", …),
// and what packages call to the same end.
func problemsAt(n ast.Node) []problemText {
	call, isCall := n.(*ast.CallExpr)
	if !isCall {
		return nil
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
	args := make([]string, 4)
	for i, a := range call.Args[:min(len(call.Args), len(args))] {
		args[i] = literal(a)
	}
	p := problemText{Detail: args[2], Fix: fix, Code: args[1]}
	switch name := called(call); {
	case (name == "fault.New" || name == "fault.Wrap" || name == "Wrap") && len(call.Args) > 2: // the last within fault
		p.Status = statusOfKind(call.Args[0], p.Code)
	case name == "refusal" && len(call.Args) == 3: // of authn
		p = problemText{Code: args[0], Status: 401, Detail: args[1], Fix: args[2]}
	case name == "badJSON":
		p = problemText{Code: args[0], Status: 400, Detail: args[1], Fix: args[2]}
	case name == "exceeded": // a competition's quota
		p.Code, p.Status, p.Detail = "quota_exceeded", 429, args[0]
	case name == "b.refusal" && len(call.Args) > 1 && !strings.HasPrefix(fix, "…"): // a budget
		p.Code, p.Detail = "budget_exceeded", args[1]
		p.Status = statusOfKind(call.Args[0], p.Code)
	case name == "f.bad":
		return problemsOfTables(args[0], args[1], fix)
	case name == "f.tooLarge":
		return problemsOfTables("too_large", args[0], "Write one row for each id of the test file, and nothing else.")
	default:
		return nil
	}
	if p.Status == 0 || p.Code == "" || p.Detail == "" || strings.Contains(p.Code, "…") {
		return nil
	}
	return []problemText{p}
}

// problemsOfTables are those of a file of predictions and of the hidden labels,
// which are read alike.
func problemsOfTables(code, detail, fix string) (list []problemText) {
	if detail == "" {
		return nil
	}
	for what, never := range map[string][]string{
		"predictions": {"not_binary", "one_class"},
		"labels":      {"extra_rows", "missing_rows", "not_a_probability"},
	} {
		if !slices.Contains(never, code) {
			list = append(list, problemText{what + "_" + code, 400, "The file of " + what + " " + detail + ".", fix})
		}
	}
	return list
}

// called is the name of a function as it is written: "f" or "x.f".
func called(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, isName := f.X.(*ast.Ident); isName {
			return x.Name + "." + f.Sel.Name
		}
	}
	return ""
}

func statusOfKind(e ast.Expr, code string) int {
	name := ""
	switch e := e.(type) {
	case *ast.SelectorExpr:
		name = e.Sel.Name
	case *ast.Ident:
		name = e.Name
	}
	kind, known := kindsByName[name]
	if !known {
		return 0
	}
	return statusOf(fault.New(kind, code, ""))
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
