-- The statements of the journal, by name; `queries.py` says how they are read.


-- Reading: pages of rows, sums for reports (reader.py)

-- name: text
iif(rows.text_at IS NULL, rows.text, long_text(rows.text_at, rows.text_size))

-- name: left_open
EXISTS (SELECT 1 FROM attempts WHERE attempts.row = rows.seq AND ended IS NULL)

-- Most runs have no tickets, reductions and duplicates: SQLite looks once for what does not depend on the row.
-- name: in_a_batch
(EXISTS (SELECT 1 FROM tickets)
 AND EXISTS (SELECT 1 FROM attempts WHERE attempts.row = rows.seq AND ended IS NULL AND ticket IS NOT NULL))

-- name: is_reduced
(EXISTS (SELECT 1 FROM reductions) AND EXISTS (SELECT 1 FROM reductions WHERE target = rows.seq))

-- name: is_part
(EXISTS (SELECT 1 FROM reductions) AND EXISTS (SELECT 1 FROM reductions WHERE reductions.row = rows.seq))

-- name: is_cut
(EXISTS (SELECT 1 FROM reductions) AND EXISTS (SELECT 1 FROM reductions WHERE reductions.row = rows.seq AND cut))

-- name: state_of_row
ifnull(o.state, CASE WHEN {in_a_batch} THEN 'in a batch' WHEN {left_open} THEN 'unknown' ELSE 'pending' END)

-- name: beside_text
o.value, replies.body, o.added, o.cause, o.message,
       ifnull(o.attempts, 0), o.finished, o.seconds, o.input_tokens, o.output_tokens, a.status, a.request_id, a.excerpt,
       o.trace, {state_of_row}, o.permanent, o.flags, o.post, rows.files,
       (SELECT json_array(base_url, key_name, model) FROM lanes WHERE lanes.id = a.lane)
FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN replies ON replies.id = o.reply
LEFT JOIN attempts AS a ON a.row = ifnull(o.representative, o.row) AND a.number = o.attempts

-- name: records
SELECT rows.seq, rows.position, rows.line, rows.key, {text}, {beside_text}

-- name: exchange_page
-- A text that is not asked for is not read from the disk.
SELECT rows.seq, rows.position, rows.line, rows.key, CASE WHEN o.state = 'skipped' THEN rows.text ELSE '' END, {beside_text}
WHERE rows.position > ? AND NOT {is_part} ORDER BY rows.position LIMIT ?

-- name: record_page
{records}
WHERE rows.position > ? AND NOT {is_part} ORDER BY rows.position LIMIT ?

-- name: record_range
{records}
WHERE rows.seq BETWEEN ? AND ? ORDER BY rows.seq

-- name: record_by_seq
{records}
WHERE rows.seq = ?

-- name: record_by_key
{records}
WHERE rows.key = ? ORDER BY rows.position IS NULL, rows.position LIMIT 1

-- name: record_by_line
{records}
WHERE rows.line = ? ORDER BY rows.position IS NULL, {is_part}, rows.position LIMIT 1

-- name: result_page
SELECT rows.position, {text}, o.value, replies.body, o.added, o.state
FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN replies ON replies.id = o.reply
WHERE rows.position > ? AND NOT {is_part} ORDER BY rows.position LIMIT ?

-- name: entries
SELECT rows.seq, rows.position, rows.line, rows.key, {state_of_row} AS shown, ifnull(o.permanent, 0), o.cause, o.message,
       o.flags, ifnull(o.attempts, 0), o.finished, o.seconds, o.input_tokens, o.output_tokens
FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq

-- name: entry_page
{entries}
WHERE rows.position > ?1 AND (?3 IS NULL OR shown = ?3) AND (?4 IS NULL OR o.cause = ?4) ORDER BY rows.position LIMIT ?2

-- name: slowest_rows
{entries}
WHERE o.seconds IS NOT NULL AND rows.position IS NOT NULL ORDER BY o.seconds DESC LIMIT ?

-- name: attempts_of_row
SELECT a.number, session, began, ended, seconds, status, cause, message, throttled, counted, invalid, possibly_billed, spent,
       input_tokens, output_tokens, request_id, excerpt, body
FROM attempts AS a LEFT JOIN replies ON replies.id = a.reply WHERE a.row = ? ORDER BY a.number

-- name: settled_requests
SELECT rows.seq, request FROM rows LEFT JOIN outcomes ON outcomes.row = rows.seq
WHERE rows.seq > ? AND position IS NOT NULL AND request <> '' AND (state = 'done' OR (state = 'failed' AND permanent)
OR EXISTS (SELECT 1 FROM duplicates WHERE duplicates.row = rows.seq AND duplicates.reply IS NOT NULL)) ORDER BY rows.seq LIMIT ?

-- name: offered_requests
SELECT rows.seq, request FROM rows JOIN outcomes AS o ON o.row = rows.seq
WHERE rows.seq > ? AND o.reply IS NOT NULL AND (state = 'done' OR post) ORDER BY rows.seq LIMIT ?

-- name: spent_rows
SELECT o.row, line, key, {text}, request, total(a.input_tokens), total(a.output_tokens),
       CASE WHEN count(a.cost) THEN total(a.cost) END, max(o.seconds), count(*) - total(throttled)
FROM outcomes AS o JOIN rows ON rows.seq = o.row JOIN attempts AS a ON a.row = o.row
WHERE o.row % ? = 0 AND o.row > ? AND o.attempts > 0 AND o.reply IS NOT NULL AND position IS NOT NULL AND NOT a.spent
GROUP BY o.row ORDER BY o.row LIMIT ?

-- name: failures_by_cause
SELECT ifnull(cause, ''), count(*), ifnull(min(message), ''), min(row), sum(permanent = 0)
FROM outcomes JOIN rows ON rows.seq = outcomes.row
WHERE state = 'failed' AND position IS NOT NULL GROUP BY cause ORDER BY count(*) DESC LIMIT ?

