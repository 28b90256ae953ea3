//go:build seededbugs

package life

import (
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// edit replaces a text that a source file has exactly once.
type edit struct{ file, find, put string }

// bug is a mistake that somebody could make, and the test that has to see it.
type bug struct {
	name  string
	edits []edit
	pkg   string // of the test; empty: the model's
	run   string
}

const (
	clocks   = "internal/token/clocks.go"
	trans    = "internal/token/transitions.go"
	authent  = "internal/authn/authenticate.go"
	address  = "internal/httpapi/address.go"
	credence = "internal/httpapi/credential.go"
)

// bugs are mistakes of which each would have passed a careless review.
var bugs = []bug{
	{name: "expiry only by a sweeper", edits: []edit{
		{clocks, `case end.Clock == "" || now.Before(end.At):`, `case end.Clock == "" || now.Before(end.At) || true:`},
	}},
	{name: "grace not clipped", edits: []edit{
		{trans, `if !end.IsZero() && end.Before(old.GraceUntil) {`, `if !end.IsZero() && false {`},
	}},
	{name: "two successors", edits: []edit{
		{"internal/authority/rotate.go", `if old.Successor != "" {`, `if old.Successor != "" && r.ReplaceUnused {`},
	}},
	{name: "widened child", edits: []edit{
		{"internal/policy/policy.go", `if !slices.Contains(granted, s) {`, `if !slices.Contains(granted, s) && false {`},
	}},
	{name: "idle runs on in an outage", edits: []edit{
		{"internal/token/terms.go", `end = end.Add(s.Until.Sub(begin))`, `_ = begin`},
	}},
	{name: "a clock set back revives", edits: []edit{
		{"internal/clock/clock.go", "\t\tif now <= mark {", "\t\tif now <= mark && false {"},
	}},
	{name: "left-most forwarded address", pkg: "./internal/httpapi", run: "^TestClientAddress$", edits: []edit{
		{address, `return plain(p.list.ClientIP(h, ""))`, `return plain(strings.TrimSpace(strings.Split(h.Get(p.header), ",")[0]))`},
	}},
	{name: "mapped IPv6 is another address", pkg: "./internal/authn", run: "^TestAddressRule$", edits: []edit{
		{"internal/policy/level.go", `addr = addr.Unmap().WithZone("")`, `addr = addr.WithZone("")`},
	}},
	{name: "negative answer cached", edits: []edit{
		{authent, "import (\n", "import (\n\t\"sync\"\n"},
		{authent, "func authenticates(k token.Kind) bool {\n", "var remembered sync.Map\n\nfunc authenticates(k token.Kind) bool {\n"},
		{authent, "\tvar record held\n\tknown := t.find(p.Public, &record)\n", `	if old, ok := remembered.Load(p.Digest); ok {
		return s, Ref{}, old.(error)
	}
	var record held
	known := t.find(p.Public, &record)
`},
		{authent, "\tdefault:\n\t\ts.Until, s.By", "\tdefault:\n\t\tremembered.Store(p.Digest, error(byState[state]))\n\t\ts.Until, s.By"},
	}},
	{name: "replayed secret after ten minutes", edits: []edit{
		{"internal/store/read.go", `if r.(*replyRow).Until <= clock.Micros(now) {`, `if r.(*replyRow).Until <= clock.Micros(now) && false {`},
	}},
	{name: "expired-read of a revoked token", edits: []edit{
		{clocks, `return StateRevoked, Ending{}`, `return StateRevoked, t.Nearest(h, past, now)`},
		{clocks, `return (s == StateExpired || s == StateIdleExpired) && t.Standing == Standard &&`, `return (s == StateExpired || s == StateIdleExpired || s == StateRevoked) &&`},
	}},
	{name: "epoch not checked", edits: []edit{
		{clocks, `t.Epochs.Credentials < h.Epochs.Credentials, `, ``},
	}},
	{name: "rotation puts the maximum off", edits: []edit{
		{trans, "\tif r.NewFamily != \"\" {\n", "\tsuccessor.BornAt = now\n\tif r.NewFamily != \"\" {\n"},
	}},
	{name: "a valid token refused by a spent budget", pkg: "./internal/httpapi", run: "^TestFailureBudget$", edits: []edit{
		{credence, "\tp, err := c.api.Table.Read(text)\n", `	if d, _ := c.api.Failures.Fail(c.addr, c.now); !d.Allowed {
		return errFailures
	}
	p, err := c.api.Table.Read(text)
`},
	}},

	{name: "a valid token refused by a block", pkg: "./internal/httpapi", run: "^TestAutomaticBlock$", edits: []edit{
		{credence, "\tp, err := c.api.Table.Read(text)\n", `	if until := c.api.Blocks.Failed(c.addr, c.now); !until.IsZero() {
		return errBlocked
	}
	p, err := c.api.Table.Read(text)
`},
	}},

	{name: "a service without owners goes on", edits: []edit{
		{clocks, `if standing == Standard && h.Quarantines(now) {`, `if standing == Standard && h.Quarantines(now) && false {`},
	}},
	{name: "a service is not looked at when a person changes", edits: []edit{
		{"internal/authn/owners.go", "\tt.recompute(touched)\n", ""},
	}},
	{name: "a leaver still answers for a service", edits: []edit{
		{"internal/principal/service.go", `if (named || member) && who.Status == Active {`, `if named || member {`},
	}},
	{name: "an owner's token is asked when it is quarantined", edits: []edit{
		{"internal/policy/policy.go", `r.CoOwned && s.Mode == "")`, `r.CoOwned && s.Mode != "x")`},
	}},
	{name: "a withdrawal does not wait", pkg: "./internal/grading", run: "^TestNoJobAfterWithdrawal$", edits: []edit{
		{"internal/authority/consents.go", "\t\t\ta.table.Drain(c.Giver)\n\t\t\treturn a.consent(ctx, ended)\n", "\t\t\treturn a.consent(ctx, ended)\n"},
	}},
	{name: "the gate of who consented is not held", pkg: "./internal/authn", run: "^TestNoAdmissionAfterWithdrawal$", edits: []edit{
		{"internal/authn/consents.go", "\tfirst, second := t.owner(s.Principal.ID), t.owner(giver)\n", "\tfirst, second := t.owner(s.Principal.ID), new(owner)\n"},
	}},
	{name: "a removed owner makes one more token", pkg: "./internal/authority", run: "^TestNoMintAfterRemoval$", edits: []edit{
		{"internal/authority/authority.go", `&& !a.answersFor(s, t.New.Owner) {`, `&& false {`},
	}},

	// Found by the model in earlier versions.
	{name: "a report wakes a suspended token", edits: []edit{
		{trans, "\tcase Standard:\n\t\tt.Standing, t.Reason = Quarantined, \"\"\n\tcase Suspended:\n\t\tif t.Reason == ByAdmin {\n\t\t\treturn t, nil\n\t\t}\n\t\tt.Reason = ByAdmin\n",
			"\tcase Standard, Suspended:\n\t\tt.Standing, t.Reason = Quarantined, \"\"\n"},
	}},
	{name: "what a start replays is not stored", edits: []edit{
		{"internal/authn/table.go", "\tt.ApplyUse(u)\n\tt.KeepUses([]LastUse{u})\n", "\tt.ApplyUse(u)\n"},
	}},
	{name: "a successor keeps the renewal of its predecessor", edits: []edit{
		{trans, `successor.GraceUntil, successor.RenewedAt, successor.IssuedAt = time.Time{}, time.Time{}, now`, `successor.GraceUntil, successor.IssuedAt = time.Time{}, now`},
	}},

	// In a race.
	{name: "a version that moved is overwritten", run: "^TestWriters$", edits: []edit{
		{"internal/store/apply.go", "if versionOf(old.row) != version {", "if versionOf(old.row) != version && false {"},
	}},
	{name: "acknowledged before the table knows", run: "^TestWriters$", edits: []edit{
		{"internal/store/writer.go", "\t\tw.t.tell(b.ops[i].change())\n", "\t\tgo w.t.tell(b.ops[i].change())\n"},
	}},
}

// histories are more than the least visible of the bugs needs, from one seed.
const histories = "200"

// A test is worth what it finds: each of the bugs is put into the source, as
// the compiler sees it, and has to be found.
func TestSeededBugs(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("none", func(t *testing.T) {
		if out, failed := (bug{}).test(t, root); failed {
			t.Fatalf("the same histories fail without any bug:\n%s", out)
		}
	})
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			out, failed := b.test(t, root)
			switch {
			case !failed:
				t.Fatal("nobody noticed")
			case !strings.Contains(out, "--- FAIL: Test"):
				t.Fatalf("it was not a test that failed:\n%s", out)
			}
			t.Log(reason(out))
		})
	}
}

