-- +goose Up
-- Networks whose failed attempts an administrator has refused; a place is used again.
CREATE TABLE blocks (
  id TEXT PRIMARY KEY, version BIGINT NOT NULL, prefix TEXT NOT NULL, note TEXT NOT NULL, made_by TEXT NOT NULL,
  since BIGINT NOT NULL, until BIGINT NOT NULL, lifted BIGINT NOT NULL,
  mac BYTEA NOT NULL, mac_version BIGINT NOT NULL, key_id TEXT NOT NULL
);

-- Wrong secrets that were tried with the id of a token: how many, the first and
-- the last, and from how many sources, as a sketch of 252 bits.
CREATE TABLE token_guesses (
  token TEXT PRIMARY KEY, count BIGINT NOT NULL, since BIGINT NOT NULL, last BIGINT NOT NULL,
  s0 BIGINT NOT NULL, s1 BIGINT NOT NULL, s2 BIGINT NOT NULL, s3 BIGINT NOT NULL
);
CREATE INDEX token_guesses_last ON token_guesses (last);
