"""The health routes: for people and load balancers, for Kubernetes, and in the IETF's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reviewpoint_db.endpoints.reply import Reply, json_reply
from reviewpoint_db.sqlstate import retry_after_header

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.health import CheckResult, HealthReport

__all__ = ("HEALTH_JSON", "health", "live", "ready")

#: https://datatracker.ietf.org/doc/html/draft-inadarei-api-health-check-06 (expired; a convention)
HEALTH_JSON: Final = "application/health+json"
_IETF_STATUS: Final = {"healthy": "pass", "degraded": "warn", "unhealthy": "fail"}
_VARY: Final = {"vary": "accept, authorization"}


async def health(database: Database, *, accept: str = "", details: bool = False) -> Reply:
    """Answer `GET /health`: 200 while the database can be reached, else 503.

    Args:
        database: The database to check.
        accept: The request's `Accept` header; `application/health+json` gets the IETF's shape.
        details: Also tell latency, pool and checks; only for those who may see debug.
    """
    report = await database.health()
    status = 503 if report.status == "unhealthy" else 200
    headers = dict(_VARY)
    if status == 503:
        headers["retry-after"] = retry_after_header(database.config.retry_after)
    if _wants_health_json(accept):
        shape = _ietf(database, report) if details else {"status": _IETF_STATUS[report.status]}
        return json_reply(status, shape, media_type=HEALTH_JSON, headers=headers)
    content: dict[str, Any] = {"status": report.status, "service": "database"}
    if details:
        content |= {
            "name": database.name,
            "cause": report.cause,
            "connected_in": report.connected_in,
            "latency": report.latency,
            "checked_at": report.checked_at,
            "pool": _pool(database),
            "checks": report.checks,
        }
    return json_reply(status, content, headers=headers)


def live() -> Reply:
    """Answer `GET /health/live`: the process serves requests. No I/O, so a database cannot kill it."""
    return json_reply(200, {"status": "alive"})


async def ready(database: Database) -> Reply:
    """Answer `GET /health/ready`: 503 until started, while draining, and when unreachable.

    A full pool is no reason to send requests elsewhere: everywhere else it is as full, and taking
    this process away fills the others.
    """
    if not database.started:
        reason = "starting"
    elif database.draining:
        reason = "draining"
    elif (await database.health()).cause == "unreachable":
        reason = "unreachable"
    else:
        return json_reply(200, {"status": "ready"})
    headers = {"retry-after": retry_after_header(database.config.retry_after)}
    return json_reply(503, {"status": "not ready", "reason": reason}, headers=headers)


def _wants_health_json(accept: str) -> bool:
    """Whether the IETF's type is asked for by name, and not less than plain JSON is."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        weights[media_type] = _weight(parameters)
    wanted = weights.get(HEALTH_JSON, 0.0)
    return wanted > 0 and wanted >= weights.get("application/json", 0.0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _pool(database: Database) -> dict[str, int | None]:
    info = database.debug_info()
    return {
        "size": info["pool_size"],
        "checked_out": info["pool_checked_out"],
        "checked_in": info["pool_checked_in"],
        "overflow": info["pool_overflow"],
    }


def _ietf(database: Database, report: HealthReport) -> dict[str, Any]:
    name, time = database.name, report.checked_at
    connection, pool, *others = report.checks
    gauges = _pool(database)
    content: dict[str, Any] = {
        "status": _IETF_STATUS[report.status],
        "serviceId": "database",
        "checks": {
            f"{name}:responseTime": [
                _component(connection, name, "datastore")
                | _observed(connection.latency)
                | {"time": time}
            ],
            f"{name}:connections": [
                _component(pool, name, "datastore")
                | {"observedValue": gauges["checked_out"], "observedUnit": "{connection}"}
                | {"idle": gauges["checked_in"], "time": time}
            ],
            **{
                other.name: [
                    _component(other, other.name, "component")
                    | _observed(other.latency)
                    | {"time": time}
                ]
                for other in others
            },
        },
    }
    if report.cause is not None:
        content["notes"] = [report.cause.replace("_", " ")]
    return content


def _component(check: CheckResult, component: str, kind: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        "componentId": component,
        "componentType": kind,
        "status": _IETF_STATUS[check.status],
    }
    if check.status != "healthy":
        # A stable code, never a driver's text, which monitors would keep for years.
        content["output"] = check.code or check.detail
    return content


def _observed(latency: float | None) -> dict[str, Any]:
    if latency is None:
        return {}
    return {"observedValue": round(latency * 1000, 3), "observedUnit": "ms"}
