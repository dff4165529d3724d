-- A flag of replies: other numbers than the source has.

ALTER TABLE totals ADD COLUMN numbers INTEGER NOT NULL DEFAULT 0;
