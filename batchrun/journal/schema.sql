-- The journal of one batchrun run: what was to be sent, every attempt, every reply, how every row ended.
-- Times are seconds since 1970 (UTC), durations seconds, flags 0 or 1; there is nothing in here but text, numbers and JSON.
-- Tables are STRICT, so that PRAGMA integrity_check finds a damaged value of another kind.

PRAGMA user_version = 15;               -- the migration up to which this schema has everything

CREATE TABLE meta (                     -- facts about the run, one a line
    name            TEXT PRIMARY KEY,   -- batchrun (the version that made it), run, created, plan (JSON), prompt (source), simulated, output (path relative to this file), digest (the kind of hashes: blake3, or where it is missing blake2b), intake, texts (bytes of the file with long texts, where there is one), borrowing (the journal that replies are still to be taken from, relative to this file), note.*
    value           TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE rows (                     -- the input
    seq             INTEGER PRIMARY KEY,            -- the lasting number of the row in this journal
    position        INTEGER,                        -- its place in the input, from 1; NULL: absent from the present input, outside output and sums
    line            INTEGER NOT NULL,               -- the line, element, record or file of the input that messages name
    key             TEXT NOT NULL,                  -- identity: the value of the id column, or the hash of the text
    occurrence      INTEGER NOT NULL DEFAULT 0,     -- tells rows of the same content apart: 0, 1, 2 in the order of the input
    request         TEXT NOT NULL,                  -- hash of the effective request: 128 bits in hexadecimal, BLAKE2b, or from 8,192 bytes on BLAKE3 where meta says so; empty for a skipped row
    text            TEXT NOT NULL,                  -- the row as JSON; of a skipped line that is no row, all of it as a JSON string
    files           TEXT NOT NULL DEFAULT '',       -- JSON: the files that its request has, as the view files shows them; empty: none
    text_at         INTEGER,                        -- where the text is instead, in bytes of the file beside this one that has "-texts" behind its name; NULL: in text
    text_size       INTEGER,                        -- its bytes there
    ready           TEXT NOT NULL DEFAULT ''        -- JSON: its request, where that is a part of a text in that file: endpoint, start in bytes of the text, bytes, limit of output tokens, model and service tier, whether files are in it as base64
) STRICT;

CREATE VIEW files AS                    -- the files of all rows: pictures, audio and documents, which are never in the journal themselves
SELECT rows.seq AS row, item.key + 1 AS number,
       json_extract(item.value, '$.input') AS input,             -- the variable of the prompt
       json_extract(item.value, '$.path') AS path,               -- absolute, or relative to the directory of the journal; an address that is sent as it is
       json_extract(item.value, '$.size') AS size,               -- bytes
       json_extract(item.value, '$.type') AS type,               -- the media type, by content
       json_extract(item.value, '$.sha256') AS sha256,           -- of the content, in hexadecimal
       json_extract(item.value, '$.modified') AS modified        -- seconds since 1970
FROM rows, json_each(iif(rows.files = '', '[]', rows.files)) AS item;

CREATE TABLE attempts (                 -- one HTTP exchange each, written before its first byte leaves
    row             INTEGER NOT NULL,               -- rows.seq
    number          INTEGER NOT NULL,               -- 1, 2, 3 within the row; minus tickets.id: a reply that another batch of the same call brought as well
    session         INTEGER NOT NULL,               -- sessions.id of the process that began it
    began           REAL NOT NULL,
    ended           REAL,                           -- NULL: it left and no answer is known
    seconds         REAL,                           -- how long the exchange took
    status          INTEGER,                        -- HTTP status; 0: no whole answer came
    cause           TEXT,                           -- why it is not a reply that was accepted; NULL for one that was
    message         TEXT,                           -- the detail of the cause
    throttled       INTEGER NOT NULL DEFAULT 0,     -- a 429
    counted         INTEGER NOT NULL DEFAULT 1,     -- counts against the attempts of the row
    deadline        INTEGER NOT NULL DEFAULT 0,     -- ended by the deadline
    invalid         INTEGER NOT NULL DEFAULT 0,     -- a reply that was asked again: it does not match the schema, has no answer or was cut
    possibly_billed INTEGER NOT NULL DEFAULT 0,     -- no answer, but the provider may have charged for it
    spent           INTEGER NOT NULL DEFAULT 0,     -- belongs to an earlier outcome or request of the row
    input_tokens    INTEGER,                        -- NULL where the provider stated none
    output_tokens   INTEGER,
    cached_tokens   INTEGER,                        -- part of input_tokens
    reasoning_tokens INTEGER,                       -- part of output_tokens
    cost            INTEGER,                        -- charged, in picodollars (1e-12 USD); while it is open what it may cost at worst; NULL: not known
    charged_tokens  INTEGER NOT NULL DEFAULT 0,     -- charged to a cap of tokens; while it is open what it may use at worst
    request_id      TEXT,                           -- the provider's name for the exchange
    excerpt         TEXT,                           -- the beginning of the body of an answer that is not a reply
    reply           INTEGER,                        -- replies.id
    lane            INTEGER NOT NULL DEFAULT 1,     -- lanes.id: where it was sent
    ticket          INTEGER,                        -- tickets.id: it is in a batch, until it has ended; NULL: one exchange of its own
    expires         REAL,                           -- when that is given up at the latest
    cache_write_tokens INTEGER,                     -- part of input_tokens
    cost_cached     INTEGER,                        -- part of cost: input read from a cache
    cost_cache_write INTEGER,                       -- part of cost: input written to a cache
    cost_output     INTEGER,                        -- part of cost
    cost_other      INTEGER,                        -- part of cost: fees, and what no kind is known of; the rest is input
    tier            TEXT,                           -- the service tier that the reply names; NULL: the standard one
    reserved        INTEGER,                        -- what was reserved for it, in picodollars: charged to a cap where the cost is not known; NULL: it is open, or nothing was
    PRIMARY KEY (row, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_open ON attempts (row) WHERE ended IS NULL AND ticket IS NULL;

CREATE TABLE replies (                  -- bodies that came back and were paid for, to the byte
    id              INTEGER PRIMARY KEY,
    row             INTEGER NOT NULL,               -- rows.seq
    number          INTEGER NOT NULL,               -- attempts.number; 0: taken from another run
    body            TEXT NOT NULL
) STRICT;

CREATE TABLE outcomes (                 -- how rows ended; a row without one is pending or unknown
    row             INTEGER PRIMARY KEY,            -- rows.seq
    state           TEXT NOT NULL,                  -- done, failed, skipped
    permanent       INTEGER NOT NULL,               -- 0: failed and retryable: resuming sends it again
    cause           TEXT,
    message         TEXT,
    flags           TEXT,                           -- of truncated, refused, filtered, odd (ended for a reason that is not known), empty (no answer), numbers (others than its source); with commas
    attempts        INTEGER NOT NULL,               -- the number of the attempt it rests on, its own or that of its representative
    value           TEXT,                           -- JSON of the output where it is not simply what the reply says
    added           TEXT,                           -- JSON object of members that post-processing merges into the output row
    post            INTEGER NOT NULL DEFAULT 0,     -- failed in post-processing: its reply is safe
    trace           TEXT,                           -- the traceback of that failure
    reply           INTEGER,                        -- replies.id
    finished        REAL NOT NULL,
    seconds         REAL,                           -- how long the last exchange took
    input_tokens    INTEGER,                        -- of the last exchange
    output_tokens   INTEGER,
    representative  INTEGER,                        -- rows.seq of the row of an equal request that was sent for it; 0: in another run; NULL: it was sent itself
    saved           INTEGER                         -- what that exchange was charged, and this row was not, in picodollars; NULL: not known
) STRICT;

CREATE INDEX outcomes_failed ON outcomes (permanent, cause) WHERE state = 'failed';

CREATE TABLE duplicates (               -- rows that are not sent, since the reply to an equal request answers them
    row             INTEGER PRIMARY KEY,            -- rows.seq
    representative  INTEGER NOT NULL,               -- as outcomes.representative
    reply           INTEGER,                        -- replies.id; NULL: in this session the row waits for its representative
    number          INTEGER NOT NULL DEFAULT 0,     -- attempts.number of the exchange that brought it; 0: in another run
    input_tokens    INTEGER,                        -- of that exchange
    output_tokens   INTEGER,
    cost            INTEGER                         -- likewise, in picodollars; NULL: not known
) STRICT;

CREATE INDEX duplicates_waiting ON duplicates (representative, row) WHERE reply IS NULL;

CREATE TABLE reductions (               -- rows whose reply is a part of what another row is made of, which waits for all of them
    row             INTEGER PRIMARY KEY,            -- rows.seq
    target          INTEGER NOT NULL,               -- rows.seq of that row; the order of its parts is that of their positions
    cut             INTEGER NOT NULL DEFAULT 0      -- 0: map rows of a reduce row; 1: the text of the target in pieces, since the reply to it was cut off: no rows of the input, behind which they are
) STRICT;

CREATE INDEX reductions_target ON reductions (target);

CREATE TABLE totals (                   -- one line: the sums over all rows that are not absent, kept with every commit
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    rows            INTEGER NOT NULL DEFAULT 0,
    done            INTEGER NOT NULL DEFAULT 0,
    failed          INTEGER NOT NULL DEFAULT 0,
    retryable       INTEGER NOT NULL DEFAULT 0,     -- part of failed
    failed_post     INTEGER NOT NULL DEFAULT 0,     -- part of failed: in post-processing
    skipped         INTEGER NOT NULL DEFAULT 0,
    unknown         INTEGER NOT NULL DEFAULT 0,     -- without an outcome, and the last attempt is open
    truncated       INTEGER NOT NULL DEFAULT 0,     -- part of done, like the next two, odd and empty
    refused         INTEGER NOT NULL DEFAULT 0,
    filtered        INTEGER NOT NULL DEFAULT 0,
    deduplicated    INTEGER NOT NULL DEFAULT 0,     -- part of done: by the reply to an equal request
    saved_tokens    INTEGER NOT NULL DEFAULT 0,     -- what these rows would have used, in and out
    saved           INTEGER NOT NULL DEFAULT 0,     -- what these rows would have cost, in picodollars
    attempts        INTEGER NOT NULL DEFAULT 0,     -- all that ever left, like everything below
    replies         INTEGER NOT NULL DEFAULT 0,
    possibly_billed INTEGER NOT NULL DEFAULT 0,
    input_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens   INTEGER NOT NULL DEFAULT 0,
    cached_tokens   INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    without_usage   INTEGER NOT NULL DEFAULT 0,     -- replies that state no tokens
    cost            INTEGER NOT NULL DEFAULT 0,     -- charged for attempts that ended, in picodollars (1e-12 USD)
    cost_retries    INTEGER NOT NULL DEFAULT 0,     -- part of it: replies that did not match the schema
    cost_possibly_billed INTEGER NOT NULL DEFAULT 0,     -- part of it: attempts without an answer, in full
    cost_reserved   INTEGER NOT NULL DEFAULT 0,     -- not part of it: the worst that open attempts may cost
    unpriced        INTEGER NOT NULL DEFAULT 0,     -- attempts that were or may have been paid, at a price that is not known
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    cost_cached     INTEGER NOT NULL DEFAULT 0,     -- part of cost, by kind, like the next three; the rest is input
    cost_cache_write INTEGER NOT NULL DEFAULT 0,
    cost_output     INTEGER NOT NULL DEFAULT 0,
    cost_other      INTEGER NOT NULL DEFAULT 0,
    odd             INTEGER NOT NULL DEFAULT 0,     -- part of done
    empty           INTEGER NOT NULL DEFAULT 0,  -- part of done
    in_batches      INTEGER NOT NULL DEFAULT 0,     -- without an outcome, in a batch of the provider that has not been taken in
    numbers         INTEGER NOT NULL DEFAULT 0      -- part of done
) STRICT;

CREATE TABLE samples (                  -- the state of the run every few seconds
    at              REAL NOT NULL,
    state           TEXT NOT NULL                   -- JSON
) STRICT;

CREATE TABLE lanes (                    -- where attempts are sent: an endpoint, a key and a model
    id              INTEGER PRIMARY KEY,
    base_url        TEXT NOT NULL,                  -- empty: the simulator inside batchrun
    key_name        TEXT,                           -- the environment variable that names the key, never the key
    model           TEXT,
    mode            TEXT NOT NULL,                  -- the executor: live
    learned         TEXT                            -- JSON of what was learned about its limits; the next session starts there
) STRICT;

CREATE TABLE tickets (                  -- what an executor gave for attempts that it accepted, where that outlives the process
    id              INTEGER PRIMARY KEY,
    lane            INTEGER NOT NULL,               -- lanes.id
    state           TEXT NOT NULL,                  -- the executor's own word for how far it is
    remote          TEXT,                           -- the provider's name for it
    asked           REAL,                           -- when the provider was last asked for something
    seen            REAL,                           -- when it last answered
    detail          TEXT,                           -- JSON: the provider's object as last seen, and what the executor remembers
    chunk           INTEGER NOT NULL DEFAULT 0,     -- 1, 2, 3 within the run
    number          INTEGER NOT NULL DEFAULT 1,     -- which try at the call that submits it
    tag             TEXT NOT NULL DEFAULT '',       -- its label at the provider
    endpoint        TEXT NOT NULL DEFAULT '',
    model           TEXT NOT NULL DEFAULT '',
    rows            INTEGER NOT NULL DEFAULT 0,
    bytes           INTEGER NOT NULL DEFAULT 0,     -- of the file with its requests
    sha256          TEXT NOT NULL DEFAULT '',       -- of that file
    file            TEXT,                           -- the provider's name for it
    status          TEXT,                           -- the last that the provider said
    expires         REAL,                           -- when the provider gives it up
    next            REAL,                           -- when to look again
    note            TEXT                            -- why it is where it is, for people
) STRICT;

CREATE INDEX attempts_in_batches ON attempts (ticket, row) WHERE ended IS NULL AND ticket IS NOT NULL;

CREATE TABLE sessions (                 -- the processes that worked on the run
    id              INTEGER PRIMARY KEY,
    started         REAL NOT NULL,
    ended           REAL,                           -- NULL: under way, or killed and not opened since
    exit_code       INTEGER,                        -- NULL: under way, or killed; then ended is when it was last heard of
    pid             INTEGER NOT NULL,
    host            TEXT NOT NULL
) STRICT;

INSERT INTO totals (id) VALUES (1);
