"""
What Alembic runs; `lmtpsvc.backends.sql.versions` gives it the connection.
"""

from alembic import context

from lmtpsvc.relay.tables import QUEUE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=QUEUE.version_table,
)
with context.begin_transaction():
    context.run_migrations()
