"""Runs the migrations on the plugin's own engine, which advanced-alchemy hands over."""

import asyncio
from typing import Any

from advanced_alchemy.base import metadata_registry
from alembic import context
from sqlalchemy import Connection, text

import example_app.models  # noqa: F401  # the tables, for `make-migrations`

# advanced-alchemy's AlembicCommandConfig, which has the engine; alembic's types do not know it.
config: Any = context.config

OPTIONS = {
    "target_metadata": metadata_registry.get(config.bind_key),
    "version_table": config.version_table_name,
    "compare_type": config.compare_type,
    "render_as_batch": True,  # SQLite cannot ALTER a column: alembic copies the table
    "user_module_prefix": "",  # script.py.mako imports the types by their bare names
}


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, **OPTIONS)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Several workers start at once: one migrates, the others wait and find it done.
            connection.execute(text("SELECT pg_advisory_xact_lock(7362)"))
        context.run_migrations()


async def main() -> None:
    async with config.engine.begin() as connection:
        await connection.run_sync(migrate)
    await config.engine.dispose()


if context.is_offline_mode():
    context.configure(url=config.db_url, literal_binds=True, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()
elif connection := config.attributes.get("connection"):  # the application, at its start
    migrate(connection)
else:  # `litestar database ...`
    asyncio.run(main())
