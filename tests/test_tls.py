"""TLS against a real server: what each sslmode refuses, and that the error says the fix."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import asyncpg
import certifi
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.errors import ConfigurationError, DatabaseUnavailableError
from reviewpoint_db.target import normalize_url
from reviewpoint_db.tls_errors import connect_fix, is_tls_refused
from tests.support.pools import engine_with_pool
from tests.support.tls import Authority, TlsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def server(postgres_url: str, certificate: Path) -> AsyncIterator[TlsServer]:
    async with TlsServer(postgres_url, certificate) as made:
        yield made


@pytest.fixture
async def strict(
    postgres_url: str, certificate: Path, authority: Authority
) -> AsyncIterator[TlsServer]:
    """A server that asks its clients for a certificate."""
    async with TlsServer(postgres_url, certificate, authority.file) as made:
        yield made


async def works(url: str) -> bool:
    async with engine_with_pool(url) as engine, engine.connect() as connection:
        return bool(await connection.scalar(text("SELECT 1")))


async def refusal(url: str) -> str:
    """The error of a connection that is refused at once, though the pool may wait for long."""
    started = time.monotonic()
    async with engine_with_pool(url, timeout=10) as engine:
        with pytest.raises((DatabaseUnavailableError, DBAPIError)) as caught:
            await engine.connect()
    assert time.monotonic() - started < 5
    told = str(caught.value)
    password = normalize_url(url).password
    assert password is not None
    assert password not in told
    return told


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_a_mode_that_verifies_connects_to_the_right_server(
    server: TlsServer, authority: Authority, mode: str
) -> None:
    assert await works(f"{server.url()}?sslmode={mode}&sslrootcert={authority.file}")
    assert server.sessions == [None]


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_a_mode_that_does_not_verify_is_encrypted_where_the_server_has_tls(
    server: TlsServer, mode: str
) -> None:
    assert await works(f"{server.url()}?sslmode={mode}")
    assert server.sessions == [None]


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
async def test_a_mode_that_does_not_demand_tls_goes_without(postgres_url: str, mode: str) -> None:
    assert await works(f"{postgres_url}?sslmode={mode}")


async def test_another_host_name_is_refused_by_verify_full_alone(
    server: TlsServer, authority: Authority
) -> None:
    """The certificate is for localhost; 127.0.0.1 is the same server by another name."""
    url, files = server.url("127.0.0.1"), f"sslrootcert={authority.file}"
    told = await refusal(f"{url}?sslmode=verify-full&{files}")
    assert "for another host: connect by a name that it carries" in told
    assert server.sessions == []
    assert await works(f"{url}?sslmode=verify-ca&{files}")


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_a_server_of_another_authority_is_refused(
    server: TlsServer, stranger: Authority, mode: str
) -> None:
    told = await refusal(f"{server.url()}?sslmode={mode}&sslrootcert={stranger.file}")
    assert "sslrootcert must name the file of the authority" in told
    assert server.sessions == []


async def test_the_systems_authorities_are_those_of_the_operating_system(
    server: TlsServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url()}?sslmode=verify-full&sslrootcert=system"
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert "sslrootcert must name the file" in await refusal(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert await works(url)


async def test_a_clients_certificate_is_sent(strict: TlsServer, authority: Authority) -> None:
    made = authority.issue("client", subject="postgres")
    url = f"{strict.url()}?sslmode=verify-full&sslrootcert={authority.file}"
    assert await works(f"{url}&sslcert={made}&sslkey={made.with_suffix('.key')}")
    assert strict.sessions == ["postgres"]


async def test_without_a_certificate_of_ours_a_strict_server_refuses(
    strict: TlsServer, authority: Authority, stranger: Authority
) -> None:
    """It looks like a lost connection in TLS 1.3, so that the pool tries until its end."""
    url = f"{strict.url()}?sslmode=verify-full&sslrootcert={authority.file}"
    made = stranger.issue("client", subject="postgres")
    for files in ("", f"&sslcert={made}&sslkey={made.with_suffix('.key')}"):
        async with engine_with_pool(url + files, timeout=0.3) as engine:
            with pytest.raises(DatabaseUnavailableError, match="accepted no connection within"):
                await engine.connect()
    assert strict.sessions == []


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_plain_text_is_refused_when_tls_was_asked_for(
    postgres_url: str, authority: Authority, mode: str
) -> None:
    """The tests' usual server has none: it is asked once, and nothing is sent in the clear."""
    files = "" if mode == "require" else f"&sslrootcert={authority.file}"
    told = await refusal(f"{postgres_url}?sslmode={mode}{files}")
    assert "The server offers no TLS: set ssl=on there" in told


async def test_an_expired_certificate_is_refused(postgres_url: str, authority: Authority) -> None:
    expired = authority.issue("expired", subject="x", names="DNS:localhost", days=0)
    async with TlsServer(postgres_url, expired) as server:
        url = f"{server.url()}?sslmode=verify-full&sslrootcert={authority.file}"
        assert "is not valid now: renew it" in await refusal(url)


async def test_channel_binding_cannot_be_demanded(server: TlsServer) -> None:
    with pytest.raises(ConfigurationError, match="asyncpg cannot do channel_binding=require"):
        await works(f"{server.url()}?channel_binding=require")
    assert await works(f"{server.url()}?channel_binding=prefer&sslmode=require")


async def test_the_drivers_word_for_no_tls_is_known(postgres_url: str) -> None:
    """It has neither a class nor a code of its own; when its text changes, this fails."""
    with pytest.raises(ConnectionError) as caught:
        await asyncpg.connect(postgres_url, ssl="require")
    assert is_tls_refused(caught.value)
    assert not is_tls_refused(ConnectionResetError("rejected SSL upgrade"))


def test_an_alert_of_the_server_is_about_our_certificate() -> None:
    alert = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    assert "sslcert and sslkey must name one" in connect_fix(alert)


def test_what_is_no_matter_of_tls_is_told_in_general() -> None:
    assert connect_fix(ConnectionRefusedError()).startswith("Check the host, the port")
    assert connect_fix(ssl.SSLError(1, "wrong version number")).startswith("Check the host")
