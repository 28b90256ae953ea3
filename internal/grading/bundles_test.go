package grading_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
)

func (h house) bundles(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(h.dir, "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// held is a store that holds every submission by "refused" until it is told to
// go on, and then refuses it.
type held struct {
	grading.Store
	arrived, goOn chan struct{}
}

func (x held) InsertJob(ctx context.Context, j job.Job, s grading.Submission, q grading.Reservation, r *grading.JobReply, e audit.Event) error {
	if j.SubmittedBy != "refused" {
		return x.Store.InsertJob(ctx, j, s, q, r, e)
	}
	x.arrived <- struct{}{}
	<-x.goOn
	return fault.New(fault.Limited, "quota", "No more for today.")
}

// The bytes of an admitted submission stay, whatever becomes of others with the
// same bytes at the same time; and what nobody refers to takes up no room.
func TestBundleOfTwo(t *testing.T) {
	h := open(t)
	store := held{h.jobs, make(chan struct{}), make(chan struct{})}
	h.Store = store
	ann, eve := h.person(t, "ann"), h.person(t, "eve")
	hand := func(s *policy.Subject, text, by string) (string, error) {
		made, err := h.Submit(context.Background(), s, grading.Upload{
			Competition: "c", Name: "run.sh", Body: strings.NewReader("#!/bin/sh\n# " + text), SubmittedBy: by,
		}, grading.Idem{})
		return made.Submission.Digest, err
	}
	before := len(h.bundles(t)) // the competition's
	refusals := make(chan error, 2)
	for _, by := range []string{"refused", "refused"} {
		go func() {
			_, err := hand(eve, "the same", by)
			refusals <- err
		}()
		<-store.arrived // stored, and not decided
	}
	digest, err := hand(ann, "the same", "")
	if err != nil {
		t.Fatal(err)
	}
	there := func(when string, want bool) {
		t.Helper()
		if got := slices.Contains(h.bundles(t), digest); got != want {
			t.Errorf("%s: there %v, want %v", when, got, want)
		}
	}
	end := func() {
		t.Helper()
		store.goOn <- struct{}{}
		if err := <-refusals; fault.KindOf(err) != fault.Limited {
			t.Fatalf("not refused: %v", err)
		}
	}
	end()
	there("after one refusal", true)
	end()
	there("after both", true)
	go func() {
		_, err := hand(eve, "the same", "refused")
		refusals <- err
	}()
	<-store.arrived
	end()
	there("after a refusal later on", true)
	if _, err := h.hand(eve, "nope.sh"); fault.CodeOf(err) != "entry_point_not_found" {
		t.Errorf("%v", err)
	}
	if n := len(h.bundles(t)); n != before+1 {
		t.Errorf("%d bundles are there, want that of the competition and one more: what was refused takes up room", n)
	}
}

// hand submits a program with an entry point of that name.
func (h house) hand(s *policy.Subject, entry string) (string, error) {
	made, err := h.Submit(context.Background(), s, grading.Upload{
		Competition: "c", Name: "run.sh", Body: strings.NewReader("#!/bin/sh\n# raced\n"), Entry: entry,
	}, grading.Idem{})
	return made.Submission.Digest, err
}

// The same in a crowd, in whatever order things happen.
func TestBundleRace(t *testing.T) {
	h := open(t)
	ann, eve := h.person(t, "ann"), h.person(t, "eve")
	for range 30 {
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if _, err := h.hand(eve, "nope.sh"); err == nil {
					t.Error("admitted without its entry point")
				}
			})
		}
		var digest string
		all.Go(func() {
			var err error
			if digest, err = h.hand(ann, "run.sh"); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		path := filepath.Join(h.dir, "bundles", digest)
		if _, err := os.Stat(path); digest == "" || err != nil {
			t.Fatalf("an admitted submission lost its upload: %v", err)
		}
		if err := os.Remove(path); err != nil { // so that the next round is the first one again
			t.Fatal(err)
		}
	}
}

// Uploads that a crash cut off are gone after the next start; whole ones stay.
func TestBundlesAfterCrash(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".upload-1", "feed"} {
		if err := os.MkdirAll(filepath.Join(dir, "bundles"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "bundles", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := grading.New(grading.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "bundles"))
	if err != nil || len(left) != 1 || left[0].Name() != "feed" {
		t.Errorf("%v %v", left, err)
	}
}

// slow is an upload that arrives when it is told to.
type slow struct{ began, rest chan struct{} }

func (x slow) Read([]byte) (int, error) {
	x.began <- struct{}{}
	<-x.rest
	return 0, io.ErrUnexpectedEOF
}

// Uploads that take their time are bounded: for a user, and for all together (A05).
func TestUploadsAreBounded(t *testing.T) {
	h := open(t)
	const perUser = 16 // and 64 for all
	x := slow{make(chan struct{}), make(chan struct{})}
	var ended sync.WaitGroup
	begin := func(s *policy.Subject) {
		ended.Go(func() {
			_, _ = h.Submit(context.Background(), s, grading.Upload{Competition: "c", Name: "run.sh", Body: x}, grading.Idem{}) // it is cut off
		})
		<-x.began
	}
	refused := func(who string, s *policy.Subject) {
		t.Helper()
		if _, err := h.submit(context.Background(), s); fault.CodeOf(err) != "too_many_uploads" || fault.KindOf(err) != fault.Limited {
			t.Errorf("%s: %v", who, err)
		}
	}
	last := h.person(t, "last")
	for _, name := range []string{"a", "b", "c", "d"} {
		who := h.person(t, name)
		if _, err := h.submit(context.Background(), last); err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		for range perUser {
			begin(who)
		}
		refused(name, who)
	}
	refused("the next one", last)
	close(x.rest)
	ended.Wait()
	if _, err := h.submit(context.Background(), last); err != nil {
		t.Errorf("the places are not free again: %v", err)
	}
}

// Files that are fetched slowly are bounded as well.
func TestDownloadsAreBounded(t *testing.T) {
	h := open(t)
	ann := h.person(t, "ann")
	var fetched []*grading.File
	for range 16 {
		f, err := h.File(t.Context(), ann, "c", "train.csv")
		if err != nil {
			t.Fatal(err)
		}
		fetched = append(fetched, f)
	}
	if _, err := h.File(t.Context(), ann, "c", "train.csv"); fault.CodeOf(err) != "too_many_downloads" {
		t.Errorf("%v", err)
	}
	for _, f := range fetched {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		_ = f.Close() // twice does no harm
	}
	f, err := h.File(t.Context(), ann, "c", "train.csv")
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}
