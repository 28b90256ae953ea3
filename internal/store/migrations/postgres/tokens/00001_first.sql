-- +goose Up
-- Instants and durations are microseconds; lists are JSON text. Rows of
-- principals, tokens and replies carry a MAC over all their other columns.
CREATE TABLE principals (
  id TEXT PRIMARY KEY, version BIGINT NOT NULL, name TEXT NOT NULL, email TEXT NOT NULL,
  kind TEXT NOT NULL, role TEXT NOT NULL, status TEXT NOT NULL,
  epoch_credentials BIGINT NOT NULL, epoch_person BIGINT NOT NULL,
  enrolled BIGINT NOT NULL, cancel_jobs BIGINT NOT NULL,
  created_at BIGINT NOT NULL, changed_at BIGINT NOT NULL,
  mac BYTEA NOT NULL, mac_version BIGINT NOT NULL, key_id TEXT NOT NULL
);
-- A leaver's name may be given to somebody else.
CREATE UNIQUE INDEX principals_name ON principals (name) WHERE status <> 'deprovisioned';
CREATE INDEX principals_any_name ON principals (name);

CREATE TABLE tokens (
  id TEXT PRIMARY KEY, version BIGINT NOT NULL, kind TEXT NOT NULL, digest BYTEA NOT NULL,
  name TEXT NOT NULL, owner TEXT NOT NULL REFERENCES principals (id),
  epoch_credentials BIGINT NOT NULL, epoch_person BIGINT NOT NULL,
  scopes TEXT NOT NULL, competitions TEXT NOT NULL, cidrs TEXT NOT NULL, parent TEXT NOT NULL,
  standing TEXT NOT NULL, reason TEXT NOT NULL, revoked_at BIGINT NOT NULL, jobs TEXT NOT NULL,
  family TEXT NOT NULL, generation BIGINT NOT NULL, predecessor TEXT NOT NULL, successor TEXT NOT NULL,
  grace_until BIGINT NOT NULL, issued_at BIGINT NOT NULL, issued_by TEXT NOT NULL,
  lifetime BIGINT NOT NULL, renewal TEXT NOT NULL, fixed_end BIGINT NOT NULL,
  idle BIGINT NOT NULL, unused BIGINT NOT NULL, born_at BIGINT NOT NULL,
  max_lifetime BIGINT NOT NULL, rotate_after BIGINT NOT NULL, enforce_rotation BIGINT NOT NULL,
  note TEXT NOT NULL,
  mac BYTEA NOT NULL, mac_version BIGINT NOT NULL, key_id TEXT NOT NULL
);
CREATE UNIQUE INDEX tokens_digest ON tokens (digest);
-- One successor per generation. A revoked one no longer counts: it was
-- replaced because its secret was lost.
CREATE UNIQUE INDEX tokens_family_generation ON tokens (family, generation)
  WHERE family <> '' AND standing <> 'revoked';
CREATE INDEX tokens_owner ON tokens (owner);

CREATE TABLE replies (
  key BYTEA PRIMARY KEY, request BYTEA NOT NULL, ref TEXT NOT NULL, sealed BYTEA NOT NULL, until BIGINT NOT NULL,
  mac BYTEA NOT NULL, mac_version BIGINT NOT NULL, key_id TEXT NOT NULL
);
CREATE INDEX replies_until ON replies (until);

CREATE TABLE head (
  id BIGINT PRIMARY KEY CHECK (id = 1), seq BIGINT NOT NULL, revision BIGINT NOT NULL, batch TEXT NOT NULL,
  digest BYTEA NOT NULL, chain BYTEA NOT NULL, mark BIGINT NOT NULL, base BIGINT NOT NULL, at BIGINT NOT NULL,
  mac BYTEA NOT NULL, mac_version BIGINT NOT NULL, key_id TEXT NOT NULL
);
CREATE TABLE batches (id TEXT PRIMARY KEY, seq BIGINT NOT NULL, at BIGINT NOT NULL);
CREATE INDEX batches_seq ON batches (seq);
CREATE TABLE changes (revision BIGINT PRIMARY KEY, seq BIGINT NOT NULL, node TEXT NOT NULL, ids TEXT NOT NULL);
CREATE TABLE outbox (id TEXT PRIMARY KEY, seq BIGINT NOT NULL, n BIGINT NOT NULL, line TEXT NOT NULL);
CREATE INDEX outbox_order ON outbox (seq, n);

-- Outside of MAC and ledger: changes with every request, and the trail has it.
CREATE TABLE token_uses (token TEXT PRIMARY KEY, at BIGINT NOT NULL, addr TEXT NOT NULL, agent TEXT NOT NULL, count BIGINT NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
