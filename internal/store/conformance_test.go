package store_test

import (
	"testing"

	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/store"
	"gradegate/internal/store/storetest"
)

// place opens the tokens database in dir, with a clock that stands still.
func place(t *testing.T, dir, url string) storetest.TokensPlace {
	now := clock.NewFake(storetest.T0)
	return func() storetest.TokensStore {
		s, err := store.OpenTokens(t.Context(), store.TokensConfig{
			Dir: dir, URL: url, Keys: keys.New([32]byte{1}), Clock: clock.New(now.Now, storetest.T0),
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Report(); r.Loud() {
			t.Errorf("opening: %+v", r)
		}
		return s
	}
}

func TestTokensOnSQLite(t *testing.T) {
	t.Parallel()
	storetest.RunTokens(t, func(t *testing.T) storetest.TokensPlace { return place(t, t.TempDir(), "") })
}

// jobsPlace opens the jobs database in dir, with a clock that stands still.
func jobsPlace(t *testing.T, dir, url string) storetest.JobsPlace {
	return func() storetest.JobsStore {
		s, err := store.OpenJobs(t.Context(), store.JobsConfig{Dir: dir, URL: url, Now: clock.NewFake(storetest.T0).Now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestJobsOnSQLite(t *testing.T) {
	t.Parallel()
	storetest.RunJobs(t, func(t *testing.T) storetest.JobsPlace { return jobsPlace(t, t.TempDir(), "") })
}

func TestMain(m *testing.M) { storetest.Main(m) }

func TestTokensOnPostgreSQL(t *testing.T) {
	t.Parallel()
	storetest.RunTokens(t, func(t *testing.T) storetest.TokensPlace {
		return place(t, t.TempDir(), storetest.PostgresURL(t))
	})
}

func TestJobsOnPostgreSQL(t *testing.T) {
	t.Parallel()
	storetest.RunJobs(t, func(t *testing.T) storetest.JobsPlace {
		return jobsPlace(t, t.TempDir(), storetest.PostgresURL(t))
	})
}
