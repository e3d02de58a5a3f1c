"""The three tables. A review without a score is an assignment that waits for its review."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from advanced_alchemy.base import UUIDAuditBase
from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

Verdict = Literal["accepted", "rejected"]
Status = Literal["submitted", "under_review", "accepted", "rejected"]


class Reviewer(UUIDAuditBase):
    name: Mapped[str] = mapped_column(String(100))
    email: Mapped[str] = mapped_column(String(254), unique=True)


class Review(UUIDAuditBase):
    __table_args__ = (
        UniqueConstraint("paper_id", "reviewer_id"),
        CheckConstraint("score BETWEEN 1 AND 5", name="score"),
    )

    paper_id: Mapped[UUID] = mapped_column(ForeignKey("paper.id", ondelete="CASCADE"))
    reviewer_id: Mapped[UUID] = mapped_column(ForeignKey("reviewer.id"), index=True)
    score: Mapped[int | None]
    comment: Mapped[str | None] = mapped_column(Text)
    reviewed_at: Mapped[datetime | None]

    reviewer: Mapped[Reviewer] = relationship(lazy="joined", innerjoin=True)


class Paper(UUIDAuditBase):
    title: Mapped[str] = mapped_column(String(200))
    abstract: Mapped[str] = mapped_column(Text)
    author_name: Mapped[str] = mapped_column(String(100))
    author_email: Mapped[str] = mapped_column(String(254))
    status: Mapped[Status] = mapped_column(String(12), default="submitted", index=True)

    # Loaded by one further SELECT for a whole page of papers: never one for each of them.
    reviews: Mapped[list[Review]] = relationship(lazy="selectin", order_by=Review.created_at)

    @property
    def decided(self) -> bool:
        return self.status in {"accepted", "rejected"}

    @property
    def scores(self) -> list[int]:
        return [review.score for review in self.reviews if review.score is not None]

    @property
    def average_score(self) -> float | None:
        return round(sum(self.scores) / len(self.scores), 1) if self.scores else None
