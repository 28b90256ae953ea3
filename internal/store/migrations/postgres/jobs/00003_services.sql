-- +goose Up
-- Who handed a job in for its owner, with that one's consent; empty: the owner.
ALTER TABLE jobs ADD COLUMN submitter TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_submitter ON jobs (submitter, id) WHERE submitter <> '';