-- name: failure_counts
-- All failures by their index, less those of the few rows that are absent: thirty times as fast as asking each row.
SELECT cause, sum(found) FROM (
    SELECT ifnull(cause, '') AS cause, count(*) AS found FROM outcomes WHERE state = 'failed' GROUP BY 1
    UNION ALL
    SELECT ifnull(cause, ''), -count(*) FROM rows CROSS JOIN outcomes ON outcomes.row = rows.seq
    WHERE position IS NULL AND state = 'failed' GROUP BY 1
) GROUP BY cause HAVING sum(found) > 0 ORDER BY sum(found) DESC LIMIT ?

-- name: failed_attempts
SELECT cause, count(*), total(possibly_billed)
FROM attempts WHERE cause IS NOT NULL GROUP BY cause ORDER BY count(*) DESC LIMIT ?

-- name: replies_by_tier
SELECT ifnull(tier, 'default'), count(*), CAST(total(attempts.cost) AS INTEGER)
FROM attempts JOIN rows ON rows.seq = attempts.row
WHERE attempts.reply IS NOT NULL AND position IS NOT NULL GROUP BY tier ORDER BY count(*) DESC

-- name: shares_by_lane
SELECT lanes.id, base_url, key_name, model, count(*), count(reply), sum(throttled), count(cause) - sum(throttled), sum(possibly_billed),
ifnull(sum(input_tokens), 0), ifnull(sum(output_tokens), 0), ifnull(sum(cost), 0), avg(CASE WHEN reply IS NOT NULL THEN seconds END)
FROM lanes JOIN attempts ON attempts.lane = lanes.id GROUP BY lanes.id ORDER BY lanes.id

-- name: lines_of_cause
SELECT DISTINCT line FROM outcomes JOIN rows ON rows.seq = outcomes.row
WHERE state = 'failed' AND permanent IN (0, 1) AND cause IS ? AND position IS NOT NULL LIMIT 5

-- name: added_members
SELECT row, added FROM outcomes
WHERE row > ? AND added IS NOT NULL ORDER BY row LIMIT ?

-- name: find_meta
SELECT value FROM meta WHERE name = ?

-- name: put_meta
INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)

-- name: is_ingested
SELECT 1 FROM meta WHERE name = 'intake' AND value = 'done'

-- name: sessions
SELECT id, started, ended, exit_code, pid, host FROM sessions

-- name: timings
SELECT ended, seconds, status FROM attempts WHERE row % ? = 0 AND ended IS NOT NULL AND status IS NOT NULL

-- name: samples
SELECT at, state FROM samples WHERE at > ? ORDER BY rowid

-- name: plain_value
SELECT 1 FROM outcomes WHERE substr(value, 1, 1) <> '{' LIMIT 1

-- name: texts_page
SELECT position, {text} FROM rows
WHERE position > ? AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq AND state = 'skipped') AND NOT {is_part}
ORDER BY position LIMIT ?

-- name: places_of_texts
SELECT line, text_at, text_size FROM rows WHERE text_at IS NOT NULL ORDER BY text_at


-- Looking through rows: lists, filters, order (browse.py)

-- name: reply_text
CASE WHEN o.value IS NOT NULL THEN o.value WHEN json_valid(body) THEN coalesce(
  CASE WHEN json_extract(body, '$.choices[0].message.content') LIKE '<think>%</think>%' THEN
    ltrim(substr(json_extract(body, '$.choices[0].message.content'), instr(json_extract(body, '$.choices[0].message.content'), '</think>') + 8), char(9, 10, 13, 32)) END,
  json_extract(body, '$.choices[0].message.content'), json_extract(body, '$.output[#-1].content[0].text'),
  json_extract(body, '$.choices[0].text'), substr(body, 1, 400)) ELSE body END

-- name: listed_rows
SELECT rows.seq, rows.position, rows.line, rows.key, {state_of_row} AS shown, ifnull(o.permanent, 0), o.cause, o.message, o.flags,
       ifnull(o.attempts, 0), o.seconds, o.input_tokens, o.output_tokens,
       substr(iif(rows.text_at IS NULL, rows.text, text_beginning(rows.text_at, rows.text_size)), 1, 400), substr({reply_text}, 1, 400)
FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN replies ON replies.id = o.reply

-- name: listed_page
{listed_rows}
WHERE rows.position > ? AND rows.position <= ? ORDER BY rows.position

-- name: listed_at
{listed_rows}
WHERE rows.position IN (SELECT value FROM json_each(?))

-- name: wanted_rows
(:state IS NULL OR {state_of_row} = :state) AND (:cause IS NULL OR o.cause = :cause)

-- name: wanted_text
({text} LIKE :text ESCAPE '\' OR rows.key LIKE :text ESCAPE '\' OR o.message LIKE :text ESCAPE '\'
 OR o.value LIKE :text ESCAPE '\' OR body LIKE :text ESCAPE '\')

-- name: wanted_order
CASE :order WHEN 'latency' THEN -ifnull(o.seconds, -1)
WHEN 'tokens' THEN -ifnull(o.input_tokens, 0) - ifnull(o.output_tokens, 0) ELSE 0 END, rows.position

-- name: positions_stretch
SELECT rows.position FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq
WHERE {wanted_rows} AND rows.position > :after AND rows.position <= :until ORDER BY rows.position

-- name: positions_stretch_with_text
SELECT rows.position FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN replies ON replies.id = o.reply
WHERE {wanted_rows} AND {wanted_text} AND rows.position > :after AND rows.position <= :until ORDER BY rows.position

-- name: positions
SELECT rows.position FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq
WHERE {wanted_rows} AND rows.position IS NOT NULL ORDER BY {wanted_order}

-- name: positions_with_text
SELECT rows.position FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN replies ON replies.id = o.reply
WHERE {wanted_rows} AND {wanted_text} AND rows.position IS NOT NULL ORDER BY {wanted_order}

-- name: positions_of_failures
-- By the index of failures.
SELECT rows.position FROM outcomes AS o CROSS JOIN rows ON rows.seq = o.row
WHERE o.state = 'failed' AND o.permanent IN (0, 1) AND (:cause IS NULL OR o.cause = :cause) AND rows.position IS NOT NULL
ORDER BY {wanted_order}


-- Rows that are still to be answered (pending.py)

-- name: target_of_row
CASE WHEN EXISTS (SELECT 1 FROM reductions) THEN (SELECT target FROM reductions WHERE reductions.row = rows.seq) END

-- name: is_awaited
(EXISTS (SELECT 1 FROM duplicates)
 AND EXISTS (SELECT 1 FROM duplicates WHERE duplicates.representative = rows.seq AND reply IS NULL))

-- name: pending_columns
rows.seq, position, line, key, {text}, files, {target_of_row}

-- name: still_pending
-- Rows in a batch that has not ended are in `tickets` alone: they are never sent otherwise. Nor are reduce rows here.
FROM rows
WHERE position > ? AND position <= ? AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq)
AND NOT (EXISTS (SELECT 1 FROM duplicates) AND EXISTS (SELECT 1 FROM duplicates WHERE duplicates.row = rows.seq))
AND NOT {in_a_batch} AND NOT {is_reduced} AND NOT {is_cut}
ORDER BY position LIMIT ?

