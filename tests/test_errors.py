"""The tree of errors: who catches what, and what is shown."""

from __future__ import annotations

import pickle

import pytest
from sqlalchemy import exc

from reviewpoint_db import errors

CLASSES = {
    errors.ConfigurationError: exc.ArgumentError,
    errors.DatabaseUnavailableError: exc.OperationalError,
    errors.PoolTimeoutError: exc.TimeoutError,
    errors.QueryTimeoutError: exc.OperationalError,
    errors.CommitOutcomeUnknownError: exc.OperationalError,
    errors.SessionClosedError: exc.InvalidRequestError,
    errors.ReadOnlySessionError: exc.InvalidRequestError,
}
UNAVAILABLE = {
    errors.DatabaseUnavailableError,
    errors.PoolTimeoutError,
    errors.QueryTimeoutError,
}


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_is_ours_and_sqlalchemys(error: type[errors.ReviewPointDBError]) -> None:
    assert issubclass(error, errors.ReviewPointDBError)
    assert issubclass(error, CLASSES[error])
    assert issubclass(error, exc.SQLAlchemyError)
    assert issubclass(error, errors.UnavailableError) == (error in UNAVAILABLE)


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_shows_its_message_alone(error: type[errors.ReviewPointDBError]) -> None:
    raised = error("the message")
    assert str(raised) == "the message"
    assert repr(raised) == f"{error.__name__}('the message')"


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_survives_pickling(error: type[errors.ReviewPointDBError]) -> None:
    copy = pickle.loads(pickle.dumps(error("the message")))
    assert type(copy) is error
    assert str(copy) == "the message"


def test_an_error_without_a_message_is_empty() -> None:
    assert not str(errors.ReviewPointDBError())


@pytest.mark.parametrize(
    "error",
    [
        errors.DatabaseUnavailableError,
        errors.QueryTimeoutError,
        errors.CommitOutcomeUnknownError,
    ],
)
def test_an_error_of_the_driver_keeps_it_and_does_not_show_it(
    error: type[errors.DatabaseUnavailableError],
) -> None:
    driver = OSError("secret")
    raised = error("the message", orig=driver)
    assert raised.orig is driver
    assert raised.connection_invalidated is False
    assert str(raised) == "the message"
    assert "secret" not in repr(raised)


def test_all_names_the_whole_tree() -> None:
    assert sorted(errors.__all__) == sorted(
        [*(error.__name__ for error in CLASSES), "ReviewPointDBError", "UnavailableError"]
    )
