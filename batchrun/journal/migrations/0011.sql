-- What was reserved for an attempt, kept after it has ended: charged to a cap where the price of its reply is not known. A
-- 200 that is no reply may have been paid, too.

ALTER TABLE attempts ADD COLUMN reserved INTEGER;
UPDATE totals SET unpriced = (
    SELECT total(cost IS NULL AND (status = 200 OR reply IS NOT NULL OR maybe_paid))
    FROM attempts JOIN rows ON rows.seq = attempts.row WHERE rows.position IS NOT NULL
);