-- name: pending_rows
SELECT {pending_columns}, {is_awaited}, NULL, 0, ''
{still_pending}

-- name: pending_long_rows
SELECT rows.seq, position, line, key, text, files, {target_of_row}, {is_awaited}, text_at, text_size, ready
{still_pending}

-- name: reduce_rows
-- Rows that can go on: all their parts are done, or one of them never will be; and pieces of texts that were divided.
SELECT {pending_columns} FROM (SELECT target AS seq FROM reductions WHERE target > :after AND (:target IS NULL OR target = :target)
                              UNION SELECT row FROM reductions WHERE cut AND row > :after AND (:target IS NULL OR target = :target)) AS found
CROSS JOIN rows ON rows.seq = found.seq
WHERE position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq) AND NOT {in_a_batch}
AND (EXISTS (SELECT 1 FROM reductions AS part JOIN outcomes AS o ON o.row = part.row WHERE part.target = rows.seq AND state <> 'done')
     OR NOT EXISTS (SELECT 1 FROM reductions AS part LEFT JOIN outcomes AS o ON o.row = part.row
                    WHERE part.target = rows.seq AND state IS NOT 'done'))
ORDER BY rows.seq LIMIT :limit

-- name: parts_of_row
SELECT o.row IS NULL, o.value, body FROM reductions JOIN rows ON rows.seq = reductions.row
LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN replies ON replies.id = o.reply
WHERE reductions.target = ? ORDER BY rows.position

-- name: failed_part
SELECT permanent, cause, message FROM reductions JOIN rows ON rows.seq = reductions.row JOIN outcomes AS o ON o.row = rows.seq
WHERE reductions.target = ? AND state <> 'done' ORDER BY permanent DESC, rows.position LIMIT 1

-- name: pending_reductions
SELECT line, key, {text}, (SELECT count(*) FROM reductions WHERE target = rows.seq) FROM rows
WHERE position IS NOT NULL AND {is_reduced} AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq)

-- name: with_parts
WITH RECURSIVE wanted(seq) AS (
    SELECT seq FROM rows WHERE position IN (SELECT value FROM json_each(?))
    UNION SELECT reductions.row FROM reductions JOIN wanted ON reductions.target = wanted.seq
)
SELECT position FROM rows JOIN wanted USING (seq) WHERE position IS NOT NULL

-- name: rows_in_batch
SELECT rows.seq, position, line, rows.key, {text}, files, (SELECT target FROM reductions WHERE reductions.row = rows.seq),
       EXISTS (SELECT 1 FROM duplicates WHERE duplicates.representative = rows.seq AND duplicates.reply IS NULL), {is_reduced},
       EXISTS (SELECT 1 FROM attempts AS other WHERE other.row = rows.seq AND other.number <> a.number), a.number, a.cost, a.charged_tokens
FROM json_each(?) AS wanted CROSS JOIN rows ON rows.seq = wanted.value
CROSS JOIN attempts AS a ON a.row = rows.seq AND a.ended IS NULL AND a.ticket = ifnull(?, a.ticket)
WHERE NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq)

-- name: leased_rows
-- As one JSON text, a list of each column: a step for each row would give the interpreter's lock away a thousand times a page.
SELECT json_array(json_group_array(a.row), json_group_array(a.number), json_group_array(a.cost), json_group_array(a.charged_tokens),
       json_group_array((EXISTS (SELECT 1 FROM duplicates)
                         AND EXISTS (SELECT 1 FROM duplicates WHERE duplicates.representative = a.row AND duplicates.reply IS NULL))
                        OR (EXISTS (SELECT 1 FROM reductions)
                            AND EXISTS (SELECT 1 FROM reductions WHERE reductions.row = a.row OR target = a.row))))
FROM json_each(?) AS wanted CROSS JOIN attempts AS a ON a.row = wanted.value AND a.ended IS NULL AND a.ticket = ifnull(?, a.ticket)
WHERE NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = a.row)

-- name: places_of_rows
SELECT position, line, rows.key FROM json_each(?) AS wanted CROSS JOIN rows ON rows.seq = wanted.value

-- name: standings
SELECT rows.seq, position, {state_of_row}, ifnull((SELECT max(number) FROM attempts WHERE attempts.row = rows.seq), 0)
FROM json_each(?) AS wanted CROSS JOIN rows ON rows.seq = wanted.value LEFT JOIN outcomes AS o ON o.row = rows.seq

-- name: answers_of_rows
SELECT a.row, body, excerpt FROM json_each(?) AS wanted CROSS JOIN attempts AS a ON a.row = wanted.value
LEFT JOIN replies ON replies.id = a.reply WHERE body IS NOT NULL OR excerpt IS NOT NULL

