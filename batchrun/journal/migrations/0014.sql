-- Attempts in batches have an index of their own (attempts_in_batches): of a million rows, this one took 0.6 µs a row more.

DROP INDEX attempts_open;
CREATE INDEX attempts_open ON attempts (row) WHERE ended IS NULL AND ticket IS NULL;
