-- +goose Up
-- Who answers for a service, and since when somebody does not any more.
ALTER TABLE principals ADD COLUMN left_groups TEXT NOT NULL DEFAULT '';
ALTER TABLE principals ADD COLUMN inactive_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE principals ADD COLUMN owners TEXT NOT NULL DEFAULT '';
ALTER TABLE principals ADD COLUMN owner_group TEXT NOT NULL DEFAULT '';
ALTER TABLE principals ADD COLUMN owned_since INTEGER NOT NULL DEFAULT 0;

-- Who may hand in jobs for whom.
CREATE TABLE consents (
  id TEXT PRIMARY KEY, version INTEGER NOT NULL, giver TEXT NOT NULL REFERENCES principals (id), taker TEXT NOT NULL REFERENCES principals (id),
  giver_epoch INTEGER NOT NULL, taker_epoch INTEGER NOT NULL, giver_credentials INTEGER NOT NULL, via TEXT NOT NULL, competitions TEXT NOT NULL,
  given_at INTEGER NOT NULL, until INTEGER NOT NULL, ended_at INTEGER NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;
CREATE INDEX consents_giver ON consents (giver);
CREATE INDEX consents_taker ON consents (taker);
