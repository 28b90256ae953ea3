package grading

import (
	"sync"

	"gradegate/internal/fault"
	"gradegate/internal/policy"
)

const (
	// perUser is how many logs somebody may follow at a time, how many uploads
	// may be on their way, and how many files may be fetched.
	perUser = 16
	// defaultFiles is an eighth of the descriptors that a process usually has.
	defaultFiles = 128
)

// shares bounds what a client can hold for as long as it likes, for one user
// and for all together. Rates do not: a connection may carry hundreds of
// requests that never end. It is safe for concurrent use.
type shares struct {
	all  int
	busy func(most int, own bool) *fault.Error

	mu   sync.Mutex
	held int
	of   map[string]int
}

func newShares(all int, busy func(most int, own bool) *fault.Error) *shares {
	return &shares{all: max(all, 1), busy: busy, of: map[string]int{}}
}

// take takes one share until release is called, once. The local administrator
// has no bound: the local socket works when everything else is full.
func (x *shares) take(s *policy.Subject) (release func(), err error) {
	if s.Local {
		return func() {}, nil
	}
	who := string(s.Principal.ID)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.of[who] >= perUser {
		return nil, x.busy(perUser, true)
	}
	if x.held >= x.all {
		return nil, x.busy(x.all, false)
	}
	x.held++
	x.of[who]++
	return func() { x.release(who) }, nil
}

func (x *shares) release(who string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held--
	if x.of[who]--; x.of[who] <= 0 {
		delete(x.of, who) // what is remembered never outgrows what is held
	}
}

func tooManyFollowers(most int, own bool) *fault.Error {
	if own {
		return fault.New(fault.Limited, "too_many_followers", "You follow %d logs at a time already, and that is the most.", most).
			WithFix("End another follow, or read the log without following it.")
	}
	return fault.New(fault.Limited, "too_many_followers", "%d logs are followed just now, and that is the most for all users together.", most).
		WithFix("Read the log without following it, or try again later.")
}

func tooManyUploads(most int, own bool) *fault.Error {
	if own {
		return fault.New(fault.Limited, "too_many_uploads", "%d uploads of yours are on their way already, and that is the most.", most).
			WithFix("Let one of them end, then try again.")
	}
	return fault.New(fault.Limited, "too_many_uploads", "%d uploads are on their way, and that is the most for all users together.", most).
		WithFix("Try again in a moment.")
}

func tooManyDownloads(most int, own bool) *fault.Error {
	if own {
		return fault.New(fault.Limited, "too_many_downloads", "You fetch %d files at a time already, and that is the most.", most).
			WithFix("Let one of them end, then try again.")
	}
	return fault.New(fault.Limited, "too_many_downloads", "%d files are fetched just now, and that is the most for all users together.", most).
		WithFix("Try again in a moment.")
}
