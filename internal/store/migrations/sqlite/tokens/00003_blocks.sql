-- +goose Up
-- Networks whose failed attempts an administrator has refused; a place is used again.
CREATE TABLE blocks (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, prefix TEXT NOT NULL, note TEXT NOT NULL, made_by TEXT NOT NULL,
  since INTEGER NOT NULL, until INTEGER NOT NULL, lifted INTEGER NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;

-- Wrong secrets that were tried with the id of a token: how many, the first and
-- the last, and from how many sources, as a sketch of 252 bits.
CREATE TABLE token_guesses (
  token TEXT PRIMARY KEY, count INTEGER NOT NULL, since INTEGER NOT NULL, last INTEGER NOT NULL,
  s0 INTEGER NOT NULL, s1 INTEGER NOT NULL, s2 INTEGER NOT NULL, s3 INTEGER NOT NULL
) STRICT;
CREATE INDEX token_guesses_last ON token_guesses (last);
