-- +goose Up
-- Instants and durations are microseconds; lists are JSON text. Rows of
-- principals, tokens and replies carry a MAC over all their other columns.
CREATE TABLE principals (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, name TEXT NOT NULL, email TEXT NOT NULL,
  kind TEXT NOT NULL, role TEXT NOT NULL, status TEXT NOT NULL,
  epoch_credentials INTEGER NOT NULL, epoch_person INTEGER NOT NULL,
  enrolled INTEGER NOT NULL, cancel_jobs INTEGER NOT NULL,
  created_at INTEGER NOT NULL, changed_at INTEGER NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;
-- A leaver's name may be given to somebody else.
CREATE UNIQUE INDEX principals_name ON principals (name) WHERE status <> 'deprovisioned';
CREATE INDEX principals_any_name ON principals (name);

CREATE TABLE tokens (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, kind TEXT NOT NULL, digest BLOB NOT NULL,
  name TEXT NOT NULL, owner TEXT NOT NULL REFERENCES principals (id),
  epoch_credentials INTEGER NOT NULL, epoch_person INTEGER NOT NULL,
  scopes TEXT NOT NULL, competitions TEXT NOT NULL, cidrs TEXT NOT NULL, parent TEXT NOT NULL,
  standing TEXT NOT NULL, reason TEXT NOT NULL, revoked_at INTEGER NOT NULL, jobs TEXT NOT NULL,
  family TEXT NOT NULL, generation INTEGER NOT NULL, predecessor TEXT NOT NULL, successor TEXT NOT NULL,
  grace_until INTEGER NOT NULL, issued_at INTEGER NOT NULL, issued_by TEXT NOT NULL,
  lifetime INTEGER NOT NULL, renewal TEXT NOT NULL, fixed_end INTEGER NOT NULL,
  idle INTEGER NOT NULL, unused INTEGER NOT NULL, born_at INTEGER NOT NULL,
  max_lifetime INTEGER NOT NULL, rotate_after INTEGER NOT NULL, enforce_rotation INTEGER NOT NULL,
  note TEXT NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX tokens_digest ON tokens (digest);
-- One successor per generation. A revoked one no longer counts: it was
-- replaced because its secret was lost.
CREATE UNIQUE INDEX tokens_family_generation ON tokens (family, generation)
  WHERE family <> '' AND standing <> 'revoked';
CREATE INDEX tokens_owner ON tokens (owner);

CREATE TABLE replies (
  key BLOB PRIMARY KEY, request BLOB NOT NULL, ref TEXT NOT NULL, sealed BLOB NOT NULL, until INTEGER NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;
CREATE INDEX replies_until ON replies (until);

CREATE TABLE head (
  id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, revision INTEGER NOT NULL, batch TEXT NOT NULL,
  digest BLOB NOT NULL, chain BLOB NOT NULL, mark INTEGER NOT NULL, base INTEGER NOT NULL, at INTEGER NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;
CREATE TABLE batches (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE INDEX batches_seq ON batches (seq);
CREATE TABLE changes (revision INTEGER PRIMARY KEY, seq INTEGER NOT NULL, node TEXT NOT NULL, ids TEXT NOT NULL) STRICT;
CREATE TABLE outbox (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, n INTEGER NOT NULL, line TEXT NOT NULL) STRICT;
CREATE INDEX outbox_order ON outbox (seq, n);

-- Outside of MAC and ledger: changes with every request, and the trail has it.
CREATE TABLE token_uses (token TEXT PRIMARY KEY, at INTEGER NOT NULL, addr TEXT NOT NULL, agent TEXT NOT NULL, count INTEGER NOT NULL) STRICT;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