-- name: leases_of_ticket
SELECT row, number, cost, charged_tokens FROM attempts INDEXED BY attempts_in_batches
WHERE ticket = ? AND ended IS NULL AND row > ? ORDER BY row LIMIT ?

-- name: lost_in_ticket
-- Attempts of a ticket that was given up, and whether a reply could still answer their rows: they have none, and are in no batch.
SELECT a.row, a.number, a.cost, a.charged_tokens,
       NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = a.row AND (state <> 'failed' OR post))
       AND NOT EXISTS (SELECT 1 FROM attempts AS other WHERE other.row = a.row AND NOT other.spent
                       AND (other.reply IS NOT NULL OR (other.ended IS NULL AND other.ticket IS NOT NULL)))
FROM json_each(?) AS wanted CROSS JOIN attempts AS a ON a.row = wanted.value AND a.ticket = ?
WHERE a.possibly_billed AND a.reply IS NULL AND NOT a.spent

-- name: fail_no_more
DELETE FROM outcomes WHERE row = ? AND state = 'failed' RETURNING permanent

-- name: make_last
-- The answer to an attempt came after those to later ones.
UPDATE attempts SET number = (SELECT max(number) + 1 FROM attempts AS other WHERE other.row = ?1)
WHERE row = ?1 AND number = ?2 AND EXISTS (SELECT 1 FROM attempts AS other WHERE other.row = ?1 AND other.number > ?2)
RETURNING number

-- name: lost_attempt
SELECT cost FROM attempts WHERE row = ? AND number = ? AND possibly_billed AND reply IS NULL

-- name: worst_of_ticket
SELECT sum(cost) FROM attempts INDEXED BY attempts_in_batches WHERE ticket = ? AND ended IS NULL

-- name: answered_rows
SELECT {pending_columns}, EXISTS (SELECT 1 FROM duplicates AS other WHERE other.representative = rows.seq AND other.reply IS NULL),
       duplicates.representative, number, input_tokens, output_tokens, cost, reply
FROM duplicates JOIN rows ON rows.seq = duplicates.row
WHERE duplicates.row > ? AND reply IS NOT NULL AND position IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = duplicates.row)
ORDER BY duplicates.row LIMIT ?

-- name: following_rows
SELECT {pending_columns} FROM duplicates JOIN rows ON rows.seq = duplicates.row
WHERE duplicates.representative = ? AND duplicates.row > ? AND reply IS NULL AND position IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = duplicates.row)
ORDER BY duplicates.row LIMIT ?

-- name: shared_reply
SELECT ifnull(o.representative, o.row), o.attempts, o.reply, o.input_tokens, o.output_tokens, iif(o.representative IS NULL, a.cost, o.saved),
       ifnull(body, '')
FROM outcomes AS o LEFT JOIN attempts AS a ON a.row = o.row AND a.number = o.attempts
LEFT JOIN replies ON replies.id = o.reply WHERE o.row = ?

-- name: failed_representatives
SELECT row, cause, message FROM outcomes
WHERE row IN (SELECT representative FROM duplicates WHERE reply IS NULL) ORDER BY row

-- name: pending_positions
SELECT position FROM rows
WHERE position <= ? AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq) AND NOT {in_a_batch}

-- name: histories
-- The columns outside of an aggregate are those of the attempt with max(number): sqlite.org/lang_select.html
SELECT attempts.row, max(number),
       sum(counted AND NOT spent AND ended IS NOT NULL), sum(deadline AND counted AND NOT spent), sum(invalid AND NOT spent),
       ended IS NULL, CASE WHEN spent THEN NULL ELSE reply END, CASE WHEN spent THEN 0 ELSE lane END
FROM json_each(?) AS wanted CROSS JOIN attempts ON attempts.row = wanted.value
GROUP BY attempts.row

-- name: histories_at_fallbacks
SELECT attempts.row, sum(counted AND ended IS NOT NULL), sum(deadline AND counted), sum(invalid)
FROM json_each(:rows) AS wanted CROSS JOIN attempts ON attempts.row = wanted.value
WHERE NOT spent AND lane IN (SELECT value FROM json_each(:fallbacks))
GROUP BY attempts.row

-- name: causes_before_fallbacks
SELECT attempts.row, max(number), cause, message
FROM json_each(:rows) AS wanted CROSS JOIN attempts ON attempts.row = wanted.value
WHERE NOT spent AND ended IS NOT NULL AND lane NOT IN (SELECT value FROM json_each(:fallbacks))
GROUP BY attempts.row

-- name: any_attempt
SELECT 1 FROM attempts WHERE row BETWEEN ? AND ? LIMIT 1

-- name: reply_bodies
SELECT replies.id, body FROM json_each(?) AS wanted CROSS JOIN replies ON replies.id = wanted.value


-- The writer (writer.py)

-- name: open_attempts
SELECT row, number, cost, charged_tokens FROM attempts WHERE ended IS NULL AND ticket IS NULL AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = attempts.row)

-- name: last_reply
SELECT ifnull(max(id), 0) FROM replies

-- name: last_attempt
SELECT number, reply, seconds, input_tokens, output_tokens FROM attempts
WHERE row = ? AND spent = 0 ORDER BY number DESC LIMIT 1


-- An input that is read again, beside what the journal has (drift.py)

-- name: create_stage
CREATE TEMP TABLE stage (
    position INTEGER PRIMARY KEY, line INTEGER NOT NULL, key TEXT NOT NULL, occurrence INTEGER NOT NULL DEFAULT 0,
    request TEXT NOT NULL, text TEXT NOT NULL, files TEXT NOT NULL
)

-- name: known_rows
SELECT position, line, key, request, {text}, files FROM rows WHERE position > ? AND position <= ? AND NOT {is_cut} ORDER BY position

-- name: stage_known_rows
INSERT INTO temp.stage (position, line, key, request, text, files)
SELECT position, line, key, request, {text}, files FROM rows WHERE position <= ?

