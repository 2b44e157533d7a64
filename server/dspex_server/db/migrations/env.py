"""Alembic's entry: it is handed the connection by `migrate`."""

from alembic import context

from dspex_server.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # A migration that is cut off leaves nothing, also on SQLite.
    transactional_ddl=True,
    # SQLite cannot alter a table: it is copied.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
