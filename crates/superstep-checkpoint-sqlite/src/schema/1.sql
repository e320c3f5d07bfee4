-- One row a thread: its head and what lists show of it. A tombstone has no status and
-- goes away at expires_at.
CREATE TABLE threads (
    thread        TEXT    NOT NULL PRIMARY KEY,
    version       INTEGER NOT NULL,
    nonce         TEXT    NOT NULL,
    status        TEXT,
    graph         TEXT,
    graph_version TEXT,
    created_at    INTEGER,
    updated_at    INTEGER,
    watched       TEXT,
    watched_since INTEGER,
    expires_at    INTEGER
);
CREATE INDEX threads_by_time   ON threads (updated_at DESC, thread) WHERE status IS NOT NULL;
CREATE INDEX threads_by_status ON threads (status, updated_at DESC, thread) WHERE status IS NOT NULL;
CREATE INDEX threads_by_graph  ON threads (graph, updated_at DESC, thread) WHERE status IS NOT NULL;
CREATE INDEX threads_watched   ON threads (watched_since) WHERE watched IS NOT NULL;
CREATE INDEX threads_expiring  ON threads (expires_at) WHERE expires_at IS NOT NULL;

-- The log: everything that ever happened to a thread, by version.
CREATE TABLE records (
    thread   TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    nonce    TEXT    NOT NULL,
    snapshot INTEGER NOT NULL,
    record   BLOB    NOT NULL,
    PRIMARY KEY (thread, version)
);

-- Rounds of tasks: open while expires_at is NULL.
CREATE TABLE rounds (
    thread     TEXT    NOT NULL,
    round      TEXT    NOT NULL,
    results    INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER,
    PRIMARY KEY (thread, round)
);
CREATE INDEX rounds_expiring ON rounds (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE results (
    thread TEXT NOT NULL,
    round  TEXT NOT NULL,
    task   TEXT NOT NULL,
    result BLOB NOT NULL,
    PRIMARY KEY (thread, round, task)
);

-- What was decided of each command.
CREATE TABLE outcomes (
    thread     TEXT    NOT NULL,
    command    TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    outcome    BLOB    NOT NULL,
    PRIMARY KEY (thread, command)
);
CREATE INDEX outcomes_expiring ON outcomes (expires_at);

-- Values too large for a record: kept for good once a record refers to them.
CREATE TABLE blobs (
    thread     TEXT NOT NULL,
    id         TEXT NOT NULL,
    expires_at INTEGER,
    value      BLOB NOT NULL,
    PRIMARY KEY (thread, id)
);
CREATE INDEX blobs_expiring ON blobs (expires_at) WHERE expires_at IS NOT NULL;

-- Open questions.
CREATE TABLE interrupts (
    thread    TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    opened_at INTEGER NOT NULL,
    PRIMARY KEY (thread, id)
);
CREATE INDEX interrupts_by_time ON interrupts (opened_at, id, thread);

-- Timers.
CREATE TABLE due (
    thread TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (thread, name)
);
CREATE INDEX due_by_time ON due (at);

-- What workers say they can run.
CREATE TABLE registrations (
    graph         TEXT    NOT NULL,
    graph_version TEXT    NOT NULL,
    renewed_at    INTEGER NOT NULL,
    about         BLOB    NOT NULL,
    PRIMARY KEY (graph, graph_version)
);

-- The streams whose messages are each for one consumer: how many they hold.
CREATE TABLE streams (
    stream   TEXT    NOT NULL PRIMARY KEY,
    messages INTEGER NOT NULL
);
INSERT INTO streams (stream, messages) VALUES ('commands', 0), ('work', 0);

-- Commands and work, kept until acked. A lane is what one consumer reads. A message is
-- deliverable while deliver_at is NULL; until that time it is leased or put off.
CREATE TABLE messages (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    stream       TEXT    NOT NULL,
    lane         TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    published_at INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    deliver_at   INTEGER,
    headers      TEXT    NOT NULL,
    body         BLOB    NOT NULL
);
CREATE INDEX messages_by_lane ON messages (lane, deliver_at, sequence);

-- Ids of messages, remembered for a while, so that one published again is one message.
CREATE TABLE message_ids (
    stream   TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    seen_at  INTEGER NOT NULL,
    PRIMARY KEY (stream, id)
);
CREATE INDEX message_ids_by_age ON message_ids (seen_at);

-- Events, bounded in number and age.
CREATE TABLE events (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT    NOT NULL,
    graph        TEXT,
    thread       TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    published_at INTEGER NOT NULL,
    headers      TEXT    NOT NULL,
    body         BLOB    NOT NULL
);

-- Outcomes of commands on their way to another process.
CREATE TABLE replies (
    subject TEXT    NOT NULL PRIMARY KEY,
    sent_at INTEGER NOT NULL,
    body    BLOB    NOT NULL
);

-- Live output on its way to other processes; the last moments only.
CREATE TABLE output (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    origin   TEXT    NOT NULL,
    thread   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    body     BLOB    NOT NULL
);
