-- Flags of replies: ended for a reason that is not known; without an answer.

ALTER TABLE totals ADD COLUMN odd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN empty INTEGER NOT NULL DEFAULT 0;
