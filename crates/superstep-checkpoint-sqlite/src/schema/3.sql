-- Who says to be at work on what, until when, by the writer's clock.
CREATE TABLE claims (
    thread     TEXT    NOT NULL,
    round      TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    owner      TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (thread, round, name)
);
CREATE INDEX claims_expiring ON claims (expires_at);

-- How often a task was begun again in its round; goes with the round.
CREATE TABLE attempts (
    thread   TEXT    NOT NULL,
    round    TEXT    NOT NULL,
    task     TEXT    NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (thread, round, task)
);
