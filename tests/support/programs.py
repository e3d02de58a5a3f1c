"""Programs by their names, quickly: forked from a process that has imported the frameworks already.

`run("litestar", ["version"], ...)` runs what the script `litestar` runs, in a process of its own, with
its own environment and folder. `Snippets` is such a process that executes one text after another.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import multiprocessing
import os
import runpy
import socket
import sys
import time
import traceback
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Self

from tests.support.postgres import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "advanced_alchemy.cli",
        "advanced_alchemy.extensions.litestar",
        "alembic.command",
        "fastapi",
        "litestar.cli.main",
        "reviewpoint_db.cli",
        "reviewpoint_db.fastapi",
        "reviewpoint_db.litestar",
        "uvicorn.main",
    ]
)


class ProgramError(Exception):
    """A program did not start or end as it should; the message ends with its output."""


def _become(
    program: str, arguments: list[str], folder: str, environment: dict[str, str], output: str
) -> None:
    """Run a program in this process, which was made for it."""
    for descriptor in (1, 2):
        os.dup2(os.open(f"{output}.{descriptor}", os.O_WRONLY | os.O_CREAT), descriptor)
    _settle(folder, environment)
    sys.argv = [program, *arguments]
    if program == "python":
        sys.argv = arguments
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, folder)
            runpy.run_path(arguments[0], run_name="__main__")
        return
    (script,) = entry_points(group="console_scripts", name=program)
    sys.exit(script.load()())


def _settle(folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


class Program:
    """A running program.

    Args:
        name: A script of an installed package, or "python".
        arguments: Its arguments.
        folder: Where it runs, and where its output goes.
        environment: All of its environment.
    """

    def __init__(
        self, name: str, arguments: list[str], *, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._output = folder / f".output-{time.monotonic_ns()}"
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_become,
            args=(name, arguments, str(folder), dict(environment), str(self._output)),
            daemon=True,
        )
        self._process.start()

    def _written(self, descriptor: int) -> str:
        file = self._output.with_name(f"{self._output.name}.{descriptor}")
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def output(self) -> str:
        """What it wrote to stdout so far; when that is nothing, to stderr."""
        return self._written(1) or self._written(2)

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        return self._written(2)

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self, timeout: float = 30.0) -> int:
        """Its exit status, `timeout` seconds from now at the latest."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise ProgramError(f"{self.name} did not end in time:\n{self.output}{self.log}")
        return self._process.exitcode

    def stop(self) -> None:
        """End it as a server is ended, by SIGTERM."""
        self._process.terminate()
        self.wait()


class Served:
    """An application under uvicorn: `with Served(["app:app"], ...) as server: server.port`."""

    def __init__(
        self, arguments: list[str], *, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.port = free_port()
        options = ["--host", HOST, "--port", str(self.port), "--no-use-colors"]
        self.program = Program(
            "uvicorn", [*arguments, *options], folder=folder, environment=environment
        )
        deadline = time.monotonic() + 30
        while not self._accepts():
            if not self.program.running or time.monotonic() > deadline:
                raise ProgramError(f"uvicorn did not start:\n{self.program.log}")
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1):
                return True
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.stop()


def _execute_texts(connection: Connection, folder: str, environment: dict[str, str]) -> None:
    _settle(folder, environment)
    sys.path.insert(0, folder)
    namespace: dict[str, object] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        while True:
            try:
                text, name, line, environment = connection.recv()
            except EOFError:
                return
            os.environ.clear()
            os.environ.update(environment)
            printed, error = io.StringIO(), None
            try:
                with contextlib.redirect_stdout(printed):
                    _execute(text, name, line, namespace, runner)
            except BaseException:  # noqa: BLE001 - whatever it was, the test reports it
                error = traceback.format_exc()
            connection.send((error, printed.getvalue()))


def _execute(
    text: str, name: str, line: int, namespace: dict[str, object], runner: asyncio.Runner
) -> None:
    tree = ast.increment_lineno(ast.parse(text), line - 1)
    code = compile(tree, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        coroutine = eval(code, namespace)
        runner.run(coroutine)
    else:
        exec(code, namespace)


class Snippets:
    """A process that executes one text after another, all in one namespace and one event loop.

    Args:
        folder: Where it runs.
        environment: All of its environment.
    """

    def __init__(self, *, folder: Path, environment: Mapping[str, str]) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_execute_texts, args=(theirs, str(folder), dict(environment)), daemon=True
        )
        self._process.start()
        theirs.close()

    def run(self, text: str, *, name: str, line: int, environment: Mapping[str, str]) -> str:
        """Execute a text; returns what it printed.

        Args:
            text: Python; may await.
            name: The file that it is from.
            line: Where in that.
            environment: All of its environment from now on.

        Raises:
            ProgramError: It raised; the message ends with the traceback.
        """
        self._connection.send((text, name, line, dict(environment)))
        if not self._connection.poll(30):
            raise ProgramError(f"{name}:{line} did not end in time")
        error, printed = self._connection.recv()
        if error is not None:
            raise ProgramError(f"{name}:{line} raised:\n{error}")
        return str(printed)

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self._process.join(10)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
