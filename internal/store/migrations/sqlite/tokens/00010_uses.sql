-- +goose Up
-- When a use was stored, so that other nodes find what is new to them.
ALTER TABLE token_uses ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX token_uses_stored ON token_uses (stored_at);
