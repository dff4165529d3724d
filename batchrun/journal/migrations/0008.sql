-- Texts that are answered in parts: which replies a reduce row puts together.

CREATE TABLE reductions (
    row             INTEGER PRIMARY KEY,
    target          INTEGER NOT NULL
) STRICT;

CREATE INDEX reductions_target ON reductions (target);
