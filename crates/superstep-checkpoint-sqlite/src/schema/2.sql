-- What tasks have done so far in their round, in order; goes with the round.
CREATE TABLE progress (
    thread TEXT    NOT NULL,
    round  TEXT    NOT NULL,
    task   TEXT    NOT NULL,
    place  INTEGER NOT NULL,
    entry  BLOB    NOT NULL,
    PRIMARY KEY (thread, round, task, place)
);