-- name: stage_row
INSERT INTO temp.stage (position, line, key, request, text, files) VALUES (?, ?, ?, ?, ?, ?)

-- name: staged_pair
rows JOIN temp.stage ON stage.key = rows.key AND stage.occurrence = rows.occurrence

-- name: other_request
rows.request <> stage.request

-- name: retouched
rows.request = stage.request AND rows.position IS NOT NULL
AND (rows.position <> stage.position OR rows.line <> stage.line OR {text} <> stage.text OR rows.files <> stage.files)

-- name: count_differences
SELECT total({other_request}),
       total({other_request} AND EXISTS (SELECT 1 FROM outcomes WHERE row = rows.seq AND state = 'done')),
       total(rows.position IS NULL),
       total({retouched})
FROM {staged_pair}

-- name: staged_only
FROM temp.stage WHERE NOT EXISTS
(SELECT 1 FROM rows WHERE rows.key = stage.key AND rows.occurrence = stage.occurrence)

-- name: absent
rows.position IS NOT NULL AND NOT {is_cut} AND NOT EXISTS
(SELECT 1 FROM temp.stage WHERE stage.key = rows.key AND stage.occurrence = rows.occurrence)

-- name: count_added
SELECT count(*) {staged_only}

-- name: count_absent
SELECT count(*) FROM rows WHERE {absent}

-- name: changed_examples
SELECT stage.line, stage.key FROM {staged_pair} WHERE {other_request} ORDER BY stage.position LIMIT 5

-- name: create_changed
CREATE TEMP TABLE changed AS SELECT rows.seq FROM {staged_pair} WHERE {other_request}

-- name: count_in_batches
SELECT count(*) FROM attempts JOIN rows ON rows.seq = attempts.row WHERE ended IS NULL AND ticket IS NOT NULL AND NOT {is_cut}
AND NOT EXISTS (SELECT 1 FROM temp.stage
                WHERE stage.key = rows.key AND stage.occurrence = rows.occurrence AND stage.request = rows.request)

-- name: lose_changed
UPDATE attempts SET ended = began, seconds = 0, status = 0, cause = 'lost', counted = 0, possibly_billed = 1, cost_other = cost
WHERE ended IS NULL AND row IN temp.changed

-- name: spend_changed
UPDATE attempts SET spent = 1 WHERE spent = 0 AND row IN temp.changed

-- name: delete_changed_outcomes
DELETE FROM outcomes WHERE row IN temp.changed

-- name: delete_changed_shared
DELETE FROM duplicates WHERE row IN temp.changed

-- name: mark_absent
UPDATE rows SET position = NULL WHERE {absent}

-- name: move_rows
UPDATE rows SET position = stage.position, line = stage.line, request = stage.request, files = stage.files
FROM temp.stage
WHERE stage.key = rows.key AND stage.occurrence = rows.occurrence
  AND (rows.position IS NOT stage.position OR rows.line <> stage.line
       OR rows.request <> stage.request OR rows.files <> stage.files)

-- name: change_texts
UPDATE rows SET text = stage.text, text_at = NULL, text_size = NULL, ready = ''
FROM temp.stage WHERE stage.key = rows.key AND stage.occurrence = rows.occurrence AND {text} <> stage.text

-- name: add_rows
INSERT INTO rows (position, line, key, occurrence, request, text, files)
SELECT position, line, key, occurrence, request, text, files {staged_only} ORDER BY position

-- name: drop_changed
DROP TABLE IF EXISTS temp.changed

-- name: drop_stage
DROP TABLE IF EXISTS temp.stage

-- name: skip_new_row
INSERT INTO outcomes (row, state, permanent, cause, message, attempts, finished)
SELECT seq, 'skipped', 1, 'invalid line', ?, 0, ? FROM rows
WHERE position = ? AND NOT EXISTS (SELECT 1 FROM outcomes WHERE row = seq)


-- Rows of equal requests (duplicates.py)

-- name: is_answer
o.reply IS NOT NULL AND (o.state = 'done' OR o.post)

-- name: has_reply
(duplicates.reply IS NOT NULL
 OR (SELECT reply FROM attempts WHERE attempts.row = rows.seq AND NOT spent ORDER BY number DESC LIMIT 1) IS NOT NULL)

-- name: forget_followers
DELETE FROM duplicates WHERE reply IS NULL

-- name: is_final_failure
state = 'failed' AND permanent = 1 AND NOT post

-- name: follow_the_failed
-- A row that failed permanently may itself have waited for one that failed and can be retried.
UPDATE duplicates SET representative = source FROM (
    SELECT ifnull(duplicates.representative, o.row) AS first, max(o.row) AS source
    FROM outcomes AS o LEFT JOIN duplicates ON duplicates.row = o.row AND duplicates.reply IS NULL WHERE {is_final_failure} GROUP BY 1
) WHERE representative = first AND reply IS NULL

-- name: keep_followers_of_the_failed
DELETE FROM duplicates WHERE reply IS NULL AND (EXISTS (SELECT 1 FROM outcomes AS o WHERE o.row = duplicates.row)
OR NOT EXISTS (SELECT 1 FROM outcomes AS o WHERE o.row = duplicates.representative AND {is_final_failure}))

-- name: any_follower
SELECT 1 FROM duplicates WHERE reply IS NULL LIMIT 1

-- name: pair_rows
-- `wanted(position)` is whether the row is to be sent.
WITH known AS (
  SELECT rows.seq, request, position, CASE WHEN o.row IS NOT NULL THEN 0 WHEN {has_reply} THEN 1 ELSE 2 END AS rank
  FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN duplicates ON duplicates.row = rows.seq
  WHERE request <> '' AND NOT {is_reduced} AND NOT {is_cut} AND CASE WHEN o.row IS NOT NULL THEN {is_answer} WHEN position IS NULL THEN 0
                               WHEN duplicates.row IS NOT NULL AND duplicates.reply IS NULL THEN 0 ELSE wanted(position) END
), equal AS (
  SELECT seq, rank, first_value(seq) OVER (PARTITION BY request ORDER BY rank, position) AS first FROM known
)
INSERT INTO duplicates (row, representative, reply, number, input_tokens, output_tokens, cost)
SELECT seq, ifnull(o.representative, first), o.reply, ifnull(o.attempts, 0), o.input_tokens, o.output_tokens,
       iif(o.representative IS NULL, a.cost, o.saved)
