"""The commands: `reviewpoint-db …` for any framework, and `litestar reviewpoint-db …`.

The database is that of the application (`--app module:app`, or Litestar's own), else the one that
the environment describes. The migration commands are advanced-alchemy's, both directly and under
`database`, where they have the names of `litestar database`.
"""

from reviewpoint_db.cli.commands import main
from reviewpoint_db.cli.migrations import migration_commands
from reviewpoint_db.cli.target import Target

__all__ = ("Target", "main", "migration_commands")
