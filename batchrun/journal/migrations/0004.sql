-- Lanes and tickets: where attempts are sent, and what an executor gave for them.

CREATE TABLE lanes (
    id              INTEGER PRIMARY KEY,
    base_url        TEXT NOT NULL,
    key_name        TEXT,
    model           TEXT,
    mode            TEXT NOT NULL,
    learned         TEXT
) STRICT;

CREATE TABLE tickets (
    id              INTEGER PRIMARY KEY,
    lane            INTEGER NOT NULL,
    state           TEXT NOT NULL,
    remote          TEXT,
    asked           REAL,
    seen            REAL,
    detail          TEXT
) STRICT;

ALTER TABLE attempts ADD COLUMN lane INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attempts ADD COLUMN ticket INTEGER;
ALTER TABLE attempts ADD COLUMN expires REAL;

INSERT INTO lanes (id, base_url, key_name, model, mode)
SELECT 1, ifnull(json_extract(value, '$.base_url'), ''), json_extract(value, '$.api_key_env'), json_extract(value, '$.model'), 'live'
FROM meta WHERE name = 'plan';
