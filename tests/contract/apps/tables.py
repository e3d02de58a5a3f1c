"""The one table of the contract's applications, whose rows say what their COMMIT is to meet."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table

notes = Table(
    "notes",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("key", String(200), unique=True, nullable=False),
    Column("at_commit", String(50)),
    Column("follows", Integer, ForeignKey("notes.id", deferrable=True, initially="DEFERRED")),
)

#: `at_commit` says what COMMIT is to meet: "sleep 0.3", or "raise 40001".
POSTGRESQL = """
CREATE TABLE notes (
  id serial PRIMARY KEY,
  key text NOT NULL UNIQUE,
  at_commit text,
  follows integer REFERENCES notes DEFERRABLE INITIALLY DEFERRED
);
CREATE FUNCTION fail(code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'made to fail' USING ERRCODE = code;
END $$;
CREATE FUNCTION meet_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.at_commit LIKE 'sleep %' THEN
    PERFORM pg_sleep(split_part(NEW.at_commit, ' ', 2)::float);
  ELSIF NEW.at_commit LIKE 'raise %' THEN
    RAISE EXCEPTION 'made to fail with %', NEW.key
      USING ERRCODE = split_part(NEW.at_commit, ' ', 2), DETAIL = NEW.key;
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER meet_commit AFTER INSERT ON notes
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_commit();
"""
SQLITE = """
PRAGMA journal_mode = WAL;
CREATE TABLE notes (
  id integer PRIMARY KEY,
  key text NOT NULL UNIQUE,
  at_commit text,
  follows integer REFERENCES notes DEFERRABLE INITIALLY DEFERRED
);
"""
