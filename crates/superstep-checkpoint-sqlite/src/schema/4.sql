-- The last record that refers to a value: a trim frees those of records that it removes.
-- Those of an older file count as named by every record, and stay.
ALTER TABLE blobs ADD COLUMN named INTEGER;
