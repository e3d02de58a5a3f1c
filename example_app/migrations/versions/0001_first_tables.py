"""Papers, reviewers, reviews."""

import sqlalchemy as sa
from advanced_alchemy.types import GUID, DateTimeUTC
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def audit_columns() -> list[sa.Column[object]]:
    """Make what UUIDAuditBase adds to every table."""
    return [
        sa.Column("sa_orm_sentinel", sa.Integer(), nullable=True),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("updated_at", DateTimeUTC(timezone=True), nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "paper",
        sa.Column("id", GUID(length=16), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("abstract", sa.Text(), nullable=False),
        sa.Column("author_name", sa.String(length=100), nullable=False),
        sa.Column("author_email", sa.String(length=254), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        *audit_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_paper"),
    )
    op.create_index("ix_paper_status", "paper", ["status"])
    op.create_table(
        "reviewer",
        sa.Column("id", GUID(length=16), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        *audit_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_reviewer"),
        sa.UniqueConstraint("email", name="uq_reviewer_email"),
    )
    op.create_table(
        "review",
        sa.Column("id", GUID(length=16), nullable=False),
        sa.Column("paper_id", GUID(length=16), nullable=False),
        sa.Column("reviewer_id", GUID(length=16), nullable=False),
        sa.Column("score", sa.Integer(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("reviewed_at", DateTimeUTC(timezone=True), nullable=True),
        *audit_columns(),
        sa.CheckConstraint("score BETWEEN 1 AND 5", name=op.f("ck_review_score")),
        sa.ForeignKeyConstraint(
            ["paper_id"], ["paper.id"], name="fk_review_paper_id_paper", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["reviewer_id"], ["reviewer.id"], name="fk_review_reviewer_id_reviewer"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_review"),
        sa.UniqueConstraint("paper_id", "reviewer_id", name="uq_review_paper_id"),
    )
    op.create_index("ix_review_reviewer_id", "review", ["reviewer_id"])


def downgrade() -> None:
    op.drop_table("review")
    op.drop_table("reviewer")
    op.drop_table("paper")
