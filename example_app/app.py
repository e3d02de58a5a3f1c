"""The application: `litestar --app example_app.app:app run`."""

from pathlib import Path

from advanced_alchemy.extensions.litestar import AlembicAsyncConfig, AlembicCommands
from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template import TemplateConfig
from loguru import logger
from sqlalchemy import Connection

from example_app.page import PageController, static_files
from example_app.papers import PaperController
from example_app.reviewers import ReviewerController
from example_app.reviews import ReviewController
from example_app.seed import plant
from reviewpoint_db import DatabaseConfig, ReviewPointDBPlugin, UnavailableError

HERE = Path(__file__).parent


def create_app(config: DatabaseConfig | None = None) -> Litestar:
    """Build the service. Without a config, REVIEWPOINT_DB_URL says where the data is."""
    db = ReviewPointDBPlugin(
        config,
        # A 2xx answer is stored before its first byte leaves, all else is rolled back. The
        # handlers have one transaction each and no reason to end it early: none mentions it.
        commit="autocommit",
        alembic_config=AlembicAsyncConfig(script_location=str(HERE / "migrations")),
    )

    def migrate(connection: Connection) -> None:
        commands = AlembicCommands(db.config[0])
        commands.config.attributes["connection"] = connection  # migrations/env.py uses it
        commands.upgrade()

    async def prepare() -> None:
        # A large deployment would run `litestar database upgrade` before it starts its workers.
        try:
            async with db.database.engine.begin() as connection:
                await connection.run_sync(migrate)
            async with db.database.session() as session:
                await plant(session)
        except UnavailableError as error:
            # No reason not to start: requests get 503 until the database is there.
            logger.error("Tables and seed data have to wait for the next start: {}", error)

    return Litestar(
        route_handlers=[
            PageController,
            PaperController,
            ReviewController,
            ReviewerController,
            static_files,
        ],
        plugins=[db],
        on_startup=[prepare],
        openapi_config=OpenAPIConfig(title="Peer review", version="1.0.0"),
        template_config=TemplateConfig(directory=HERE / "templates", engine=JinjaTemplateEngine),
    )


app = create_app()
