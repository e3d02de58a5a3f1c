"""TLS as a PostgreSQL that has it speaks it; tests/test_tls.py has what a terminator can show."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError, DatabaseUnavailableError
from tests.support.postgres import PASSWORD
from tests.support.tls import Authority, TlsPostgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.run import Run

SESSION = text("SELECT ssl, version, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


@pytest.fixture(scope="module")
def server(run: Run, authority: Authority, certificate: Path) -> Iterator[TlsPostgres]:
    server = TlsPostgres(run.folder / f"tls-{run.worker}", certificate, authority.file)
    try:
        server.start()
        server.psql(f"CREATE ROLE strict LOGIN PASSWORD '{PASSWORD}'")
        yield server
    finally:
        server.remove()


def url_of(server: TlsPostgres, mode: str, *, host: str = "localhost", **more: Any) -> str:
    """As the superuser, or as another `user`."""
    user = str(more.pop("user", server.user))
    query = urlencode({"sslmode": mode, **more})
    return f"{server.url('postgres', host=host, user=user)}?{query}"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=url, environment="test", pool=PoolConfig(timeout=10))
    async with Database(config) as database:
        yield database


async def told(url: str) -> tuple[bool, str, str | None]:
    """What the server says of the connection: TLS or not, its version, the client's name."""
    async with connected(url) as database, database.read_session() as session:
        ssl, version, client = (await session.execute(SESSION)).one()
        return ssl, version, client


async def refusal(url: str) -> str:
    """The error of a connection that is refused at once, though the pool may wait for long."""
    started = time.monotonic()
    async with connected(url) as database:
        with pytest.raises((DatabaseUnavailableError, DBAPIError)) as caught:
            async with database.read_session() as session:
                await session.execute(text("SELECT 1"))
    assert time.monotonic() - started < 5
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_each_mode_that_allows_tls_is_encrypted(
    server: TlsPostgres, authority: Authority, mode: str
) -> None:
    files: dict[str, Any] = {"sslrootcert": authority.file} if mode.startswith("verify") else {}
    assert await told(url_of(server, mode, **files)) == (True, "TLSv1.3", None)


async def test_the_version_may_be_demanded(server: TlsPostgres, authority: Authority) -> None:
    files: dict[str, Any] = {
        "sslrootcert": authority.file,
        "ssl_max_protocol_version": "TLSv1.2",
    }
    assert await told(url_of(server, "verify-full", **files)) == (True, "TLSv1.2", None)


async def test_another_host_name_is_refused_by_verify_full_alone(
    server: TlsPostgres, authority: Authority
) -> None:
    """The certificate is for localhost; 127.0.0.1 is the same server by another name."""
    files: dict[str, Any] = {"sslrootcert": authority.file}
    said = await refusal(url_of(server, "verify-full", host="127.0.0.1", **files))
    assert "for another host: connect by a name that it carries" in said
    assert (await told(url_of(server, "verify-ca", host="127.0.0.1", **files)))[0]


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_of_another_authority_is_refused(
    server: TlsPostgres, stranger: Authority, mode: str
) -> None:
    said = await refusal(url_of(server, mode, sslrootcert=stranger.file))
    assert "sslrootcert must name the file of the authority" in said


async def test_plain_text_is_refused_by_whoever_asks_for_tls(
    server: TlsPostgres, authority: Authority
) -> None:
    """The server, which lets nobody in without, and the client, when the server has none."""
    assert "no encryption" in await refusal(url_of(server, "disable"))
    server.set(ssl="off")
    server.reload()
    try:
        for mode in ("require", "verify-full"):
            files: dict[str, Any] = {"sslrootcert": authority.file} if mode != "require" else {}
            said = await refusal(url_of(server, mode, **files))
            assert "The server offers no TLS: set ssl=on there" in said
    finally:
        server.set(ssl="on")
        server.reload()


async def test_a_clients_certificate_is_who_it_is(
    server: TlsPostgres, authority: Authority, stranger: Authority
) -> None:
    def url(**more: Any) -> str:
        return url_of(server, "verify-full", user="strict", sslrootcert=authority.file, **more)

    def pair(certificate: Path) -> dict[str, Path]:
        return {"sslcert": certificate, "sslkey": certificate.with_suffix(".key")}

    own = authority.issue("client", subject="strict")
    assert await told(url(**pair(own))) == (True, "TLSv1.3", "/CN=strict")
    assert "requires a valid client certificate" in await refusal(url())
    # Of our authority, and somebody else's: the server calls it a wrong password.
    other = authority.issue("other", subject="ann")
    assert 'authentication failed for user "strict"' in await refusal(url(**pair(other)))
    # In TLS 1.3 the server refuses after the handshake, and asyncpg keeps no reason: it looks like a
    # lost connection, and is tried again until the pool's end.
    forged = stranger.issue("client", subject="strict")
    config = DatabaseConfig(url=url(**pair(forged)), environment="test", pool=PoolConfig(timeout=1))
    async with Database(config) as database, database.read_session() as session:
        with pytest.raises(DatabaseUnavailableError, match="accepted no connection within"):
            await session.execute(text("SELECT 1"))
    said = await refusal(url(**pair(forged), ssl_max_protocol_version="TLSv1.2"))
    assert "sslcert and sslkey must name one" in said


async def test_channel_binding_is_offered_and_not_used(
    server: TlsPostgres, authority: Authority
) -> None:
    """A server with TLS offers SCRAM-SHA-256-PLUS too, which asyncpg has not; who demands it is told."""
    files: dict[str, Any] = {"sslrootcert": authority.file}
    for wish in ("prefer", "disable"):
        assert (await told(url_of(server, "verify-full", channel_binding=wish, **files)))[0]
    with pytest.raises(ConfigurationError, match="asyncpg cannot do channel_binding=require"):
        DatabaseConfig(url=url_of(server, "verify-full", channel_binding="require", **files))


async def test_the_servers_certificate_may_change_meanwhile(
    server: TlsPostgres, authority: Authority, certificate: Path
) -> None:
    """Who is connected stays so; a new connection looks at the new one."""
    url = url_of(server, "verify-full", sslrootcert=authority.file)
    expired = authority.issue("expired", subject="x", names="DNS:localhost", days=0)
    async with connected(url) as database, database.read_session() as session:
        before = await session.scalar(text("SELECT pg_backend_pid()"))
        try:
            server.show(expired)
            server.reload()
            assert "is not valid now: renew it" in await refusal(url)
            assert await session.scalar(text("SELECT pg_backend_pid()")) == before
        finally:
            server.show(certificate)
            server.reload()
        assert (await told(url))[0]


async def test_our_own_certificate_is_read_for_each_new_connection(
    server: TlsPostgres, authority: Authority, tmp_path: Path
) -> None:
    """One that is renewed in its file needs no restart."""
    ours = tmp_path / "ours.crt"

    def renew(name: str) -> None:
        made = authority.issue(name, subject=name)
        for suffix in (".crt", ".key"):
            ours.with_suffix(suffix).write_bytes(made.with_suffix(suffix).read_bytes())

    renew("first")
    files: dict[str, Any] = {
        "sslrootcert": authority.file,
        "sslcert": ours,
        "sslkey": ours.with_suffix(".key"),
    }
    async with connected(url_of(server, "verify-full", **files)) as database:
        for name in ("first", "second"):
            renew(name)
            async with database.read_session() as session:
                assert (await session.execute(SESSION)).one()[2] == f"/CN={name}"
            await database.engine.dispose()
