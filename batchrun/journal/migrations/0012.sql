-- Texts that are divided once more, since the reply to them was cut off.

ALTER TABLE reductions ADD COLUMN cut INTEGER NOT NULL DEFAULT 0;
