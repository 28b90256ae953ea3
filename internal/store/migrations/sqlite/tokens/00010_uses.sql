-- +goose Up
-- When a use was stored. Only where there are other nodes does somebody ask.
ALTER TABLE token_uses ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
