-- +goose Up
-- The quota ledger is only ever appended to: for each account that a job counts
-- for a reservation, then one settlement or refund. at is the instant of the
-- reservation in both, so that one sum over a day is what was submitted in it;
-- used is what the job came to, in the line that closes it. GPU time counts from
-- booked_at of that line on.
CREATE TABLE quota_lines (
  n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job TEXT NOT NULL, closes BIGINT NOT NULL, account TEXT NOT NULL, kind TEXT NOT NULL,
  reason TEXT NOT NULL, owner TEXT NOT NULL, family TEXT NOT NULL, competition TEXT NOT NULL,
  at BIGINT NOT NULL, booked_at BIGINT NOT NULL, submissions BIGINT NOT NULL, gpu_seconds BIGINT NOT NULL, used BIGINT NOT NULL,
  UNIQUE (job, closes, account)
);
CREATE INDEX quota_lines_day ON quota_lines (account, competition, at);
CREATE INDEX quota_lines_spent ON quota_lines (account, booked_at) WHERE used > 0;
CREATE INDEX quota_lines_account ON quota_lines (account, n);

-- The lines that nothing has closed, so that they are found without reading all;
-- span is the longest that the job runs, in seconds.
CREATE TABLE quota_open (
  account TEXT NOT NULL, job TEXT NOT NULL, gpu_seconds BIGINT NOT NULL, span BIGINT NOT NULL, PRIMARY KEY (account, job)
);

INSERT INTO quota_lines (job, closes, account, kind, reason, owner, family, competition, at, booked_at, submissions, gpu_seconds, used)
  SELECT q.job, q.closes, q.owner, q.kind, CASE WHEN q.closes = 0 THEN 'submitted' ELSE j.state END, q.owner, '', q.competition, q.at,
    CASE WHEN q.closes = 0 THEN q.at ELSE j.ended_at END, q.submissions, q.gpu_seconds,
    CASE WHEN q.closes = 0 THEN 0 ELSE q.gpu_seconds + r.gpu_seconds END
  FROM quota q JOIN quota r ON r.job = q.job AND r.closes = 0 JOIN jobs j ON j.id = q.job ORDER BY q.at, q.job, q.closes;
INSERT INTO quota_open (account, job, gpu_seconds, span)
  SELECT q.owner, q.job, q.gpu_seconds, 0 FROM quota q JOIN jobs j ON j.id = q.job WHERE q.closes = 0 AND j.live = 1;
DROP TABLE quota;
DROP TABLE quota_gates;
-- One row per account, locked while its budgets and quotas are judged.
CREATE TABLE quota_gates (account TEXT PRIMARY KEY, n BIGINT NOT NULL);
