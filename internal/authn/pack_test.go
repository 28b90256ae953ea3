package authn

import (
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"gradegate/internal/budget"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

var same = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})}

// anyToken draws a token with any of its fields set or not, whatever they mean.
// A field that is new is set as well, so that it cannot be forgotten in pack.
func anyToken(t *rapid.T, id token.ID) token.Token {
	k := token.Token{ID: id}
	v := reflect.ValueOf(&k).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name == "ID" || name == "Version" || rapid.IntRange(0, 3).Draw(t, name) == 0 {
			continue
		}
		set(t, v.Field(i), name)
	}
	if rapid.Bool().Draw(t, "one of our families") {
		k.Family = token.Family("fam_" + rapid.StringMatching(`[0-9a-hjkmnp-tv-z]{26}`).Draw(t, "family"))
	}
	return k
}

func set(t *rapid.T, f reflect.Value, name string) {
	switch f.Interface().(type) {
	case time.Time:
		f.Set(reflect.ValueOf(time.UnixMicro(rapid.Int64Range(1, 1<<52).Draw(t, name)).UTC()))
	case token.Digest:
		f.Set(reflect.ValueOf(token.Digest{
			Pepper: rapid.Byte().Draw(t, name), Sum: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name)),
		}))
	case budget.Budget:
		f.Set(reflect.ValueOf(budget.Budget{GPU: time.Duration(rapid.Int64().Draw(t, name)), Per: time.Duration(rapid.Int64().Draw(t, name)), Jobs: rapid.Int().Draw(t, name)}))
	case principal.Epochs:
		f.Set(reflect.ValueOf(principal.Epochs{Credentials: rapid.Int64().Draw(t, name), Person: rapid.Int64().Draw(t, name)}))
	case []netip.Prefix:
		f.Set(reflect.ValueOf([]netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix(fmt.Sprintf("2001:db8::/%d", rapid.IntRange(32, 128).Draw(t, name))), {},
		}))
	case []string:
		f.Set(reflect.ValueOf(rapid.SliceOf(rapid.String()).Draw(t, name)))
	default:
		switch f.Kind() {
		case reflect.String:
			f.SetString(rapid.String().Draw(t, name))
		case reflect.Bool:
			f.SetBool(rapid.Bool().Draw(t, name))
		case reflect.Uint8:
			f.SetUint(rapid.Uint64Range(0, 255).Draw(t, name))
		case reflect.Int, reflect.Int64:
			f.SetInt(rapid.Int64().Draw(t, name))
		default:
			panic("a token has a field of a type that this test does not know: " + name)
		}
	}
}

// A token comes out of memory as it went in, and so does its use, however often
// either was replaced: the table against a plain map.
func TestTableKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := New(func() time.Time { return t0 }, 0, policy.Rules{})
		tokens, uses := map[token.ID]token.Token{}, map[token.ID]token.Use{}
		// Two that fall on the same part, and a third.
		ids := []token.ID{"tok_000000000001", "tok_000999999999", "tok_zzzzzzzzzzzz"}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "id")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				k := anyToken(t, id)
				k.Version = rapid.Int64Range(1, 100).Draw(t, "version")
				tab.Apply(Change{Tokens: []token.Token{k}})
				if known, ok := tokens[id]; !ok || known.Version < k.Version {
					tokens[id] = k
				}
			case 1:
				addr := netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "addr")})
				agent := rapid.StringN(0, 200, 200).Draw(t, "agent")
				tab.Used(&Ref{id: publicOf(id), noted: true}, t0, addr, agent)
				if _, ok := tokens[id]; ok {
					uses[id] = token.Use{At: t0, Addr: addr, Agent: agent, Count: uses[id].Count + 1}
				}
			case 2:
				taken := tab.TakeUses()
				tab.KeepUses(taken)
				for _, u := range tab.TakeUses() {
					if d := cmp.Diff(uses[u.Token], u.Use, same); d != "" {
						t.Fatal("a use that is to be stored:", d)
					}
				}
			}
			for _, id := range ids {
				want, known := tokens[id]
				got, ok := tab.Token(id)
				if d := cmp.Diff(want, got, same); d != "" || ok != known {
					t.Fatal("token:", ok, d)
				}
				if d := cmp.Diff(uses[id], tab.LastUse(id), same); d != "" {
					t.Fatal("use:", d)
				}
			}
		}
		n := 0
		tab.each(func(h *held) {
			n++
			if d := cmp.Diff(tokens[h.ID], h.Token, same); d != "" {
				t.Fatal("each:", d)
			}
		})
		if n != len(tokens) || tab.Len() != n {
			t.Fatalf("%d and %d tokens, want %d", n, tab.Len(), len(tokens))
		}
	})
}

// What was replaced is given back, and what somebody still reads stays as it was.
func TestReplacedBytesAreGivenBack(t *testing.T) {
	tab, _, s, r := table(t)
	sub, _, err := tab.Authenticate(s.Presented(), addr)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(10_000) {
		r.Version = i + 2
		tab.Apply(Change{Tokens: []token.Token{r}})
	}
	if p := tab.tokens.of(s.Presented().Public); p.bytes.size > 20_000 {
		t.Errorf("one token takes %d bytes", p.bytes.size)
	}
	if sub.Token != r.ID {
		t.Errorf("a reader's token is %q", sub.Token)
	}
}

// Readers see one version of a token or the other, never a mixture.
func TestReadersWhileTokensAreReplaced(t *testing.T) {
	tab, _, s, r := table(t)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				k, ok := tab.Token(r.ID)
				if !ok || k.Digest != r.Digest || strings.Trim(k.Note, string(rune('a'+k.Version%26))) != "" {
					t.Errorf("%v: version %d has the note %q", ok, k.Version, k.Note)
					return
				}
				tab.Used(&Ref{id: s.Presented().Public, noted: true}, t0, addr, k.Note)
			}
		})
	}
	for i := range int64(5000) {
		next := r
		next.Version, next.Note = i+2, strings.Repeat(string(rune('a'+(i+2)%26)), int(1+i%100))
		tab.Apply(Change{Tokens: []token.Token{next}})
	}
	close(done)
	wg.Wait()
}

// BenchmarkMemory prints what a token costs in memory, and a full collection.
func BenchmarkMemory(b *testing.B) {
	const n = 200_000
	for b.Loop() {
		before := heap()
		tab := New(func() time.Time { return t0 }, 0, policy.Rules{})
		tab.Apply(Change{Principals: []principal.Principal{ann}})
		for range n {
			k := record(token.NewSecret(token.Personal), ann.ID)
			k.Family, k.IssuedBy = "fam_0123456789abcdefghjkmnpqrs", string(ann.ID)
			tab.Apply(Change{Tokens: []token.Token{k}})
			tab.ApplyUse(LastUse{Token: k.ID, Use: token.Use{At: t0, Addr: addr, Agent: "gradegate/1.0", Count: 7}})
		}
		b.ReportMetric(float64(heap()-before)/n, "B/token")
		var pauses []time.Duration
		for range 5 {
			began := time.Now()
			runtime.GC()
			pauses = append(pauses, time.Since(began))
		}
		b.ReportMetric(float64(slices.Min(pauses).Microseconds()), "µs/GC")
		runtime.KeepAlive(tab)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one had to leave
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
