-- +goose Up
-- Instants are microseconds; body is a JSON object with what nothing searches for.
CREATE TABLE competitions (
  name TEXT PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;

CREATE TABLE submissions (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, competition TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  name TEXT NOT NULL, kind TEXT NOT NULL, entry TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, owner TEXT NOT NULL, competition TEXT NOT NULL,
  submission TEXT NOT NULL REFERENCES submissions (id), via TEXT NOT NULL, person INTEGER NOT NULL,
  state TEXT NOT NULL, live INTEGER NOT NULL,
  handle_id TEXT NOT NULL, handle_digest BLOB NOT NULL, run_id TEXT NOT NULL, run_digest BLOB NOT NULL,
  created_at INTEGER NOT NULL, ended_at INTEGER NOT NULL, changed_at INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX jobs_handle ON jobs (handle_id) WHERE handle_id <> '';
CREATE UNIQUE INDEX jobs_run ON jobs (run_id) WHERE run_id <> '';
CREATE INDEX jobs_owner ON jobs (owner, id);
CREATE INDEX jobs_competition ON jobs (competition, id);
CREATE INDEX jobs_live ON jobs (id) WHERE live = 1;
CREATE INDEX jobs_live_owner ON jobs (owner, competition) WHERE live = 1;
CREATE INDEX jobs_ended ON jobs (ended_at);
CREATE INDEX jobs_changed ON jobs (changed_at);

CREATE TABLE scores (
  job TEXT NOT NULL REFERENCES jobs (id), metric TEXT NOT NULL, competition TEXT NOT NULL, owner TEXT NOT NULL,
  value REAL NOT NULL, PRIMARY KEY (job, metric)
) STRICT;
CREATE INDEX scores_board ON scores (competition, metric, owner);

-- The quota ledger is only ever appended to: a reservation, then one settlement
-- or refund. at is the instant of the reservation in both, so that one sum over
-- a window is the usage in it.
CREATE TABLE quota (
  job TEXT NOT NULL, closes INTEGER NOT NULL, kind TEXT NOT NULL, owner TEXT NOT NULL, competition TEXT NOT NULL,
  at INTEGER NOT NULL, submissions INTEGER NOT NULL, gpu_seconds INTEGER NOT NULL, PRIMARY KEY (job, closes)
) STRICT;
CREATE INDEX quota_window ON quota (owner, competition, at);
-- One row per person and competition, locked while a quota is judged.
CREATE TABLE quota_gates (owner TEXT NOT NULL, competition TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (owner, competition)) STRICT;

CREATE TABLE replies (key BLOB PRIMARY KEY, request BLOB NOT NULL, job TEXT NOT NULL, sealed BLOB NOT NULL, until INTEGER NOT NULL) STRICT;
CREATE INDEX replies_until ON replies (until);
CREATE TABLE outbox (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, n INTEGER NOT NULL, line TEXT NOT NULL) STRICT;
CREATE INDEX outbox_order ON outbox (seq, n);
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