// test runs the test that has to see the bug, with the bug in place.
func (b bug) test(t *testing.T, root string) (out string, failed bool) {
	t.Helper()
	args := []string{"test", "-count=1", "-vet=off", "-overlay=" + b.overlay(t, root)}
	if b.pkg != "" {
		args = append(args, "-run="+b.run, b.pkg)
	} else {
		args = append(args, "-run="+cmp.Or(b.run, "^TestLife$"), "./test/life", "-rapid.seed=1", "-rapid.nofailfile", "-rapid.shrinktime=0")
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "SEQUENCES="+histories)
	text, err := cmd.CombinedOutput()
	return string(text), err != nil
}

// overlay makes the mutated copies and the file that names them. A text that is
// no longer there is a failure, so that the list cannot rot.
func (b bug) overlay(t *testing.T, root string) string {
	dir, changed := t.TempDir(), map[string]string{}
	for _, e := range b.edits {
		text, ok := changed[e.file]
		if !ok {
			source, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(source)
		}
		if n := strings.Count(text, e.find); n != 1 {
			t.Fatalf("%s has %d times, and not once:\n%s", e.file, n, e.find)
		}
		changed[e.file] = strings.Replace(text, e.find, e.put, 1)
	}
	replace := map[string]string{}
	for file, text := range changed {
		copied := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = copied
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reason is the first thing that the failed test says.
func reason(out string) string {
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return out
}
