"""Removes each protection in turn and expects the tests to notice: `python -m tests.mutants`.

It works on a copy of the repository in a temporary folder, so the tree may be dirty and stays as it
is. A mutant whose text is not found, or found twice, is stale, which counts as a failure too.

    python -m tests.mutants            all of them
    python -m tests.mutants commit     those whose name contains a word
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = "reviewpoint_db"
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "build", "htmlcov")

# The contract on one application; the protections of the core are the same for all.
KIND = "litestar-autocommit-postgresql"
MANUAL = "litestar-manual-postgresql"
STARLETTE = "starlette-autocommit-postgresql"
TIMEOUT = 300
#: Each works in a copy of its own.
WORKERS = 2


class Mutant(NamedTuple):
    """One protection, how to remove it, and which tests must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    only: str = ""


def contract(tests: str, only: str = "", kind: str = KIND) -> tuple[str, str]:
    """The tests of a module of the contract, on one application."""
    return f"tests/contract/test_{tests}.py", f"{kind} and ({only})" if only else kind


MUTANTS = [
    # -- what an operator sees --------------------------------------------------------------------
    Mutant(
        "a replica that one process finds dead is added up with the others' word",
        "metrics.py",
        '_WORST: Final = {"replica_up": "livemin", ',
        '_WORST: Final = {"replica_up": "livesum", ',
        "tests/test_metrics.py",
        "worst_word",
    ),
    Mutant(
        "an outage that only health checks meet is told to nobody",
        "health_memory.py",
        '            self._activity.reachability.failed(connection.detail or "no answer")\n',
        "            pass\n",
        "tests/test_reachability.py",
        "only_health_checks_meet",
    ),
    Mutant(
        "the page does not ask whether the database is there",
        "live.py",
        "        if self._database.started and last.age > lasts:\n",
        "        if False:\n",
        "tests/endpoints/test_live.py",
        "nobody_else_met",
    ),
    Mutant(
        "a failing check of the application is not on the page",
        "endpoints/headline.py",
        "    own = health.checks[2:] if health else ()\n",
        "    own: tuple = ()\n",
        "tests/endpoints",
        "failing_check",
    ),
    Mutant(
        "anybody may see the details of health",
        "endpoints/access.py",
        "return self._digest is not None and self.check(authorization) is None",
        "return True",
        "tests/endpoints/test_routes.py",
        "health_tells_why",
    ),
    Mutant(
        "an outage that is over is told for as long as another worker has not heard of it",
        "endpoints/live.py",
        "or other.outage_ago <= last.age:",
        "or True:",
        "tests/endpoints/test_live.py",
        "not_heard_of_the_end",
    ),
    Mutant(
        "a migration waits for an application's check",
        "cli.py",
        'if report.cause != "unreachable" or left <= 0:',
        'if report.status != "unhealthy" or left <= 0:',
        "tests/test_cli.py",
        "does_not_judge_by_it",
    ),
    Mutant(
        "nobody remembers what blocked the loop",
        "lateness.py",
        "LoopLate(now, late, self._place)",
        "LoopLate(now, late)",
        "tests/test_watch.py",
        "named_with_its_stack",
    ),
    Mutant(
        "a few failures among many statements are an alarm",
        "endpoints/headline.py",
        "_SHARE_FAILS: Final = 0.1",
        "_SHARE_FAILS: Final = 0.0",
        "tests/endpoints/test_headline.py",
        "good_share",
    ),
    Mutant(
        "an outage is told at each failure",
        "reachability.py",
        "        if before is None:\n            self._activity.up_changed(up=False)\n",
        "        if True:\n            self._activity.up_changed(up=False)\n",
        "tests/test_reachability.py",
        "requests_meet",
    ),
    Mutant(
        "a dead replica is told as an outage",
        "supply.py",
        "return getattr(self._pool._dialect, REPLICA, False)",
        "return False",
        "tests/test_reachability.py",
        "replica_that_is_dead",
    ),
    Mutant(
        "of several processes one that is right hides the others' outage",
        "metrics.py",
        '"up": "livemin"',
        '"up": "livemax"',
        "tests/test_metrics.py",
        "word_on_the_database",
    ),
    Mutant(
        "a replica that is too far behind is not named",
        "endpoints/headline.py",
        "    if host.watched and not host.used and host.lag is not None:\n",
        "    if False:\n",
        "tests/endpoints/test_headline.py",
        "down_or_behind",
    ),
    Mutant(
        "a file's name is made short for each frame of each stack",
        "stacks.py",
        "@lru_cache(maxsize=4096)",
        "@lru_cache(maxsize=0)",
        "tests/test_stacks.py",
        "judged_once",
    ),
    Mutant(
        "the stacks are read again for the server's view",
        "endpoints/live.py",
        "database.live.server(seen)",
        "database.live.server()",
        "tests/endpoints/test_live.py",
        "once_a_look",
    ),
    Mutant(
        "a counter begins with its first event",
        "metrics.py",
        "    _begin(instrument)\n",
        "",
        "tests/test_metrics.py",
        "several_processes_too",
    ),
    Mutant(
        "warnings begin with the first one",
        "metrics.py",
        'dict.fromkeys(_KNOWN["warnings"], 0) | snapshot.warnings',
        "snapshot.warnings",
        "tests/test_metrics.py",
        "before_their_first",
    ),
    Mutant(
        "the gauges of the living go with those of the dead",
        "metrics_folder.py",
        "        if not _lives(pid):\n",
        "        if True:\n",
        "tests/test_metrics.py",
        "of_nobody_else",
    ),
    Mutant(
        "the gauges of a killed worker stay",
        "metrics.py",
        '            forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))\n',
        "",
        "tests/test_metrics.py",
        "of_nobody_else",
    ),
    Mutant(
        "each connection that is held too long is a warning of its own",
        "watch.py",
        "                found.setdefault(key, []).append(holder)\n",
        "                found.setdefault((*key[:2], str(id(holder))), []).append(holder)\n",
        "tests/test_watch.py",
        "are_one",
    ),
    Mutant(
        "the page counts the warnings that are remembered",
        "activity.py",
        "self._said.pop(key, 0) + 1",
        "1",
        "tests/endpoints/test_live.py",
        "beyond_those",
    ),
    Mutant(
        "whom the headline blames has no row",
        "endpoints/live.py",
        '"holders": _rows(holders, blamed),',
        '"holders": holders[:MOST_HOLDERS],',
        "tests/endpoints/test_live.py",
        "has_a_row",
    ),
    Mutant(
        "whom the headline blames is not among the first rows",
        "dashboard/holders.js",
        "blamed.has(each.id) || others-- > 0",
        "others-- > 0",
        "tests/browser/test_page.py",
        "shown_ten_at_first",
    ),
    Mutant(
        "a chart's line goes on where nothing was measured",
        "dashboard/charts.js",
        "at - before > GAP",
        "false",
        "tests/browser/test_page.py",
        "interrupted",
    ),
    Mutant(
        "the system checks' statements are told as the application's",
        "slowest.py",
        "            if entry.origin is None or entry.origin != self._but_of\n",
        "",
        "tests/endpoints/test_live.py",
        "slowest_statements",
    ),
    # -- what a run of the testing kit leaves -----------------------------------------------------
    Mutant(
        "who ends a run from outside leaves its databases",
        "../reviewpoint_db_pytest/reaper.py",
        "        if (folder / NOTED).exists():",
        "        if False:",
        "tests/testing/test_ends.py",
        "from_outside_leaves_no_database",
    ),
    Mutant(
        "a killed run's reaper drops what another run has made since",
        "testing/leftovers.py",
        "if not ended or server.mark_of(names[0]) == folder.name:",
        "if True:",
        "tests/testing/test_ends.py",
        "made_since",
    ),
    Mutant(
        "what is killed together with its reaper stays",
        "../reviewpoint_db_pytest/run.py",
        "            _start_reaper(lock.parent)\n",
        "            pass\n",
        "tests/testing/test_ends.py",
        "together_with_its_reaper",
    ),
    Mutant(
        "the databases of a killed run stay",
        "testing/kit.py",
        "            if stray.fullmatch(name):\n",
        "            if False:\n",
        "tests/testing/test_ends.py",
        "together_with_its_reaper",
    ),
    Mutant(
        "changed tables are not noticed",
        "testing/kit.py",
        "            mark = schema.fingerprint(self.home.url(name))\n",
        '            mark = "same"\n',
        "tests/testing/test_reuse.py",
        "changed and sqlite",
    ),
    Mutant(
        "a connection that a test without a sandbox leaves out is not seen",
        "../reviewpoint_db_pytest/__init__.py",
        "    result = yield\n    _refuse_leaks(item)\n",
        "    result = yield\n",
        "tests/testing/test_plugin.py",
        "leaves_a_connection_out and sqlite",
    ),
    # -- the testing kit's sandbox ----------------------------------------------------------------
    Mutant(
        "a commit that escapes from the sandbox is not seen",
        "testing/sandbox.py",
        "            raise\n        if not self.ground.open:\n",
        "            raise\n        if False:\n",
        "tests/testing/test_sandbox.py",
        "escapes and sqlite",
    ),
    Mutant(
        "a statement that fails may end the sandbox's transaction",
        "testing/sandbox.py",
        "        except BaseException:\n            if not self.ground.open:\n",
        "        except BaseException:\n            if False:\n",
        "tests/testing/test_sandbox.py",
        "fails_and_ends",
    ),
    Mutant(
        "what escaped from the sandbox stays in the worker's database",
        "testing/kit.py",
        "            if sandbox.escaped is not None:\n",
        "            if False:\n",
        "tests/testing/test_sandbox.py",
        "escapes and sqlite",
    ),
    Mutant(
        "deferred constraints are not checked at a COMMIT in the sandbox",
        "testing/sandbox.py",
        "            await self.ground.check_deferred()\n",
        "            pass\n",
        "tests/testing/test_sandbox.py",
        "rules and postgresql",
    ),
    Mutant(
        "a failed statement makes the sandbox's connection unusable for others",
        "testing/sandbox.py",
        "        if aborted and own is not None:\n",
        "        if False:\n",
        "tests/testing/test_sandbox.py",
        "affair",
    ),
    Mutant(
        "a transaction in the sandbox goes on after a failed statement",
        "testing/sandbox.py",
        "            if level.failed and not is_rollback(text):\n",
        "            if False:\n",
        "tests/testing/test_sandbox.py",
        "affair",
    ),
    Mutant(
        "a failed statement below another transaction undoes that one",
        "testing/sandbox.py",
        "        guarded = level.guest or own is None\n",
        "        guarded = level.guest\n",
        "tests/testing/test_sandbox.py",
        "affair",
    ),
    Mutant(
        "a rollback in the sandbox undoes what others committed since",
        "testing/levels.py",
        "        for savepoint in self._savepoints:\n            if level in savepoint.writers:\n",
        "        for savepoint in self._savepoints:\n            if False:\n",
        "tests/testing/test_sandbox.py",
        "under_another and sqlite",
    ),
    Mutant(
        "a refused rollback that an application caught is not told",
        "../reviewpoint_db_pytest/__init__.py",
        "    for message in (refused, ",
        "    for message in (",
        "tests/testing/test_sandbox.py",
        "under_another and sqlite",
    ),
    Mutant(
        "what a test failed with is said again by its sandbox",
        "../reviewpoint_db_pytest/__init__.py",
        " and message not in said:",
        ":",
        "tests/testing/test_sandbox.py",
        "is_said_once",
    ),
    Mutant(
        "a test that asks for no database reaches the configured one before another one asks",
        "../reviewpoint_db_pytest/__init__.py",
        "        _kit_of(config).refuse_until_made()\n",
        "        _kit_of(config)\n",
        "tests/testing/test_plugin.py",
        "never_reaches",
    ),
    Mutant(
        "a fixture with a wider scope stores rows although that is refused",
        "testing/kit.py",
        "        elif strict or isinstance(base, Refusal):\n",
        "        elif isinstance(base, Refusal):\n",
        "tests/testing/test_outside.py",
        "refused_by_its_name and sqlite",
    ),
    Mutant(
        "nobody is told what a fixture with a wider scope stored",
        "../reviewpoint_db_pytest/lasting.py",
        "        if stored and ",
        "        if False and ",
        "tests/testing/test_outside.py",
        "told_what_it_stored and sqlite",
    ),
    Mutant(
        "locks that a test took stay",
        "testing/postgresql.py",
        "ROLLBACK; SELECT pg_advisory_unlock_all(); {_DEALLOCATE}",
        "ROLLBACK; {_DEALLOCATE}",
        "tests/testing/test_sandbox.py",
        "locks_and",
    ),
    Mutant(
        "what a test prepared stays",
        "testing/postgresql.py",
        "ROLLBACK; SELECT pg_advisory_unlock_all(); {_DEALLOCATE}",
        "ROLLBACK; SELECT pg_advisory_unlock_all()",
        "tests/testing/test_sandbox.py",
        "locks_and",
    ),
    Mutant(
        "what an earlier run stored is found in a database that is kept",
        "testing/kit.py",
        "        self._make_worker(name, mark)\n        url = ",
        "        if self.home.mark_of(name) != mark:\n            self._make_worker(name, mark)\n        url = ",
        "tests/testing/test_reuse.py",
        "as_asked and sqlite",
    ),
    Mutant(
        "two parties have transactions in the sandbox at a time",
        "testing/turns.py",
        "        return not self._count or self._party is party\n",
        "        return True\n",
        "tests/testing/test_turns.py",
    ),
    Mutant(
        "who gives up keeps his turn",
        "testing/turns.py",
        "        if served.done():  # in the same moment\n",
        "        if False:\n",
        "tests/testing/test_turns.py",
        "gives_up",
    ),
    Mutant(
        "who gave up is served all the same",
        "testing/turns.py",
        "        self._waiting = deque(one for one in self._waiting if one[2] is not served)\n",
        "",
        "tests/testing/test_turns.py",
        "gave_up",
    ),
    # -- what is under way, and what is over -------------------------------------------------------
    Mutant(
        "what was under way in an abandoned pool frees a slot",
        "supply.py",
        "        if generation != self.slots.generation:\n",
        "        if False:\n",
        "tests/test_pool.py",
        "abandoned_pool",
    ),
    Mutant(
        "an overload is taken for a silent database",
        "pool.py",
        "any(now - begun >= self._timeout / 2 for",
        "any(now - begun >= 0 for",
        "tests/test_pool.py",
        "an_overload_is",
    ),
    Mutant(
        "no thread watches the loop that comes after a closed one",
        "watch.py",
        "                self._thread = None\n            return True\n",
        "                pass\n            return True\n",
        "tests/test_watch.py",
        "closed_without_a_stop",
    ),
    Mutant(
        "another application of the same name is not counted on the server",
        "checks.py",
        " and datname = current_database()",
        "",
        "tests/test_checks.py",
        "same_name",
    ),
    Mutant(
        "who leaks a connection of the second database is not named",
        "holder.py",
        "units.get(database) or next(",
        "next(",
        "tests/test_activity.py",
        "second_database",
    ),
    Mutant(
        "the live page stands still where the clock is set back",
        "history.py",
        "            self._samples.clear()  # the clock was set back\n",
        "            return\n",
        "tests/test_history.py",
        "set_back",
    ),
    Mutant(
        "a task that does not end holds up the stop",
        "database.py",
        "            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)\n",
        "            await asyncio.wait(tasks)\n",
        "tests/test_database.py",
        "holds_up_no_stop",
    ),
    Mutant(
        "two loops of a process are two workers",
        "live.py",
        ", token=self._token)",
        ")",
        "tests/endpoints/test_live.py",
        "second_loop",
    ),
    # -- the watch of replicas ---------------------------------------------------------------------
    Mutant(
        "the watch of replicas outlives its event loop",
        "replica_watch.py",
        "        return self._requested or (self._loop is not None and self._loop.is_closed())\n",
        "        return self._requested\n",
        "tests/test_replica_watch.py",
        "ends_with_its_loop",
    ),
    Mutant(
        "what the last watch saw of replicas is believed for ever",
        "replicas.py",
        "                self._forget()  # what the last watch saw may be long ago\n",
        "",
        "tests/test_replica_watch.py",
        "begins_anew",
    ),
    Mutant(
        "a frozen host of the primary's URL hides the primary from the watch",
        "replica_watch.py",
        "    return _TIMEOUT + HEAD_START * others\n",
        "    return _TIMEOUT\n",
        "tests/test_replica_watch.py",
        "behind_silent_hosts",
    ),
    # -- starts and stops --------------------------------------------------------------------------
    Mutant(
        "each call of a password's function that hangs keeps a thread",
        "passwords.py",
        "            if self._hanging >= _MOST_HANGING:\n",
        "            if False:\n",
        "tests/test_passwords.py",
        "uses_up_no_threads",
    ),
    Mutant(
        "a start that fails leaves its connections open",
        "database.py",
        "        except BaseException:\n            await self.stop()\n            raise\n",
        "        except BaseException:\n            raise\n",
        "tests/test_database.py",
        "start_that_fails",
    ),
    Mutant(
        "processes create the tables at the same time",
        "tables.py",
        "            connection.execute(_ONE_AT_A_TIME)\n",
        "            pass\n",
        "tests/test_database.py",
        "create_the_tables_one_by_one",
    ),
    Mutant(
        "a forked child deletes its parent's memory",
        "sqlite.py",
        "    if os.getpid() == maker:\n",
        "    if True:\n",
        "tests/test_forks.py",
        "parents_memory",
    ),
    Mutant(
        "an application's check stands in for ours",
        "database.py",
        "        if name in OWN_CHECKS:\n",
        "        if False:\n",
        "tests/test_health.py",
        "stand_in",
    ),
    # -- WebSockets --------------------------------------------------------------------------------
    Mutant(
        "a cached answer bears another client's token",
        "read_your_writes.py",
        '                message = {**message, "headers": headers}  # the old one is in a cache, maybe\n',
        '                message["headers"] = headers\n',
        "tests/test_read_your_writes.py",
        "cached",
    ),
    Mutant(
        "an application mounted in a running one answers a database that is away with 500",
        "starlette/routes.py",
        "            add_default_handlers(self.owner)\n",
        "",
        "tests/review/test_mounted_applications.py",
        "mounted_later",
    ),
    Mutant(
        "a WebSocket is left to the garbage collector",
        "asgi.py",
        "                socket.leave(scope)\n",
        "                pass\n",
        "tests/test_asgi.py",
        "socket_leaves_nothing",
    ),
    Mutant(
        "a WebSocket without a database is left to the framework",
        "asgi.py",
        "            if socket is None or not await socket.refuse(error):\n",
        "            if True:\n",
        "tests/test_sockets.py",
        "starlette or fastapi",
    ),
    Mutant(
        "Litestar closes a WebSocket without a database as it likes",
        "litestar/setup.py",
        "        app_config.after_exception.append(note_socket_failure)\n",
        "",
        "tests/test_sockets.py",
        "litestar",
    ),
    # -- what is shown of errors -------------------------------------------------------------------
    Mutant(
        "a value that was taken for a name is shown",
        "redaction.py",
        '    return names <= _words(statement or "") | _BETWEEN_NAMES\n',
        "    return True\n",
        "tests/test_redaction.py",
        "no_value_in_an_error_of_postgresql",
    ),
    Mutant(
        "a value that a function put into its SQL is shown",
        "redaction.py",
        '        and not (getattr(error, "context", None) or getattr(error, "internal_query", None))\n',
        "",
        "tests/test_redaction.py",
        "no_value_in_an_error_of_postgresql",
    ),
    Mutant(
        "asyncpg's own copy of a message keeps its values",
        "redaction.py",
        "        error.message = text ",
        "        pass ",
        "tests/test_redaction.py",
        "no_value_in_an_error_of_postgresql",
    ),
    Mutant(
        "an error keeps the object that it complains of",
        "redaction.py",
        "            setattr(error, name, None)\n    if hasattr",
        "            pass\n    if hasattr",
        "tests/test_redaction.py",
        "no_value or no_json",
    ),
    # -- read sessions -----------------------------------------------------------------------------
    Mutant(
        "a read session's flush begins to work",
        "read_session.py",
        "        if self.new or self.deleted or any(self.is_modified(one) for one in self.dirty):\n",
        "        if False:\n",
        "tests/review/test_read_sessions.py",
        "changed_object",
    ),
    Mutant(
        "tasks that share a read session take no turns",
        "turns.py",
        "        if self._now is None:\n",
        "        if True:\n",
        "tests/test_turns.py",
        "at_once or harms",
    ),
    Mutant(
        "a turn is lost with who was canceled",
        "turns.py",
        "            if self._now is mine:  # called and canceled in the same moment\n",
        "            if False:\n",
        "tests/test_turns.py",
        "passes_it_on",
    ),
    Mutant(
        "a stream begins in the middle of a read",
        "read_session.py",
        "        return self._turns().run(stream)\n",
        "        return stream()\n",
        "tests/test_turns.py",
        "stream",
    ),
    Mutant(
        "a rollback ends the reads of others",
        "read_session.py",
        "        self._turns().run(super().rollback)\n",
        "        super().rollback()\n",
        "tests/test_turns.py",
        "an_end_waits",
    ),
    # -- the way to the server --------------------------------------------------------------------
    Mutant(
        "statements are prepared although PgBouncer is in between",
        "pgbouncer.py",
        "            **_SAFE,\n",
        "",
        "tests/test_pgbouncer.py",
        "noticed_asked",
    ),
    Mutant(
        "PgBouncer is not looked for",
        "pgbouncer.py",
        "        if not _hints(driver):\n",
        "        if True:\n",
        "tests/test_pgbouncer.py",
        "noticed_asked",
    ),
    Mutant(
        "a password that lags behind its rotation is told at once",
        "supply.py",
        "            passing = lagging or is_transient_connect(error)\n",
        "            passing = is_transient_connect(error)\n",
        "tests/test_passwords.py",
        "rotation_under_load",
    ),
    Mutant(
        "a password's function may hang",
        "passwords.py",
        "            async with asyncio.timeout(self.timeout):\n",
        "            async with asyncio.timeout(5):\n",
        "tests/test_passwords.py",
        "function_that_hangs",
    ),
    Mutant(
        "a server without TLS is tried again",
        "sqlstate.py",
        " or is_tls_refused(error)\n",
        "\n",
        "tests/test_tls.py",
        "plain_text_is_refused",
    ),
    # -- no lie to the client ---------------------------------------------------------------------
    Mutant(
        "the response leaves before COMMIT",
        "commit_middleware.py",
        "                if unit.opened:\n                    try:\n",
        "                await send(message)\n                if unit.opened:\n                    try:\n",
        *contract("commit", "whoever"),
    ),
    Mutant(
        "a failed COMMIT is swallowed",
        "commit_middleware.py",
        "                        failed = error\n                        raise\n",
        "                        del error\n",
        *contract("commit", "deferred_constraint"),
    ),
    Mutant(
        "a failed COMMIT is answered by nobody",
        "commit_middleware.py",
        "            await self._answer(scope, receive, send, failed)\n",
        "            raise failed\n",
        *contract("commit", "own_handler_answers_errors_of_commit"),
    ),
    Mutant(
        "the end of a stream does not wait for COMMIT",
        "commit_middleware.py",
        "                if unit.dirty:\n",
        "                if False:\n",
        *contract("streams", "whose_commit_fails or end_of_a_stream"),
    ),
    Mutant(
        "a stream whose client left commits",
        "commit_middleware.py",
        "succeeded=complete and unit.succeeded is True",
        "succeeded=unit.succeeded is True",
        "tests/test_asgi.py",
        "returns_before_its_end",
    ),
    Mutant(
        "a returned 4xx commits",
        "commit_middleware.py",
        "lambda status: status < 400",
        "lambda status: status < 600",
        "tests/test_asgi.py",
        "error_status",
    ),
    Mutant(
        "manual mode commits",
        "transaction.py",
        "if session is None or not self._terms.autocommit or not",
        "if session is None or not",
        "tests/test_transaction.py",
        "manual_mode",
    ),
    Mutant(
        "lost changes go unmentioned",
        "transaction.py",
        "        if self._terms.autocommit or not self.succeeded:\n",
        "        if True:\n",
        *contract("rollback", "did_not_commit", MANUAL),
    ),
    Mutant(
        "an unknown outcome of COMMIT is told as a failure",
        "engine_errors.py",
        "    if in_commit:\n",
        "    if False:\n",
        *contract("commit", "may_have_stored"),
    ),
    Mutant(
        "an unknown outcome is repeated",
        "retries.py",
        "attempt >= retries or not is_serialization_failure(error)",
        "attempt >= retries",
        "tests/test_retries.py",
        "unknown_outcome or other_errors",
    ),
    Mutant(
        "a WebSocket's failed COMMIT closes as a success",
        "commit_middleware.py",
        '                    message = {"type": "websocket.close", "code": _INTERNAL_ERROR}\n',
        "                    pass\n",
        *contract("websockets", "1011"),
    ),
    Mutant(
        "a WebSocket's error code commits",
        "commit_middleware.py",
        'message.get("code", 1000) in _NORMAL',
        "True",
        *contract("websockets", "close_with_an_error"),
    ),
    Mutant(
        "functions after COMMIT run after a rollback",
        "after_commit.py",
        "            self._waiting.clear()\n",
        "            pass\n",
        "tests/test_transaction.py",
        "rollback_forgets",
    ),
    Mutant(
        "a failed function after COMMIT skips the next",
        "after_commit.py",
        "        except Exception as error:  # noqa: BLE001 - the data is stored, whatever this was\n",
        "        except ZeroDivisionError as error:\n",
        "tests/test_transaction.py",
    ),
    Mutant(
        "a cancelled request takes the functions after COMMIT with it",
        "after_commit.py",
        "    await asyncio.shield(task)\n",
        "    await task\n",
        "tests/test_transaction.py",
        "skips_no_function",
    ),
    Mutant(
        "the stop does not wait for functions after COMMIT",
        "database.py",
        "        await until_run(self._after_commits, _DRAIN_TIMEOUT)  # they may use sessions of their own\n",
        "",
        "tests/test_transaction.py",
        "stop_waits_for_functions",
    ),
    # -- the page and who sees it ------------------------------------------------------------------
    Mutant(
        "a wrong token is let in",
        "endpoints/access.py",
        "        if hmac.compare_digest(offered, self._digest):\n",
        "        if offered:\n",
        "tests/endpoints/test_access.py",
        "401",
    ),
    Mutant(
        "the page has no policy",
        "endpoints/page.py",
        '            "content-security-policy": "; ".join(policy),\n',
        "",
        "tests/endpoints/test_page.py",
        "policy",
    ),
    Mutant(
        "the page allows any script",
        "endpoints/page.py",
        """        f"script-src {' '.join(map(_hash, scripts))}",\n""",
        """        "script-src 'unsafe-inline'",\n""",
        "tests/endpoints/test_page.py",
        "policy",
    ),
    Mutant(
        "the page makes markup of text",
        "dashboard/elements.js",
        "  if (node.textContent !== text) node.textContent = text;\n",
        "  node.innerHTML = text;\n",
        "tests/endpoints/test_page.py",
        "markup",
    ),
    Mutant(
        "a hidden tab goes on asking",
        "dashboard/page.js",
        "  const stopped = paused || document.hidden;\n",
        "  const stopped = paused;\n",
        "tests/browser/test_page.py",
        "hidden_tab",
    ),
    Mutant(
        "each database logs the late loop",
        "lateness.py",
        'activity.warn("event_loop_late", message, origin=self._name, log=False)',
        'activity.warn("event_loop_late", message, origin=self._name)',
        "tests/test_watch.py",
        "two_databases",
    ),
    # -- no leak ----------------------------------------------------------------------------------
    Mutant(
        "sessions are not released",
        "asgi.py",
        "            if unit.opened:\n                await unit.release()\n",
        "            if False:\n                await unit.release()\n",
        *contract("rollback", "refuses or dependency or validation", MANUAL),
    ),
    Mutant(
        "the release is not shielded",
        "database.py",
        "            await asyncio.shield(rest)\n",
        "            await rest\n",
        "tests/test_transaction.py",
        "cancelled_twice",
    ),
    Mutant(
        "connections that SQLAlchemy lost sight of are left",
        "transaction.py",
        "        if not connection.closed:\n",
        "        if False:\n",
        "tests/test_transaction.py",
        "in_the_middle_of_a_query",
    ),
    Mutant(
        "a connection that arrives after the end is kept",
        "session.py",
        "        connection.close()\n        raise closed_error()\n",
        "        pass\n",
        "tests/test_session.py",
        "arrives_after_the_end",
    ),
    Mutant(
        "a session goes on after its request",
        "session.py",
        "        if state_of(self).ended:\n",
        "        if False:\n",
        "tests/test_session.py",
        "that_is_over",
    ),
    Mutant(
        "a failed COMMIT is not rolled back",
        "session.py",
        "            with contextlib.suppress(SQLAlchemyError, OSError):\n                self.rollback()\n",
        "            pass\n",
        "tests/test_session.py",
        "failed_commit",
    ),
    Mutant(
        "an open transaction comes back to the pool",
        "pool.py",
        '        elif self._unclean(pooled):\n            self._supply.discard(pooled, "unclean")\n'
        "        elif now",
        "        elif now",
        "tests/test_pool.py",
        "comes_back_in_a_transaction",
    ),
    Mutant(
        "a statement under way comes back to the pool",
        "pool.py",
        "in_transaction(pooled.driver) or pooled.busy\n",
        "in_transaction(pooled.driver)\n",
        "tests/test_pool.py",
        "middle_of_a_statement",
    ),
    Mutant(
        "an open transaction is handed out",
        "pool.py",
        "            and not self._unclean(pooled)\n",
        "",
        "tests/test_pool.py",
        "used_after_its_return and trusted",
    ),
    Mutant(
        "an open transaction is pinged and handed out",
        "pool.py",
        '        elif self._unclean(pooled):\n            self._supply.discard(pooled, "unclean")\n'
        "        elif time",
        "        elif time",
        "tests/test_pool.py",
        "used_after_its_return and pinged",
    ),
    # -- no endless wait --------------------------------------------------------------------------
    Mutant(
        "statements have no time limit",
        "connect_args.py",
        '        "command_timeout": config.query_timeout,\n',
        "",
        *contract("errors", "beyond_its_time_limit"),
    ),
    Mutant(
        "idle connections are not pinged",
        "postgresql.py",
        "    needs_ping = True\n",
        "    needs_ping = False\n",
        *contract("outages", "noticed_by_the_ping"),
    ),
    Mutant(
        "a refused connection is not tried again",
        "sqlstate.py",
        "(isinstance(current, OSError) and not _will_stay(current))",
        "False",
        *contract("outages", "waited_out"),
    ),
    Mutant(
        "those who wait are not served in order",
        "slots.py",
        "        while place and self._waiters[place - 1].ticket > waiter.ticket:\n",
        "        while place:\n",
        "tests/test_slots.py",
        "first_served",
    ),
    Mutant(
        "unavailability is a 500",
        "sqlstate.py",
        "    if _is_unavailable(error, code):\n",
        "    if False:\n",
        *contract("outages", "is_a_503"),
    ),
    Mutant(
        "a conflict is a 500",
        "sqlstate.py",
        "    if _is_conflict(error, code):\n",
        "    if False:\n",
        *contract("commit", "409"),
    ),
    Mutant(
        "a collision is a 500",
        "sqlstate.py",
        "    if code in _SERIALIZATION:\n        return ErrorAnswer",
        "    if False:\n        return ErrorAnswer",
        *contract("commit", "collision or skew"),
    ),
    Mutant(
        "a typo in who commits leaves everything uncommitted",
        "transaction.py",
        '    raise refuse("commit", repr(commit)',
        '    return "manual"\n    raise refuse("commit", repr(commit)',
        "tests/test_transaction.py",
        "typo",
    ),
    Mutant(
        "the answer to an error commits",
        "commit_middleware.py",
        "                if succeeded and self._answers_error(around):\n",
        "                if False:\n",
        "tests/test_asgi.py",
        "commits_nothing",
    ),
    Mutant(
        "who tries again keeps the half of the first try",
        "commit_middleware.py",
        "                await _roll_back(unit)  # a middleware may try again, and begins anew then\n",
        "                pass\n",
        "tests/test_asgi.py",
        "begins_anew",
    ),
    Mutant(
        "a second cancellation hides what is unknown",
        "engine_errors.py",
        "            if connection.driver_connection not in unanswered:\n",
        "            if True:\n",
        "tests/test_engine.py",
        "cancelled_commit",
    ),
    Mutant(
        "a lost statement that commits by itself may be repeated",
        "engine_errors.py",
        "        in_commit = _commits_itself(connection, context)\n",
        "        pass\n",
        "tests/test_engine.py",
        "commits_by_itself",
    ),
    Mutant(
        "a cached stream stays that was not sent to its end",
        "litestar/middleware.py",
        "        if not complete:\n",
        "        if False:\n",
        "tests/litestar/test_responses.py",
        "client_left_is_forgotten",
    ),
    Mutant(
        "nobody looks after what a cancelled waiter left",
        "slots.py",
        "            self._kept()\n",
        "            pass\n",
        "tests/test_pool.py",
        "cancelled_waiter",
    ),
    Mutant(
        "waiting for a connection has no end",
        "slots.py",
        "            if waiter.deadline <= now:\n",
        "            if False:\n",
        "tests/test_slots.py",
        "deadline_ends_the_wait",
    ),
    Mutant(
        "who has the earlier deadline waits for the later one",
        "slots.py",
        "            if self._expires_at <= deadline:\n",
        "            if True:\n",
        "tests/test_slots.py",
        "each_deadline",
    ),
    Mutant(
        "only the first deadline ends a wait",
        "slots.py",
        "                self._expire_at(waiter.deadline, loop)\n",
        "                pass\n",
        "tests/test_slots.py",
        "each_deadline",
    ),
    Mutant(
        "an overload is a burst",
        "standing.py",
        "            self.stands = True\n",
        "            pass\n",
        "tests/test_slots.py",
        "stands",
    ),
    Mutant(
        "who would wait in vain is not refused at once",
        "slots.py",
        "        if crowded and waiters[-1].ticket < newcomer.ticket:",
        "        if False:",
        "tests/test_slots.py",
        "refused_at_once",
    ),
    Mutant(
        "who has waited in vain is served before all others",
        "slots.py",
        "        while first is not None and now - first.since > standing.patience:\n",
        "        while False:\n",
        "tests/test_slots.py",
        "waited_too_long",
    ),
    Mutant(
        "a host that vanishes holds its locks for two hours",
        "connect_args.py",
        '    "tcp_keepalives_idle": "30",\n',
        "",
        "tests/test_postgresql.py",
        "host_that_vanishes",
    ),
    Mutant(
        "the pool budget forgets the processes",
        "budget.py",
        "return self.processes * (self.size",
        "return (self.size",
        "tests/test_checks.py",
        "rpdb005",
    ),
    Mutant(
        "the pool budget forgets the replicas",
        "budget.py",
        "return 1 if self.replicas else 0",
        "return 0",
        "tests/test_checks.py",
        "rpdb005",
    ),
    Mutant(
        "readiness says yes while draining",
        "draining.py",
        "        if self.active:\n            self.begin()\n",
        "",
        "tests/test_draining.py",
        "called_before_the_server",
    ),
    Mutant(
        "connections known to be dead are handed out",
        "pool.py",
        "            and not self._backend.is_closed(pooled.driver)\n",
        "",
        "tests/test_pool.py",
        "killed_connections",
    ),
    Mutant(
        "a lost connection makes the others no suspects",
        "pool.py",
        "            and pooled.idle_since > self._suspect_since\n",
        "",
        "tests/test_pool.py",
        "after_one_was_lost",
    ),
    Mutant(
        "a failover leaves the idle connections",
        "pool.py",
        "        self._supply.retire()\n",
        "",
        "tests/test_pool.py",
        "retiring_replaces",
    ),
    Mutant(
        "a failover leaves the connections in use",
        "pool.py",
        "        for pooled in self._leased.values():\n            pooled.retire_at",
        "        for pooled in ():\n            pooled.retire_at",
        "tests/test_hosts.py",
        "refused_by_a_standby",
    ),
    Mutant(
        "a transaction made read-only is taken for a failover",
        "engine_errors.py",
        "        return driver is not None and backend.refuses_writes(driver)\n",
        "        return True\n",
        "tests/test_hosts.py",
        "made_read_only",
    ),
    Mutant(
        "a frozen host uses up the time limit",
        "hosts.py",
        "timeout=HEAD_START if places else None",
        "timeout=None",
        "tests/test_hosts.py",
        "frozen_host",
    ),
    Mutant(
        "a health check has no time limit",
        "health.py",
        "asyncio.wait(checks.values(), timeout=timeout)",
        "asyncio.wait(checks.values(), timeout=60)",
        "tests/test_health.py",
        "that_hangs_is_left_behind",
    ),
    Mutant(
        "Litestar's errors take the first database's Retry-After",
        "litestar/setup.py",
        "        longest = max(database",
        "        longest = min(database",
        "tests/litestar/test_errors.py",
        "longest_wait",
    ),
    Mutant(
        "clients come back before they were asked to",
        "sqlstate.py",
        "math.ceil(seconds)",
        "round(seconds)",
        "tests/endpoints/test_health.py",
        "whole_second",
    ),
    Mutant(
        "a 503 of Litestar has no Retry-After",
        "litestar/errors.py",
        "    headers = {} if retry is None else ",
        "    headers = {} if True else ",
        *contract("errors", "55P03"),
    ),
    Mutant(
        "a 503 of Starlette has no Retry-After",
        "starlette/errors.py",
        "        if answer.retry_after is not None:\n",
        "        if False:\n",
        *contract("errors", "55P03", STARLETTE),
    ),
    Mutant(
        "in Litestar nobody answers once a response was begun",
        "litestar/middleware.py",
        "    ScopeState.from_scope(scope).response_started = False\n",
        "    ScopeState.from_scope(scope)\n",
        *contract("commit", "deferred_constraint"),
    ),
    Mutant(
        "transactions of SQLite begin as readers",
        "sqlite.py",
        '"BEGIN IMMEDIATE"',
        '"BEGIN"',
        "tests/test_sqlite.py",
        "",
    ),
    Mutant(
        "SQLite: a replaced file goes unnoticed",
        "pool.py",
        "            and self._backend.lost_file(pooled.driver) is None\n",
        "",
        "tests/test_sqlite_file.py",
        "",
    ),
    Mutant(
        "SQLite: who found the file replaced leaves the other connections",
        "pool.py",
        "            if self._replace_all():\n                self.activity.file_lost(path)\n",
        "            self.activity.file_lost(path)\n",
        "tests/test_sqlite_file.py",
        "",
    ),
    Mutant(
        "SQLite: a statement has no time limit",
        "sqlite_connection.py",
        "        self.set_progress_handler(self.deadline.passed, _STEPS)\n",
        "",
        "tests/test_sqlite_connection.py",
        "time_limit",
    ),
    Mutant(
        "SQLite: all rows of a statement have its time limit again",
        "sqlite_connection.py",
        "            self._left -= time.monotonic() - started\n",
        "            pass\n",
        "tests/test_sqlite_connection.py",
        "share_its_time_limit",
    ),
    Mutant(
        "SQLite: an interrupted rollback is not repeated",
        "sqlite_connection.py",
        "                cursor.close()\n            super().rollback()\n",
        "                pass\n",
        "tests/test_sqlite.py",
        "still_alive",
    ),
    # -- no secret outside ------------------------------------------------------------------------
    Mutant(
        "errors keep their values",
        "engine_errors.py",
        "    if isinstance(error, Exception):\n        scrub(error)\n",
        "    if False:\n        scrub(error)\n",
        *contract("errors", "not_shown", STARLETTE),
    ),
    Mutant(
        "parameters are shown",
        "engine.py",
        '    options.setdefault("hide_parameters", True)\n',
        '    options.setdefault("hide_parameters", False)\n',
        "tests/test_engine.py",
        "hides_its_parameters",
    ),
    Mutant(
        "an object that is there twice is told by its primary key",
        "session.py",
        "            super().add(instance, **private)\n        except SQLAlchemyError as error:\n            scrub(error)\n",
        "            super().add(instance, **private)\n        except SQLAlchemyError as error:\n",
        "tests/test_error_log.py",
    ),
    # -- the rest ---------------------------------------------------------------------------------
    Mutant(
        "a read session refuses nothing",
        "engine.py",
        "    if not context.execution_options.get(READ_ONLY):\n        return\n    parts",
        "    if context is not None:\n        return\n    parts",
        "tests/test_session.py",
        "refuses_to_write",
    ),
    Mutant(
        "a read session keeps its connection",
        "read_session.py",
        "            self._return_connection()\n",
        "",
        "tests/test_session.py",
        "holds_no_connection",
    ),
    Mutant(
        "all loops share one engine",
        "loops.py",
        "            engine = self._engines.get(loop)\n",
        "            engine = next(iter(self._engines.values()), None)\n",
        "tests/contract/test_loops.py",
        "starlette",
    ),
    Mutant(
        "a replica whose connection was lost stays in rotation",
        "replicas.py",
        "            self._set(source, usable=False)\n",
        "",
        "tests/test_replicas.py",
        "take_turns",
    ),
    Mutant(
        "a replica is read however far it is behind",
        "replicas.py",
        "seen.lag is not None and seen.lag <= self._limit",
        "True",
        "tests/test_replicas.py",
        "too_far_behind",
    ),
    Mutant(
        "replicas are not read by who starts while the primary is down",
        "replica_watch.py",
        "            unmeasured = in_recovery and not log\n",
        "            unmeasured = False\n",
        "tests/scale/test_replicas.py",
        "who_starts_while",
    ),
    Mutant(
        "a replica whose connection was lost is said to lag",
        "replicas.py",
        "            source.lost = True\n",
        "",
        "tests/test_replicas.py",
        "dead_until",
    ),
    Mutant(
        "the signature of a replica's token is not looked at",
        "read_your_writes.py",
        "if not hmac.compare_digest(self._sign(what).encode(), signature.encode()):",
        'if what.count(".") != 1:',
        "tests/test_replicas.py",
        "forged",
    ),
    Mutant(
        "a replica's server does not refuse to write",
        "replicas.py",
        '["default_transaction_read_only"] = "on"',
        '["default_transaction_read_only"] = "off"',
        "tests/test_replicas.py",
        "keeps_read_only",
    ),
    Mutant(
        "a forked child waits for the locks of its parent's threads",
        "forks.py",
        "    os.register_at_fork(after_in_child=_forget_parent)",
        "    pass",
        "tests/test_forks.py",
        "lock",
    ),
    Mutant(
        "a stop waits for one frozen host after the other",
        "disposal.py",
        "    await asyncio.gather(*(dispose(engine, loop) for loop, engine in engines))",
        "    for loop, engine in engines:\n        await dispose(engine, loop)",
        "tests/scale/test_replicas_lifecycle.py",
        "with_frozen_replicas",
    ),
    Mutant(
        "server settings of the application replace ours",
        "engine.py",
        '            **own["server_settings"],\n',
        "",
        "tests/test_engine.py",
        "wins_by_itself",
    ),
    Mutant(
        "what a request wrote by scalar() or by its connection counts as nothing",
        "session.py",
        '        if not getattr(statement, "is_select", False):\n            _remember_write(self)\n',
        "",
        "tests/test_read_your_writes.py",
        "by_scalar",
    ),
    Mutant(
        "who looks whether an unanswered COMMIT has stored something looks at a replica",
        "session.py",
        '        event.listen(made.sync_session_class, "after_soft_rollback", _remember_unknown)\n',
        "",
        "tests/test_read_your_writes.py",
        "looks_at_the_primary",
    ),
    Mutant(
        "a request's replica reads lack what it stored",
        "read_session.py",
        "if writer is not None and writer.stored and state.required_lsn != MAX_LSN:",
        "if False:",
        "tests/test_replicas.py",
        "from_the_primary_what_it_has_stored",
    ),
    Mutant(
        "a replica's token is forgotten when something follows the COMMIT",
        "session.py",
        'if state.wrote == "no":',
        "if True:",
        "tests/test_replicas.py",
        "stays_told",
    ),
]


