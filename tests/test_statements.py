"""Statements are shown without the values in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewpoint_db.statements import operation_of, shape_of


@pytest.mark.parametrize(
    ("statement", "shape"),
    [
        ("select *\n  from papers", "select * from papers"),
        ("select 'it''s', E'a\\'b', 4.5e3, x1", "select ?, ?, ?, x1"),
        (r"select 'a\', 'secret'", "select ?, ?"),
        ("select 'never closed", "select ?"),
        ("select $$a 'b'$$, $t$c$t$", "select ?, ?"),
        ("select $1::INTEGER, $2 from t where a in ($3, $4)", "select ... from t where a in (...)"),
        ("select a where id = $1::INTEGER", "select a where id = $1::INTEGER"),
        ("insert into t values (?, ?, ?)", "insert into t values (...)"),
        ("where id in (__[POSTCOMPILE_id_1])", "where id in (...)"),
        ('select "odd 1 name", "a""b"', 'select "odd 1 name", "a""b"'),
        ("select 1 -- it's said\n, 2 /* or 'not' */", "select ? , ?"),
    ],
)
def test_a_shape_has_one_line_and_no_values(statement: str, shape: str) -> None:
    assert shape_of(statement) == shape


def test_a_long_statement_is_cut_and_says_so() -> None:
    shape = shape_of("select '" + "secret" * 1000 + "'")
    assert shape == "select ? ..."


@given(st.text(alphabet=st.characters(exclude_characters="'\\\0"), min_size=1))
def test_no_quoted_text_is_in_a_shape(value: str) -> None:
    assert shape_of(f"select '{value}' as it") == "select ? as it"


@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        (" select 1", "SELECT"),
        ("(SELECT 1)", "SELECT"),
        ("INSERT\ninto t", "INSERT"),
        ("vacuum", "OTHER"),
        ("", "OTHER"),
    ],
)
def test_an_operation_is_one_of_a_few_words(statement: str, operation: str) -> None:
    assert operation_of(statement) == operation
