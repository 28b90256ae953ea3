package authn

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

var (
	t0   = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	addr = netip.MustParseAddr("10.1.2.3")
	ann  = principal.Principal{ID: "usr_ann", Version: 1, Name: "ann", Status: principal.Active, Role: principal.User}
)

func record(s token.Secret, owner principal.ID) token.Token {
	p := s.Presented()
	return token.Token{
		ID: p.Public.ID(), Version: 1, Kind: p.Kind, Digest: p.Digest, Name: "laptop", Owner: owner,
		Standing: token.Standard, IssuedAt: t0, BornAt: t0, Renewal: token.Sliding, Lifetime: token.DefaultLifetime,
		Idle: token.DefaultIdle, Unused: token.DefaultUnused, MaxLifetime: token.DefaultMaxLifetime, Scopes: policy.UserScopes,
	}
}

func table(t testing.TB) (*Table, *clock.Fake, token.Secret, token.Token) {
	t.Helper()
	f := clock.NewFake(t0)
	tab := New(f.Now, 0, policy.Rules{})
	s := token.NewSecret(token.Personal)
	r := record(s, ann.ID)
	tab.Apply(Change{Revision: 1, Principals: []principal.Principal{ann}, Tokens: []token.Token{r}})
	return tab, f, s, r
}

func TestAuthenticate(t *testing.T) {
	tab, _, s, r := table(t)
	sub, ref, err := tab.Authenticate(s.Presented(), addr)
	if err != nil || sub.Token != r.ID || sub.Principal.Name != "ann" || sub.Addr != addr || sub.Until.IsZero() {
		t.Fatalf("%+v %v", sub, err)
	}
	tab.Used(&ref, t0.Add(time.Hour), addr, "curl")
	if u := tab.LastUse(r.ID); u.Count != 1 || !u.At.Equal(t0.Add(time.Hour)) || u.Agent != "curl" {
		t.Errorf("last use %+v", u)
	}
	if uses := tab.TakeUses(); len(uses) != 1 || uses[0].Token != r.ID {
		t.Errorf("dirty %+v", uses)
	}
	if uses := tab.TakeUses(); len(uses) != 0 {
		t.Errorf("dirty twice: %+v", uses)
	}
}

// A use that only the trail had is stored with the next ones, whose position in
// the trail would else hide it from the start after this one.
func TestReplayedUsesAreStored(t *testing.T) {
	tab, _, _, r := table(t)
	tab.Replay(LastUse{Token: r.ID, Use: token.Use{At: t0.Add(time.Hour), Agent: "curl", Count: 1}})
	if uses := tab.TakeUses(); len(uses) != 1 || uses[0].Token != r.ID || !uses[0].At.Equal(t0.Add(time.Hour)) {
		t.Errorf("%+v", uses)
	}
}

// The disclosure rule: the holder of the right secret is told why; everybody
// else gets one and the same refusal.
func TestDisclosure(t *testing.T) {
	tab, f, s, r := table(t)
	guess := s.Presented()
	guess.Digest.Sum[7] ^= 1
	other := s.Presented()
	other.Kind = token.Session
	for name, p := range map[string]token.Presented{
		"unknown id": token.NewSecret(token.Personal).Presented(), "wrong secret": guess, "wrong kind": other,
		"handle": token.NewSecret(token.JobKind).Presented(),
	} {
		if _, _, err := tab.Authenticate(p, addr); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	revoked, _ := r.Revoke(token.ByOwner, token.Keep, t0)
	tab.Apply(Change{Tokens: []token.Token{revoked}})
	if _, _, err := tab.Authenticate(s.Presented(), addr); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("the holder is told %v", err)
	}
	if _, _, err := tab.Authenticate(guess, addr); !errors.Is(err, ErrUnknown) {
		t.Errorf("a guesser is told %v", err)
	}
	// An older record that arrives late revives nothing.
	tab.Apply(Change{Tokens: []token.Token{r}})
	f.Add(time.Second)
	if _, _, err := tab.Authenticate(s.Presented(), addr); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("revived by a stale change: %v", err)
	}
}

