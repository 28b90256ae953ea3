-- +goose Up
-- Tokens that ended long ago. An id is either here or in tokens; digest stays
-- when all else of a row has gone to a segment.
CREATE TABLE archive (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, digest BLOB NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
  ended_at INTEGER NOT NULL, why TEXT NOT NULL, archived_at INTEGER NOT NULL, segment TEXT NOT NULL, body TEXT NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX archive_digest ON archive (digest);
CREATE INDEX archive_ended ON archive (ended_at, id);
CREATE INDEX archive_owner ON archive (owner, ended_at, id) WHERE owner <> '';
CREATE INDEX archive_name ON archive (name, ended_at, id) WHERE name <> '';
CREATE INDEX archive_due ON archive (ended_at, id) WHERE segment = '';
CREATE INDEX tokens_family ON tokens (family);
CREATE INDEX tokens_parent ON tokens (parent) WHERE parent <> '';

-- Legal holds. None is ever deleted.
CREATE TABLE holds (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL,
  made_by TEXT NOT NULL, made_at INTEGER NOT NULL, until INTEGER NOT NULL, removed_at INTEGER NOT NULL, removed_by TEXT NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;

-- Outside of MAC and ledger: who does background work, and how much there was of everything.
CREATE TABLE leases (name TEXT PRIMARY KEY, node TEXT NOT NULL, until INTEGER NOT NULL) STRICT;
CREATE TABLE samples (node TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (node, at)) STRICT;
