-- Plain names: those of the JSON of a run.

DROP INDEX twins_waiting;
ALTER TABLE twins RENAME TO duplicates;
ALTER TABLE duplicates RENAME COLUMN twin TO representative;
CREATE INDEX duplicates_waiting ON duplicates (representative, row) WHERE reply IS NULL;

ALTER TABLE outcomes RENAME COLUMN twin TO representative;
ALTER TABLE outcomes RENAME COLUMN final TO permanent;
ALTER TABLE attempts RENAME COLUMN maybe_paid TO possibly_billed;

ALTER TABLE totals RENAME COLUMN failed_for_now TO retryable;
ALTER TABLE totals RENAME COLUMN shared TO deduplicated;
ALTER TABLE totals RENAME COLUMN maybe_paid TO possibly_billed;
ALTER TABLE totals RENAME COLUMN cost_again TO cost_retries;
ALTER TABLE totals RENAME COLUMN cost_maybe TO cost_possibly_billed;
ALTER TABLE totals RENAME COLUMN cost_open TO cost_reserved;

UPDATE samples SET state = replace(replace(replace(replace(replace(replace(state,
    '"failed_for_now":', '"retryable":'), '"shared":', '"deduplicated":'), '"maybe_paid":', '"possibly_billed":'),
    '"cost_again":', '"cost_retries":'), '"cost_maybe":', '"cost_possibly_billed":'), '"cost_open":', '"cost_reserved":');