FROM equal LEFT JOIN outcomes AS o ON o.row = first LEFT JOIN attempts AS a ON a.row = o.row AND a.number = o.attempts
WHERE rank = 2 AND seq <> first

-- name: keep_shared
-- A reply that is shared stays shared where the outcome that rests on it is about to be deleted.
INSERT OR REPLACE INTO duplicates (row, representative, reply, number, input_tokens, output_tokens, cost)
SELECT row, representative, reply, attempts, input_tokens, output_tokens, saved FROM outcomes
WHERE representative IS NOT NULL AND reply IS NOT NULL AND (state = 'done' OR post)

-- name: create_offered
CREATE TEMP TABLE offered AS
SELECT request, row_number() OVER (PARTITION BY request ORDER BY position IS NULL, position) AS turn, o.reply,
       o.input_tokens, o.output_tokens, iif(o.representative IS NULL, a.cost, o.saved) AS cost
FROM other.outcomes AS o JOIN other.rows ON rows.seq = o.row
LEFT JOIN other.attempts AS a ON a.row = o.row AND a.number = o.attempts
WHERE o.reply IS NOT NULL AND (o.state = 'done' OR o.post)

-- name: create_asked
CREATE TEMP TABLE asked AS
SELECT rows.seq, request, row_number() OVER (PARTITION BY request ORDER BY (:once AND NOT asks), position) AS turn, asks
FROM (SELECT rows.seq, request, position, o.row IS NULL AND NOT {has_reply} AS asks
      FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN duplicates ON duplicates.row = rows.seq
      WHERE position IS NOT NULL AND request IN (SELECT request FROM temp.offered) AND NOT {is_reduced} AND NOT {is_cut}) AS rows

-- name: create_taken
CREATE TEMP TABLE taken AS
SELECT seq, (SELECT ifnull(max(id), 0) FROM main.replies) + row_number() OVER (ORDER BY seq) AS id, reply,
       input_tokens, output_tokens, cost
FROM temp.asked JOIN temp.offered USING (request, turn) WHERE asks AND (turn = 1 OR NOT :once)

-- name: index_offered
CREATE INDEX temp.offered_request ON offered (request, turn)

-- name: count_taken
SELECT ifnull(max(rowid), 0) FROM temp.taken

-- name: copy_replies
INSERT INTO main.replies (id, row, number, body)
SELECT taken.id, seq, 0, body FROM temp.taken JOIN other.replies ON replies.id = taken.reply
WHERE taken.rowid > ? AND taken.rowid <= ?

-- name: copy_shared
INSERT OR REPLACE INTO duplicates (row, representative, reply, input_tokens, output_tokens, cost)
SELECT seq, 0, id, input_tokens, output_tokens, cost FROM temp.taken WHERE taken.rowid > ? AND taken.rowid <= ?

-- name: drop_offered
DROP TABLE IF EXISTS temp.offered

-- name: drop_asked
DROP TABLE IF EXISTS temp.asked

-- name: drop_taken
DROP TABLE IF EXISTS temp.taken


-- What a run does before and after it sends (store.py)

-- name: reopened
state = 'failed' AND permanent IN (0, :good) AND (:cause IS NULL OR cause = :cause) AND (:positions IS NULL
OR row IN (SELECT seq FROM rows WHERE position IN (SELECT value FROM json_each(:positions))))

-- name: count_reopened
SELECT count(*), total(NOT permanent), total(post) FROM outcomes JOIN rows ON rows.seq = outcomes.row
WHERE {reopened} AND position IS NOT NULL

-- name: spend_reopened
-- A reply that only post-processing failed on is not spent: it is post-processed again, and nothing is sent. Nor is an attempt
-- in a batch that was given up: a late reply may answer it.
UPDATE attempts SET spent = 1 WHERE spent = 0 AND row IN (SELECT row FROM outcomes WHERE {reopened} AND NOT post)
AND NOT (possibly_billed AND reply IS NULL AND ifnull(ticket, 0) IN (SELECT id FROM tickets WHERE tickets.state = 'forgotten'))

-- name: forget_reopened
DELETE FROM duplicates WHERE row IN (SELECT row FROM outcomes WHERE {reopened} AND NOT post)

-- name: keep_reopened
{keep_shared} AND {reopened}

-- name: delete_reopened
DELETE FROM outcomes WHERE {reopened}

-- name: is_done_there
state = 'done' AND row IN (SELECT seq FROM rows WHERE position IN (SELECT value FROM json_each(?)))

-- name: spend_done
UPDATE attempts SET spent = 1 WHERE spent = 0 AND row IN (SELECT row FROM outcomes WHERE {is_done_there})

-- name: forget_done
DELETE FROM duplicates WHERE row IN (SELECT row FROM outcomes WHERE {is_done_there})

-- name: delete_done
DELETE FROM outcomes WHERE {is_done_there}

-- name: is_present
row IN (SELECT seq FROM rows WHERE position IS NOT NULL)

-- name: delete_reply_outcomes
DELETE FROM outcomes WHERE reply IS NOT NULL AND (state = 'done' OR (state = 'failed' AND post)) AND {is_present}

-- name: keep_present
{keep_shared} AND {is_present}

-- name: forget_meta
DELETE FROM meta WHERE name = ?

-- name: begin_session
INSERT INTO sessions (started, pid, host) VALUES (?, ?, ?) RETURNING id

-- name: end_session
UPDATE sessions SET ended = ?, exit_code = ? WHERE id = ?

