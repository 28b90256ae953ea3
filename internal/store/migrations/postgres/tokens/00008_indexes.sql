-- +goose Up
-- A page of an owner's tokens, newest first, is read as it lies here, however
-- many tokens the owner has.
CREATE INDEX tokens_owner_issued ON tokens (owner, issued_at, id);
DROP INDEX tokens_owner;
