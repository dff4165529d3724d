-- Files of a row: pictures, audio and documents that its request has.

ALTER TABLE rows ADD COLUMN files TEXT NOT NULL DEFAULT '';

CREATE VIEW files AS                    -- the files of all rows: pictures, audio and documents, which are never in the journal themselves
SELECT rows.seq AS row, item.key + 1 AS number,
       json_extract(item.value, '$.input') AS input,             -- the variable of the prompt
       json_extract(item.value, '$.path') AS path,               -- absolute, or relative to the directory of the journal; an address that is sent as it is
       json_extract(item.value, '$.size') AS size,               -- bytes
       json_extract(item.value, '$.type') AS type,               -- the media type, by content
       json_extract(item.value, '$.sha256') AS sha256,           -- of the content, in hexadecimal
       json_extract(item.value, '$.modified') AS modified        -- seconds since 1970
FROM rows, json_each(iif(rows.files = '', '[]', rows.files)) AS item;
