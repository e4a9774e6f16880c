"""
The first three tables.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_octets = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_text = sa.Text().with_variant(
    mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb"
)
_options: dict[str, Any] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}


def _exact(length: int) -> TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_nopad_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def upgrade() -> None:
    """
    Make them.
    """
    op.create_table(
        "relay_message",
        sa.Column("id", _exact(64), nullable=False),
        sa.Column("sender", _text, nullable=False),
        sa.Column("parameters", _text, nullable=False),
        sa.Column("arrived", sa.Double, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("ascii", sa.Boolean, nullable=False),
        sa.Column("due", sa.Double),
        sa.Column("owner", _exact(64)),
        sa.PrimaryKeyConstraint("id", name="relay_message_pkey"),
        **_options,
    )
    op.create_index("relay_message_due", "relay_message", ["due"])
    op.create_index("relay_message_owner", "relay_message", ["owner"])
    op.create_table(
        "relay_text",
        sa.Column("message_id", _exact(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("octets", _octets, nullable=False),
        sa.PrimaryKeyConstraint("message_id", "number", name="relay_text_pkey"),
        sa.ForeignKeyConstraint(["message_id"], ["relay_message.id"], "relay_text_message_id_fkey"),
        **_options,
    )
    op.create_table(
        "relay_recipient",
        sa.Column("message_id", _exact(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("address", _text, nullable=False),
        sa.Column("parameters", _text, nullable=False),
        sa.Column("state", _exact(8), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("tried", sa.Double),
        sa.Column("reply", _exact(512), nullable=False),
        sa.Column("destination", _exact(255), nullable=False),
        sa.Column("server", _exact(255), nullable=False),
        sa.Column("report", _exact(16)),
        sa.Column("warned", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("message_id", "number", name="relay_recipient_pkey"),
        sa.ForeignKeyConstraint(
            ["message_id"], ["relay_message.id"], "relay_recipient_message_id_fkey"
        ),
        **_options,
    )


def downgrade() -> None:
    """
    Take them away, with all mail.
    """
    for name in ("relay_recipient", "relay_text", "relay_message"):
        op.drop_table(name)