def main(words: list[str]) -> int:
    """Try the mutants whose names contain all the words, and print what became of each."""
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in words)]
    verdicts = []
    with (
        tempfile.TemporaryDirectory(prefix="reviewpoint-mutants-") as folder,
        ThreadPoolExecutor(WORKERS) as workers,
    ):
        copies: Queue[Path] = Queue()
        for number in range(WORKERS):
            copies.put(shutil.copytree(ROOT, Path(folder) / str(number), ignore=NOT_COPIED))
        for mutant, (verdict, seconds) in zip(
            chosen, workers.map(partial(try_one, copies), chosen), strict=True
        ):
            verdicts.append(verdict)
            print(f"{verdict:<12} {seconds:5.1f} s  {mutant.name}", flush=True)  # noqa: T201
    noticed = verdicts.count("noticed")
    print(f"{noticed} of {len(chosen)} noticed")  # noqa: T201
    return 0 if noticed == len(chosen) else 1


def try_one(copies: Queue[Path], mutant: Mutant) -> tuple[str, float]:
    """Try a mutant in a copy that is free; the verdict, and how many seconds it took."""
    started = time.monotonic()
    copy = copies.get()
    try:
        return verdict_on(copy, mutant), time.monotonic() - started
    finally:
        copies.put(copy)


def verdict_on(copy: Path, mutant: Mutant) -> str:
    """Run the tests of one mutant, sound and then mutated; the copy is sound again afterwards."""
    file = copy / PACKAGE / mutant.file
    sound = file.read_text()
    if sound.count(mutant.old) != 1:
        return "STALE"
    if run(copy, mutant) != 0:
        return "RED BEFORE"
    try:
        file.write_text(sound.replace(mutant.old, mutant.new))
        code = run(copy, mutant)
    finally:
        file.write_text(sound)
    # 1: tests failed. Anything else: they passed, or could not even be collected.
    return {0: "SURVIVED", 1: "noticed"}.get(code, f"PYTEST {code}")


def run(copy: Path, mutant: Mutant) -> int:
    """Run the mutant's tests in the copy and return pytest's exit code."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
        *(mutant.tests, "-k", mutant.only or "test"),
    ]
    process = subprocess.run(
        command,
        cwd=copy,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT,
        check=False,
    )
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
