package store

import (
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
)

// owned adds a service with its owners, one consent that holds and one that was
// withdrawn.
func (r *rig) owned(ann principal.Principal) (service principal.Principal, holds, ended principal.Consent) {
	r.t.Helper()
	bob, service := storetest.Person("bob"), storetest.Person("ci")
	service.Kind, service.Owners, service.OwnedSince = principal.Service, []principal.ID{ann.ID, bob.ID}, storetest.T0
	r.must(r.commit(authority.Decision{Principals: []authority.PrincipalChange{{New: bob}, {New: service}}}, audit.ServiceCreate))
	holds, given := storetest.Consent(ann, service), storetest.Consent(ann, bob)
	r.must(r.commit(authority.Decision{Consents: []authority.ConsentChange{{New: holds}, {New: given}}}, audit.ConsentGive))
	ended, _ = given.Withdraw(storetest.T0)
	r.must(r.commit(authority.Decision{Consents: []authority.ConsentChange{{Old: &given, New: ended}}}, audit.ConsentWithdraw))
	return service, holds, ended
}

// B12, B14: a consent is withdrawn while the database is dead, on the ledger
// alone, and stays withdrawn; so does an owner who leaves.
func TestWithdrawnWithoutDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := &memory{}
	r.cfg.Memory = m
	r.open()
	r.s.Follow(m.apply)
	ann, _ := r.ann(1)
	_, holds, _ := r.owned(ann)
	r.removeFiles()
	ended, _ := holds.Withdraw(storetest.T0)
	r.must(r.commit(authority.Decision{Consents: []authority.ConsentChange{{Old: &holds, New: ended}}}, audit.ConsentWithdraw))
	gone, _ := ann.Offboard(false, storetest.T0)
	_, err := r.s.Commit(t.Context(), authority.Decision{Principals: []authority.PrincipalChange{principalChange(ann, gone)}},
		storetest.Event(audit.UserOffboard, "x"), storetest.Event(audit.ServiceOrphan, "x"))
	r.must(err)
	want := func() {
		t.Helper()
		list, err := r.s.Consents(t.Context(), holds.Taker)
		if err != nil || len(list) != 1 || list[0].EndedAt.IsZero() {
			t.Errorf("%+v, %v", list, err)
		}
		p, err := r.s.Principal(t.Context(), ann.ID)
		if err != nil || p.Status != principal.Deprovisioned || !p.InactiveSince.Equal(storetest.T0) {
			t.Errorf("%+v, %v", p, err)
		}
	}
	want()
	p := storetest.Person("later")
	r.must(r.commit(storetest.Add(&p), audit.UserCreate))
	want()
	r.checked()
	r.close()
	wantOutcome(t, r.open(), "clean")
	want()
}