// R6.5: one write to the owner ends every token, session and job handle.
func TestEpochsEndEverything(t *testing.T) {
	tab, _, s, _ := table(t)
	h := token.NewSecret(token.JobKind)
	p := h.Presented()
	tab.ApplyHandle(Handle{Handle: token.Handle{Public: p.Public, Digest: p.Digest}, Kind: token.JobKind, Job: "job_1", Owner: ann.ID})
	if sub, _, err := tab.Authenticate(p, addr); err != nil || sub.Job != "job_1" {
		t.Fatal(err)
	}
	all := ann.RevokeAll(t0)
	tab.Apply(Change{Principals: []principal.Principal{all}})
	if _, _, err := tab.Authenticate(s.Presented(), addr); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("after revoke-all: %v", err)
	}
	if _, _, err := tab.Authenticate(p, addr); err != nil {
		t.Errorf("a job handle survives revoke-all: %v", err)
	}
	gone, _ := all.Offboard(false, t0)
	tab.Apply(Change{Principals: []principal.Principal{gone}})
	if _, _, err := tab.Authenticate(p, addr); err == nil {
		t.Error("a job handle survived off-boarding")
	}
	back := gone.Reenrol(t0)
	tab.Apply(Change{Principals: []principal.Principal{back}})
	for _, shown := range []token.Presented{s.Presented(), p} {
		if _, _, err := tab.Authenticate(shown, addr); err == nil {
			t.Error("re-hire revived a credential")
		}
	}
}

// R6.5: it is one write, and in force at the next request, also where one user has
// a hundred thousand tokens. The one that was stamped anew lives on.
func TestEpochsEndAHundredThousand(t *testing.T) {
	tab, _, kept, k := table(t)
	shown := make([]token.Presented, 100_000)
	for i := range shown {
		p := token.Presented{Kind: token.Personal, Digest: token.Digest{Sum: [32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}}}
		copy(p.Public[:], fmt.Sprintf("%012d", i))
		r := k
		r.ID, r.Digest = p.Public.ID(), p.Digest
		tab.Apply(Change{Tokens: []token.Token{r}})
		shown[i] = p
	}
	all := ann.RevokeAll(t0)
	tab.Apply(Change{Principals: []principal.Principal{all}, Tokens: []token.Token{k.Restamp(all.Epochs)}})
	for _, p := range shown {
		if _, _, err := tab.Authenticate(p, addr); fault.CodeOf(err) != "token_revoked" {
			t.Fatalf("after revoke-all: %v", err)
		}
	}
	if _, _, err := tab.Authenticate(kept.Presented(), addr); err != nil {
		t.Errorf("the kept token: %v", err)
	}
	gone, _ := all.Offboard(false, t0)
	tab.Apply(Change{Principals: []principal.Principal{gone}})
	for _, p := range append(shown, kept.Presented()) {
		if _, _, err := tab.Authenticate(p, addr); err == nil {
			t.Fatal("a token survived off-boarding")
		}
	}
}

// R1.5: a handle dies with a leak of the token that submitted, not with its revocation.
func TestHandleAndLeak(t *testing.T) {
	for reason, alive := range map[token.Reason]bool{token.ByOwner: true, token.Leaked: false, token.Compromised: false} {
		tab, _, _, r := table(t)
		p := token.NewSecret(token.JobKind).Presented()
		tab.ApplyHandle(Handle{Handle: token.Handle{Public: p.Public, Digest: p.Digest}, Kind: token.JobKind, Job: "job_1", Owner: ann.ID, Via: r.ID})
		ended, _ := r.Revoke(reason, token.Keep, t0)
		tab.Apply(Change{Tokens: []token.Token{ended}})
		if _, _, err := tab.Authenticate(p, addr); (err == nil) != alive {
			t.Errorf("handle after %s: %v", reason, err)
		}
	}
}

// R2.2: an address rule sees one form of one address.
func TestAddressRule(t *testing.T) {
	tab, _, s, r := table(t)
	r.Version, r.CIDRs = 2, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	tab.Apply(Change{Tokens: []token.Token{r}})
	for a, want := range map[string]bool{"10.9.9.9": true, "::ffff:10.9.9.9": true, "11.0.0.1": false, "fe80::1%eth0": false} {
		_, _, err := tab.Authenticate(s.Presented(), netip.MustParseAddr(a))
		if (err == nil) != want {
			t.Errorf("%s: %v", a, err)
		}
	}
	if _, _, err := tab.Authenticate(s.Presented(), netip.Addr{}); err == nil {
		t.Error("an unknown address passed an address rule")
	}
}

