"""Certificates for the tests, made by the openssl program, and a server that shows them."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from tests.support.binaries import server_identity
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)


class Authority:
    """A certificate authority in a folder of its own; `file` is its certificate."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.name = name
        self.file = folder / f"{name}.crt"
        _openssl(
            folder,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-subj", f"/CN={name}", "-days", "2"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
        )

    def issue(self, name: str, *, subject: str, names: str = "", days: int = 2) -> Path:
        """A certificate and, beside it, its key: `<name>.crt`, `<name>.key`.

        Args:
            name: Of the files.
            subject: The common name; PostgreSQL compares that of a client with its user.
            names: Whom it is for, as `DNS:localhost,IP:127.0.0.1`.
            days: How long it is valid; 0 makes one that has expired when this returns.
        """
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            # Python 3.13 takes none without the key of its authority.
            "authorityKeyIdentifier=keyid\n"
            + (f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
        )
        _openssl(
            self.folder,
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={subject}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        _openssl(
            self.folder,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", self.file.name),
            *("-CAkey", f"{self.name}.key", "-CAcreateserial", "-days", str(days)),
            *("-extfile", extensions.name, "-out", f"{name}.crt"),
        )
        if not days:
            time.sleep(1.1)  # its last second is the one in which it was made
        return self.folder / f"{name}.crt"


class TlsPostgres(PostgresServer):
    """Debian's PostgreSQL, which has TLS itself, and takes nobody without it."""

    def __init__(self, folder: Path, certificate: Path, clients: Path) -> None:
        """Prepares it; `start()` runs it, as any other.

        Args:
            folder: Of its data.
            certificate: Its own, with the key beside it.
            clients: The authority of the certificates of clients, which the user `strict` must have.
        """
        super().__init__(folder, version="debian", settings={"ssl": "on"})
        self.show(certificate)
        self._clients = clients

    def show(self, certificate: Path) -> None:
        """Has another certificate, from the next start or reload on."""
        self._certificate = certificate
        self.set(ssl_cert_file="server.crt", ssl_key_file="server.key", ssl_ca_file="clients.crt")

    def reload(self) -> None:
        """As ever, and returns when the next connection meets what is new."""
        reloads = "received SIGHUP"
        before = self.log.count(reloads)
        super().reload()
        deadline = time.monotonic() + 10
        while self.log.count(reloads) == before:
            if time.monotonic() > deadline:
                raise TimeoutError("the server did not reload")
            time.sleep(0.005)

    def _write_settings(self, port: int) -> None:
        super()._write_settings(port)
        files = {
            "server.crt": self._certificate.read_text(),
            "server.key": self._certificate.with_suffix(".key").read_text(),
            "clients.crt": self._clients.read_text(),
            "pg_hba.conf": (
                f"hostssl all strict {self.host}/32 scram-sha-256 clientcert=verify-full\n"
                f"hostssl all all {self.host}/32 scram-sha-256\n"
            ),
        }
        for name, text in files.items():
            file = self.folder / name
            file.touch(0o600)
            file.write_text(text)
            if identity := server_identity():
                os.chown(file, identity["user"], identity["group"])


class TlsServer:
    """A PostgreSQL server as one with TLS shows itself: a terminator of TLS before a real one.

    The programs of most servers of the tests are built without OpenSSL. `sessions` has a line for each
    connection whose handshake succeeded: the subject of the client's certificate, or None.
    """

    def __init__(self, upstream: str, certificate: Path, clients: Path | None = None) -> None:
        """Prepares it; `async with` runs it.

        Args:
            upstream: The URL of a database on the real server.
            certificate: The server's own, with its key beside it.
            clients: The authority that must have signed the certificate of a client.
        """
        self.sessions: list[str | None] = []
        self._upstream = urlsplit(upstream)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        if clients is not None:
            self._context.load_verify_locations(clients)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, host: str = "localhost") -> str:
        """The database, by a name of this machine."""
        login, _, _ = self._upstream.netloc.rpartition("@")
        port = self._socket.getsockname()[1]
        return self._upstream._replace(netloc=f"{login}@{host}:{port}").geturl()

    async def __aenter__(self) -> Self:
        self._begin(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    async def _accept(self) -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(self._socket)
            self._begin(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(client, 8) == SSL_REQUEST, "a client came in the clear"
        await loop.sock_sendall(client, b"S")
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=self._context
            )
        except OSError:
            client.close()
            return
        subject = dict(
            pair[0] for pair in (transport.get_extra_info("peercert") or {}).get("subject", ())
        )
        self.sessions.append(subject.get("commonName"))
        back, forth = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        pumps = [
            asyncio.ensure_future(_pump(reader, forth)),
            asyncio.ensure_future(_pump(back, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            transport.abort()
            forth.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
