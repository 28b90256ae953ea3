-- +goose Up
-- Budgets are JSON text; account is where use is booked, if not under the family.
ALTER TABLE principals ADD COLUMN budget TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN budget TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN account TEXT NOT NULL DEFAULT '';