-- name: find_lane
SELECT id, learned FROM lanes WHERE base_url = ? AND key_name IS ? AND model IS ? AND mode = ?

-- name: add_lane
INSERT INTO lanes (base_url, key_name, model, mode) VALUES (?, ?, ?, ?) RETURNING id, learned

-- name: end_killed_session
UPDATE sessions SET ended = max(started, ifnull((SELECT at FROM samples ORDER BY rowid DESC LIMIT 1), 0))
WHERE ended IS NULL

-- name: charged
-- A reply of unknown price is charged what was reserved for it.
SELECT total(ifnull(cost, iif(status = 200 OR reply IS NOT NULL OR possibly_billed, reserved, 0))),
       total(charged_tokens), count(*), max(0, ifnull(max(cost - reserved), 0)),
       json_group_array(DISTINCT tier) FILTER (WHERE tier IS NOT NULL)
FROM attempts WHERE cause IS NOT 'stopped before it left'


-- The first intake (ingest.py)

-- name: insert_row
INSERT INTO rows (position, line, key, request, text, files) VALUES (?, ?, ?, ?, ?, ?)

-- name: insert_long_row
INSERT INTO rows (position, line, key, request, text, files, text_at, text_size, ready) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_reduction
INSERT INTO reductions (row, target) VALUES (?, ?)

-- name: clear_reductions
DELETE FROM reductions WHERE NOT cut

-- name: leave_pieces
-- A text that changed or is absent is not in pieces any more.
UPDATE rows SET position = NULL WHERE seq IN (SELECT row FROM reductions WHERE cut
AND (target IN temp.changed OR target IN (SELECT seq FROM rows WHERE position IS NULL)))

-- name: forget_pieces
DELETE FROM reductions WHERE cut AND row IN (SELECT seq FROM rows WHERE position IS NULL)

-- name: move_pieces
UPDATE rows SET position = (SELECT max(position) FROM temp.stage) + (SELECT count(*) FROM reductions WHERE cut AND reductions.row <= rows.seq)
WHERE seq IN (SELECT row FROM reductions WHERE cut)

-- name: add_piece
-- The identity is a new one each time, so that nothing is taken for the piece of an earlier text.
INSERT INTO rows (position, line, key, occurrence, request, text)
VALUES ((SELECT max(position) + 1 FROM rows), :line, :key,
        (SELECT ifnull(max(occurrence) + 1, 0) FROM rows WHERE key = :key), :request, :text) RETURNING seq

-- name: add_piece_of
INSERT INTO reductions (row, target, cut) VALUES (?, ?, 1)

-- name: follow_reduction
-- The row and its target are given by their positions.
INSERT INTO reductions (row, target) SELECT rows.seq, other.seq FROM rows JOIN rows AS other ON other.position = ?2 WHERE rows.position = ?1

-- name: clear_rows
DELETE FROM rows

-- name: clear_outcomes
DELETE FROM outcomes

-- name: drop_position_index
DROP INDEX IF EXISTS rows_position

-- name: drop_identity_index
DROP INDEX IF EXISTS rows_identity

-- name: index_positions
CREATE INDEX rows_position ON rows (position)

-- name: index_rows
CREATE UNIQUE INDEX rows_identity ON rows (key, occurrence)

-- name: index_stage
CREATE UNIQUE INDEX temp.stage_identity ON stage (key, occurrence)

-- name: number_equal_rows
UPDATE rows SET occurrence = equal.occurrence
FROM (SELECT position, row_number() OVER (PARTITION BY key ORDER BY position) - 1 AS occurrence
      FROM rows WHERE key IN (SELECT key FROM rows GROUP BY key HAVING count(*) > 1)) AS equal
WHERE rows.position = equal.position AND equal.occurrence > 0

-- name: number_equal_staged
UPDATE temp.stage SET occurrence = equal.occurrence
FROM (SELECT position, row_number() OVER (PARTITION BY key ORDER BY position) - 1 AS occurrence
      FROM temp.stage WHERE key IN (SELECT key FROM temp.stage GROUP BY key HAVING count(*) > 1)) AS equal
WHERE stage.position = equal.position AND equal.occurrence > 0

-- name: equal_rows
SELECT key, line, {text}, request FROM rows
WHERE key IN (SELECT key FROM rows GROUP BY key HAVING count(*) > 1) ORDER BY key, position

-- name: equal_staged
SELECT key, line, text, request FROM temp.stage
WHERE key IN (SELECT key FROM temp.stage GROUP BY key HAVING count(*) > 1) ORDER BY key, position

-- name: skip_row
INSERT INTO outcomes (row, state, permanent, cause, message, attempts, finished)
VALUES (?, 'skipped', 1, 'invalid line', ?, 0, ?)


-- What one commit writes (group.py)

-- name: begin_attempt
INSERT INTO attempts (row, number, session, began, cost, charged_tokens, lane) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: ended_columns
ended, seconds, status, input_tokens, output_tokens, cached_tokens, reasoning_tokens, cache_write_tokens, cost, charged_tokens,
cost_cached, cost_cache_write, cost_output, cost_other, request_id, reply

-- name: set_ended
-- An attempt may be begun before there is a slot for it; it is known when it left where it took any time.
ON CONFLICT (row, number) DO UPDATE SET reserved = iif(ended IS NULL, cost, reserved),
ended = excluded.ended, seconds = excluded.seconds, status = excluded.status, input_tokens = excluded.input_tokens,
output_tokens = excluded.output_tokens, cached_tokens = excluded.cached_tokens, reasoning_tokens = excluded.reasoning_tokens,
cache_write_tokens = excluded.cache_write_tokens, cost = excluded.cost, charged_tokens = excluded.charged_tokens,
cost_cached = excluded.cost_cached, cost_cache_write = excluded.cost_cache_write, cost_output = excluded.cost_output,
cost_other = excluded.cost_other, request_id = excluded.request_id, reply = excluded.reply,
began = iif(excluded.seconds > 0, excluded.began, began), cause = excluded.cause, message = excluded.message,
tier = excluded.tier, throttled = excluded.throttled, counted = excluded.counted, deadline = excluded.deadline,
invalid = excluded.invalid, possibly_billed = excluded.possibly_billed, excerpt = excluded.excerpt

