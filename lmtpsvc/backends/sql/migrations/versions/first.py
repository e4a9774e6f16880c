"""
The first four tables.
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

_moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
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
        "mailbox",
        sa.Column("id", _number, nullable=False),
        sa.Column("name", _exact(320), nullable=False),
        sa.Column("uidvalidity", sa.BigInteger, nullable=False),
        sa.Column("uidnext", sa.BigInteger, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("octets", sa.BigInteger, nullable=False),
        sa.CheckConstraint("uidvalidity > 0 AND uidnext > 0", name="mailbox_uids"),
        sa.PrimaryKeyConstraint("id", name="mailbox_pkey"),
        sa.UniqueConstraint("name", name="mailbox_name_key"),
        **_options,
    )
    op.create_table(
        "content",
        sa.Column("id", _number, nullable=False),
        sa.Column("digest", _exact(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("compression", _exact(8), nullable=False),
        sa.Column("stored", _moment, nullable=False),
        sa.Column("header_from", _exact(255)),
        sa.Column("header_subject", _exact(255)),
        sa.Column("header_date", _moment),
        sa.Column("header_message_id", _exact(255)),
        sa.PrimaryKeyConstraint("id", name="content_pkey"),
        sa.UniqueConstraint("digest", name="content_digest_key"),
        **_options,
    )
    for name in ("stored", "header_from", "header_subject", "header_date", "header_message_id"):
        op.create_index(f"content_{name}", "content", [name])
    op.create_table(
        "content_part",
        sa.Column("content_id", _number, nullable=False, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("octets", _octets, nullable=False),
        sa.PrimaryKeyConstraint("content_id", "number", name="content_part_pkey"),
        sa.ForeignKeyConstraint(["content_id"], ["content.id"], "content_part_content_id_fkey"),
        **_options,
    )
    op.create_table(
        "delivery",
        sa.Column("mailbox_id", _number, nullable=False, autoincrement=False),
        sa.Column("uid", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("content_id", _number, nullable=False),
        sa.Column("transaction", _exact(64), nullable=False),
        sa.Column("sender", _text, nullable=False),
        sa.Column("recipient", _text),
        sa.Column("received", _moment, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("flags", _exact(255), nullable=False),
        sa.Column("trace", _octets, nullable=False),
        sa.PrimaryKeyConstraint("mailbox_id", "uid", name="delivery_pkey"),
        sa.ForeignKeyConstraint(["mailbox_id"], ["mailbox.id"], "delivery_mailbox_id_fkey"),
        sa.ForeignKeyConstraint(["content_id"], ["content.id"], "delivery_content_id_fkey"),
        **_options,
        sqlite_with_rowid=False,
    )
    op.create_index("delivery_content_id", "delivery", ["content_id"])


def downgrade() -> None:
    """
    Take them away, with all mail.
    """
    for name in ("delivery", "content_part", "content", "mailbox"):
        op.drop_table(name)
