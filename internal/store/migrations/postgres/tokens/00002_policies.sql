-- +goose Up
-- Levels of policy: the platform's, and one for each group that has one.
CREATE TABLE levels (
  name TEXT PRIMARY KEY, version BIGINT NOT NULL, body TEXT NOT NULL, changed_at BIGINT NOT NULL,
  mac BYTEA NOT NULL, mac_version BIGINT NOT NULL, key_id TEXT NOT NULL
);
ALTER TABLE principals ADD COLUMN member_of TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN renewed_at BIGINT NOT NULL DEFAULT 0;

-- Spans in which uses could not be recorded: the idle clocks stood still.
CREATE TABLE outages (began BIGINT PRIMARY KEY, ended BIGINT NOT NULL);
