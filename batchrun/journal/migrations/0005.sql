-- What attempts are charged, by kind of token and by service tier. What was charged before has no known kinds.

ALTER TABLE attempts ADD COLUMN cache_write_tokens INTEGER;
ALTER TABLE attempts ADD COLUMN cost_cached INTEGER;
ALTER TABLE attempts ADD COLUMN cost_cache_write INTEGER;
ALTER TABLE attempts ADD COLUMN cost_output INTEGER;
ALTER TABLE attempts ADD COLUMN cost_other INTEGER;
ALTER TABLE attempts ADD COLUMN tier TEXT;
UPDATE attempts SET cost_other = cost WHERE ended IS NOT NULL AND cost IS NOT NULL;

ALTER TABLE totals ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN cost_cached INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN cost_cache_write INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN cost_output INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN cost_other INTEGER NOT NULL DEFAULT 0;
UPDATE totals SET cost_other = cost;
