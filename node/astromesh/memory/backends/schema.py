"""The tables of the file in which conversations are kept. Pure text.

`user_version` of the file counts how many of `MIGRATIONS` it has seen. A migration that was released is never changed: add one behind it.
"""

from __future__ import annotations

from astromesh.memory.port import HISTORY_BYTES_MAX, TURNS_KEPT_MAX

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE conversation (
        id INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        agent TEXT NOT NULL,
        session TEXT NOT NULL,
        expires_at REAL,  -- seconds since the epoch; NULL: never
        summary TEXT,
        through TEXT,  -- the id of the last turn that the summary stands for
        UNIQUE (namespace, agent, session)
    );
    CREATE INDEX conversation_that_expires ON conversation (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE turn (
        conversation INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
        position INTEGER NOT NULL,  -- grows within a conversation
        id TEXT NOT NULL,
        at REAL NOT NULL,  -- seconds since the epoch
        said BLOB NOT NULL,  -- JSON
        PRIMARY KEY (conversation, position),
        UNIQUE (conversation, id)
    );
    """,
)

# One row in, and all that keeping a turn takes happens in one statement: a group of turns is one call to the thread of the connection and
# one commit, however many turns there are.
KEEPING = f"""
    CREATE TEMP VIEW keeping AS
        SELECT namespace, agent, session, expires_at, turn.id, at, said
        FROM main.conversation JOIN main.turn ON conversation = conversation.id;
    CREATE TEMP TRIGGER keep INSTEAD OF INSERT ON keeping BEGIN
        DELETE FROM conversation
            WHERE namespace = NEW.namespace AND agent = NEW.agent AND session = NEW.session AND expires_at <= NEW.at;
        INSERT INTO conversation (namespace, agent, session, expires_at) VALUES (NEW.namespace, NEW.agent, NEW.session, NEW.expires_at)
            ON CONFLICT (namespace, agent, session) DO UPDATE SET expires_at = excluded.expires_at;
        INSERT INTO turn (conversation, position, id, at, said)
            SELECT conversation.id, 1 + coalesce((SELECT max(position) FROM turn WHERE conversation = conversation.id), 0),
                NEW.id, NEW.at, NEW.said
            FROM conversation WHERE namespace = NEW.namespace AND agent = NEW.agent AND session = NEW.session
            ON CONFLICT (conversation, id) DO NOTHING;
        DELETE FROM turn WHERE conversation =
                (SELECT id FROM conversation WHERE namespace = NEW.namespace AND agent = NEW.agent AND session = NEW.session)
            AND position <= (SELECT max(position) FROM turn AS newer WHERE newer.conversation = turn.conversation) - {TURNS_KEPT_MAX};
    END;
"""  # noqa: S608

KEEP = "INSERT INTO keeping (namespace, agent, session, expires_at, id, at, said) VALUES (?, ?, ?, ?, ?, ?, ?)"

# The newest turns first, as many as fit; the summary comes once, with the newest.
RECALL = f"""
    SELECT id, at, said, CASE WHEN place = 1 THEN summary END, through FROM (
        SELECT id, at, said, summary, through, row_number() OVER newest AS place, sum(length(said)) OVER newest AS bytes FROM (
            SELECT turn.id AS id, at, said, position, summary, through FROM conversation JOIN turn ON turn.conversation = conversation.id
            WHERE namespace = ? AND agent = ? AND session = ? AND (expires_at IS NULL OR expires_at > ?)
            ORDER BY position DESC LIMIT ?
        ) WINDOW newest AS (ORDER BY position DESC)
    ) WHERE bytes <= {HISTORY_BYTES_MAX} ORDER BY place
"""  # noqa: S608

SUMMARISE = """
    UPDATE conversation SET summary = ?, through = ?
    WHERE namespace = ? AND agent = ? AND session = ? AND EXISTS (SELECT 1 FROM turn WHERE conversation = conversation.id AND id = ?)
"""

COUNT = "SELECT count(*) FROM conversation JOIN turn ON conversation = conversation.id WHERE namespace = ? AND agent = ? AND session = ?"
FORGET = "DELETE FROM conversation WHERE namespace = ? AND agent = ? AND session = ?"

EXPIRE = "DELETE FROM conversation WHERE id IN (SELECT id FROM conversation WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
