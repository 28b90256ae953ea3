-- +goose Up
-- What may still be used, by kind and name: a new token looks for one like it,
-- however many its owner has had.
CREATE INDEX tokens_open ON tokens (owner, kind, name) WHERE standing <> 'revoked' AND successor = '';
