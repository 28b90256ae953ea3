-- +goose Up
-- Levels of policy: the platform's, and one for each group that has one.
CREATE TABLE levels (
  name TEXT PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL, changed_at INTEGER NOT NULL,
  mac BLOB NOT NULL, mac_version INTEGER NOT NULL, key_id TEXT NOT NULL
) STRICT;
ALTER TABLE principals ADD COLUMN member_of TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN renewed_at INTEGER NOT NULL DEFAULT 0;

-- Spans in which uses could not be recorded: the idle clocks stood still.
CREATE TABLE outages (began INTEGER PRIMARY KEY, ended INTEGER NOT NULL) STRICT;