// R2.7: no admission begins after a revocation was acknowledged, under races.
func TestNoAdmissionAfterRevocation(t *testing.T) {
	for range 300 {
		tab, _, s, r := table(t)
		sub, _, err := tab.Authenticate(s.Presented(), addr)
		if err != nil {
			t.Fatal(err)
		}
		var acknowledged atomic.Bool
		var late atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					release, err := tab.Admit(&sub)
					if err != nil {
						return
					}
					if acknowledged.Load() {
						late.Add(1)
					}
					release()
				}
			})
		}
		ended, _ := r.Revoke(token.ByOwner, token.CancelAll, t0)
		tab.Apply(Change{Tokens: []token.Token{ended}})
		tab.Drain(ann.ID)
		acknowledged.Store(true)
		wg.Wait()
		if late.Load() > 0 {
			t.Fatalf("%d admissions after the acknowledgement", late.Load())
		}
	}
}

func TestJobWish(t *testing.T) {
	tab, _, _, r := table(t)
	wish := func() token.Wish { return tab.JobWish(ann.ID, r.ID, 0) }
	if wish() != token.Keep {
		t.Error("a live token stops its jobs")
	}
	leaked, _ := r.Revoke(token.Leaked, token.CancelQueued, t0)
	tab.Apply(Change{Tokens: []token.Token{leaked}})
	if wish() != token.CancelQueued {
		t.Errorf("leaked: %s", wish())
	}
	gone, _ := ann.Offboard(true, t0)
	tab.Apply(Change{Principals: []principal.Principal{gone}})
	if wish() != token.CancelAll {
		t.Errorf("off-boarded with its jobs: %s", wish())
	}
	back := gone.Reenrol(t0)
	tab.Apply(Change{Principals: []principal.Principal{back}})
	if wish() != token.CancelAll {
		t.Error("a re-enrolment forgot that the jobs from before were to be stopped")
	}
	if now := tab.JobWish(ann.ID, "tok_another", back.Epochs.Person); now != token.Keep {
		t.Errorf("a re-hired person's new job: %s", now)
	}
}

// A table that follows a shared database says 503, never 401, when it has lost touch.
func TestStaleness(t *testing.T) {
	f := clock.NewFake(t0)
	tab := New(f.Now, time.Minute, policy.Rules{})
	s := token.NewSecret(token.Personal)
	tab.Apply(Change{Principals: []principal.Principal{ann}, Tokens: []token.Token{record(s, ann.ID)}})
	f.Add(2 * time.Minute)
	if _, _, err := tab.Authenticate(s.Presented(), addr); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("stale: %v", err)
	}
	tab.Fresh()
	if _, _, err := tab.Authenticate(s.Presented(), addr); err != nil {
		t.Error(err)
	}
}

// The verify path allocates nothing, in success and in refusal.
func TestAuthenticateAllocatesNothing(t *testing.T) {
	tab, _, s, _ := table(t)
	text := s.Reveal()
	junk := token.NewSecret(token.Personal).Reveal()
	for name, in := range map[string]string{"known": text, "unknown": junk} {
		n := testing.AllocsPerRun(1000, func() {
			p, err := token.Parse(in)
			if err != nil {
				t.Fatal(err)
			}
			_, ref, err := tab.Authenticate(p, addr)
			if err == nil {
				tab.Used(&ref, t0, addr, "curl")
			}
		})
		if n > 2 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	f := clock.NewFake(t0)
	tab := New(f.Now, 0, policy.Rules{})
	tab.Apply(Change{Principals: []principal.Principal{ann}})
	const n = 100_000
	secrets := make([]string, n)
	for i := range secrets {
		s := token.NewSecret(token.Personal)
		secrets[i] = s.Reveal()
		tab.Apply(Change{Tokens: []token.Token{record(s, ann.ID)}})
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			i = (i + 7919) % n
			p, _ := token.Parse(secrets[i])
			_, ref, err := tab.Authenticate(p, addr)
			if err != nil {
				b.Error(err)
				return
			}
			tab.Used(&ref, t0, addr, "bench")
		}
	})
}