-- name: end_paid_attempt
INSERT INTO attempts (row, number, session, began, {ended_columns})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
{set_ended}

-- name: end_answered
-- Of attempts that were in a batch; what else an attempt has of its end is what an open one has.
UPDATE attempts SET reserved = cost, status = 200, seconds = 0, ended = ?3, reply = ?4, input_tokens = ?5, output_tokens = ?6,
cached_tokens = ?7, reasoning_tokens = ?8, cache_write_tokens = ?9, cost = ?10, charged_tokens = ?11, cost_cached = ?12,
cost_cache_write = ?13, cost_output = ?14, cost_other = ?15, tier = ?16
WHERE row = ?1 AND number = ?2

-- name: end_attempt_in_tier
INSERT INTO attempts (row, number, session, began, {ended_columns}, tier)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
{set_ended}

-- name: end_attempt
INSERT INTO attempts (row, number, session, began, {ended_columns},
tier, throttled, counted, deadline, invalid, possibly_billed, cause, message, excerpt)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
{set_ended}

-- name: finish_done
INSERT INTO outcomes (row, finished, attempts, reply, seconds, input_tokens, output_tokens, state, permanent)
VALUES (?, ?, ?, ?, ?, ?, ?, 'done', 1)

-- name: finish
INSERT INTO outcomes (row, finished, attempts, reply, seconds, input_tokens, output_tokens,
state, permanent, cause, message, flags, value, added, post, trace, representative, saved)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_reply
INSERT INTO replies (id, row, number, body) VALUES (?, ?, ?, ?)

-- name: insert_sample
INSERT INTO samples (at, state) VALUES (?, ?)

-- name: begin_batched
INSERT INTO attempts (row, number, session, began, cost, charged_tokens, ticket, lane) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: is_attempt
SELECT 1 FROM attempts WHERE row = ? AND number = ?

-- name: put_ticket
REPLACE INTO tickets (id, lane, state, chunk, number, tag, endpoint, model, rows, bytes, sha256, file, remote, status, asked,
seen, expires, next, note, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: tickets
SELECT id, lane, state, chunk, number, tag, endpoint, model, rows, bytes, sha256, file, remote, status, asked, seen, expires,
next, note, ifnull(detail, '{}') FROM tickets ORDER BY id

-- name: learn
UPDATE lanes SET learned = ? WHERE id = ?

-- name: reserve_more
UPDATE attempts SET cost = ? WHERE row = ? AND number = ? AND ended IS NULL

-- name: note_attempt
UPDATE attempts SET cause = ?, message = ? WHERE row = ? AND number = ?


-- The account (sums.py): every counter is a column of `totals`, and how it is counted from the rows stands in `recount`

-- name: read_totals
SELECT * FROM totals

-- name: recount_outcomes
SELECT count(*) AS rows,
       total(state = 'done') AS done,
       total(state = 'failed') AS failed,
       total(state = 'failed' AND NOT permanent) AS retryable,
       total(state = 'failed' AND post) AS failed_post,
       total(state = 'skipped') AS skipped,
       total(state = 'done' AND flags LIKE '%truncated%') AS truncated,
       total(state = 'done' AND flags LIKE '%refused%') AS refused,
       total(state = 'done' AND flags LIKE '%filtered%') AS filtered,
       total(state = 'done' AND flags LIKE '%odd%') AS odd,
       total(state = 'done' AND flags LIKE '%empty%') AS empty,
       total(state = 'done' AND flags LIKE '%numbers%') AS numbers,
       total(state = 'done' AND representative IS NOT NULL) AS deduplicated,
       total(iif(state = 'done' AND representative IS NOT NULL, ifnull(input_tokens, 0) + ifnull(output_tokens, 0), 0)) AS saved_tokens,
       total(iif(state = 'done', saved, 0)) AS saved
FROM rows LEFT JOIN outcomes ON outcomes.row = rows.seq
WHERE rows.position IS NOT NULL

-- name: recount_attempts
SELECT total(attempts.ended IS NULL AND ticket IS NULL
             AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = attempts.row)) AS unknown,
       total(attempts.ended IS NULL AND ticket IS NOT NULL) AS in_batches,
       count(*) AS attempts,
       count(reply) AS replies,
       total(possibly_billed) AS possibly_billed,
       total(input_tokens) AS input_tokens,
       total(output_tokens) AS output_tokens,
       total(cached_tokens) AS cached_tokens,
       total(cache_write_tokens) AS cache_write_tokens,
       total(reasoning_tokens) AS reasoning_tokens,
       total(reply IS NOT NULL AND input_tokens IS NULL) AS without_usage,
       total(iif(ended IS NULL, 0, cost)) AS cost,
       total(cost_cached) AS cost_cached,
       total(cost_cache_write) AS cost_cache_write,
       total(cost_output) AS cost_output,
       total(cost_other) AS cost_other,
       total(iif(invalid, cost, 0)) AS cost_retries,
       total(iif(possibly_billed, cost, 0)) AS cost_possibly_billed,
       total(iif(ended IS NULL, cost, 0)) AS cost_reserved,
       total(cost IS NULL AND (status = 200 OR reply IS NOT NULL OR possibly_billed)) AS unpriced
FROM attempts JOIN rows ON rows.seq = attempts.row
WHERE rows.position IS NOT NULL

-- name: recount
SELECT 1 AS id, * FROM ({recount_outcomes}), ({recount_attempts})


-- A copy, which is a single file (database.py)

-- name: take_in_texts
UPDATE rows SET text = {text}, text_at = NULL, text_size = NULL, ready = '' WHERE text_at IS NOT NULL
