-- Long texts of rows are in a file beside the journal, where SQLite does not copy them.

ALTER TABLE rows ADD COLUMN text_at INTEGER;
ALTER TABLE rows ADD COLUMN text_size INTEGER;
ALTER TABLE rows ADD COLUMN ready TEXT NOT NULL DEFAULT '';
