"""
What Alembic runs; `lmtpsvc.backends.sql.versions` gives it the connection.
"""

from alembic import context

from lmtpsvc.backends.sql.schema import metadata
from lmtpsvc.backends.sql.versions import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
