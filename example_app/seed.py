"""Something to look at: reviewers, papers and reviews for an empty database."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from example_app.models import Paper, Review, Reviewer, Status

REVIEWERS = ["Amara Okafor", "Bela Horvath", "Chiyo Tanaka", "Diego Fuentes", "Elin Strand"]

# Title, author, status, then (reviewer, score, comment); without a score the review is awaited.
PAPERS: list[tuple[str, str, Status, list[tuple[int, int | None, str | None]]]] = [
    (
        "A commit that the client can believe",
        "Noor Rahman",
        "accepted",
        [
            (0, 5, "Clear claim, clear proof: the row is there before the first byte leaves."),
            (2, 4, "Convincing. Section 3 could say more about lost connections."),
        ],
    ),
    (
        "Fair queues for small connection pools",
        "Elin Strand",
        "under_review",
        [
            (1, 4, "Good measurements, and the tail is what matters."),
            (3, 5, "I repeated the experiment and found the same figures."),
        ],
    ),
    (
        "What an idle transaction costs",
        "Tomas Novak",
        "under_review",
        [(4, 3, "Useful, but the related work is thin."), (0, None, None)],
    ),
    (
        "Reading replicas without reading the past",
        "Chiyo Tanaka",
        "under_review",
        [(3, None, None)],
    ),
    (
        "Retries considered carefully",
        "Ines Carvalho",
        "rejected",
        [
            (1, 2, "A retry after an unknown outcome can store the same thing twice."),
            (4, 2, "The idea is sound; the experiment does not show it."),
        ],
    ),
    ("One writer, many readers: SQLite in a web service", "Jonas Weber", "submitted", []),
    ("Serializable by default", "Lwazi Dube", "submitted", []),
    ("Cancellation and the connection it leaves behind", "Mei Chen", "submitted", []),
    ("Health checks that tell full from down", "Oskar Lind", "submitted", []),
    ("Migrations on a busy table", "Priya Raman", "submitted", []),
    ("Searching text with what the database has", "Quentin Morel", "submitted", []),
    ("The cost of a round trip", "Rosa Jimenez", "submitted", []),
]


def email(name: str) -> str:
    return f"{name.lower().replace(' ', '.')}@example.org"


async def plant(session: AsyncSession) -> None:
    """Write the seed data once: a database with a reviewer in it is left as it is."""
    if await session.scalar(select(Reviewer.id).limit(1)):
        return
    reviewers = [Reviewer(name=name, email=email(name)) for name in REVIEWERS]
    session.add_all(reviewers)
    now = datetime.now(UTC)
    for age, (title, author, status, reviews) in enumerate(PAPERS):
        paper = Paper(
            title=title,
            abstract=f"{title}: we describe the problem, measure it on a real database, and show "
            "what helps. All figures can be repeated with the scripts that come with the paper.",
            author_name=author,
            author_email=email(author),
            status=status,
            created_at=now - timedelta(days=age),
        )
        for number, score, comment in reviews:
            reviewed_at = now if score else None
            paper.reviews.append(
                Review(
                    reviewer=reviewers[number],
                    score=score,
                    comment=comment,
                    reviewed_at=reviewed_at,
                )
            )
        session.add(paper)
    try:
        await session.commit()
    except IntegrityError:  # another worker started at the same moment, and was first
        await session.rollback()
