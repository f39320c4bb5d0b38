"""A Flask blueprint for those who come from ox_profile: its addresses, and its users.

    from ox_otel.flask import OX_PROF_BP

    app.register_blueprint(OX_PROF_BP)
    app.config["OX_PROF_USERS"] = {"ada", "grace"}

Only users whom flask-login knows and whose name (or what else of them `OX_PROF_USERNAME_FIELD` says)
stands in `OX_PROF_USERS` see anything. As there, profiling begins paused, unless the application
has called `ox_otel.install` before, or `OX_OTEL_START_PAUSED` says otherwise.
"""

import csv
import io
import os
from collections.abc import Collection, Iterable
from html import escape
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, current_app, request, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from flask_login import current_user

from ox_otel import routes
from ox_otel._install import get, install
from ox_otel._mounting import answer
from ox_otel._profiler import Profiler
from ox_otel._settings import ConfigError
from ox_otel.http import Request, plain
from ox_otel.recorders import RouteUsage

OX_PROF_BP = Blueprint("ox_profile", __name__, url_prefix="/ox_profile")
"""The blueprint: `/ox_profile/status` and what it links to."""

MOST_RECORDS = 1000
"""Functions that a page shows at most."""

_FIELD = '<label>seconds <input name="interval" value="{}"></label>'


@OX_PROF_BP.record_once
def _begin(state: BlueprintSetupState) -> None:
    """Install the profiler, paused, where none is installed yet; have it know routes."""
    _users(state.app.config)
    install(start_paused=os.environ.get("OX_OTEL_START_PAUSED") or True)
    app: Any = state.app
    if not isinstance(app.wsgi_app, routes.Wsgi):
        app.wsgi_app = routes.Wsgi(app.wsgi_app)


@OX_PROF_BP.teardown_app_request
def _name_route(_: BaseException | None) -> None:
    """Say which route a request of the application has taken: it is forgotten a moment later."""
    if request.url_rule is not None:
        routes.name(request.url_rule.rule)


@OX_PROF_BP.before_request
def _let_in() -> ResponseReturnValue | None:
    """Refuse everybody who is not known to be allowed; errors are the application's to answer."""
    users = _users(current_app.config)
    manager = getattr(current_app, "login_manager", None)
    if manager is None:
        abort(403, "there is no flask-login here that would know who asks")
    if current_user.is_authenticated is not True:  # a method, say, would let in everybody
        unauthorized: ResponseReturnValue = manager.unauthorized()
        return unauthorized
    user = getattr(current_user, current_app.config.get("OX_PROF_USERNAME_FIELD", "name"), None)
    if not isinstance(user, str) or not user or user not in users:
        abort(403, "OX_PROF_USERS does not name this user")
    return None


def _users(config: dict[str, Any]) -> Collection[str]:
    """Return the users who are allowed.

    Raises:
        ConfigError: they are something else, like text, of which any part would be a user.
    """
    users = config.get("OX_PROF_USERS", ())
    if not isinstance(users, set | frozenset | list | tuple | dict):
        raise ConfigError(
            f"OX_PROF_USERS: {type(users).__name__} is not accepted; "
            "accepted: a set, list, tuple or dictionary of names"
        )
    return users


@OX_PROF_BP.after_request
def _protect(response: Response) -> Response:
    """Give every answer the headers that all of ours have."""
    for name, value in plain(200, "").headers.items():
        if name != "Content-Type":
            response.headers[name] = value
    return response


@OX_PROF_BP.get("/")
@OX_PROF_BP.get("/status")
def status() -> ResponseReturnValue:
    """Show the state of the profiler, what controls it, and the hottest functions.

    Of these as many as `max_records` says (50), and whose names match the glob `pattern`.
    """
    profiler = _profiler()
    most = min(request.args.get("max_records", 50, type=int), MOST_RECORDS)
    records, total = profiler.query(request.args.get("pattern", "*"), most)
    now = profiler.status()
    rows = [
        (
            record.name,
            record.hits,
            *(
                f"{seconds:.2f}"
                for seconds in (
                    record.usage.cpu_seconds,
                    record.usage.self_cpu_seconds,
                    record.usage.wait_seconds,
                    record.usage.self_wait_seconds,
                )
            ),
        )
        for record in records
    ]
    return _page(
        _paragraph(f"{now.state} {now.reason}"),
        _form("unpause" if profiler.is_paused() else "pause"),
        _form("set_interval", _FIELD.format(now.interval)),
        _paragraph(f"{now.samples} samples, {now.overhead_ratio:.2%} of a core"),
        _paragraph(f"{len(records)} of {total} functions; seconds, and those of its own"),
        _table(("function", "hits", "CPU", "its own", "wait", "its own"), rows),
    )


@OX_PROF_BP.route("/pause", methods=["GET", "POST"])
def pause() -> ResponseReturnValue:
    """Pause the profiler."""
    return _change("pause", "/pause")


@OX_PROF_BP.route("/unpause", methods=["GET", "POST"])
def unpause() -> ResponseReturnValue:
    """Have the profiler sample."""
    return _change("unpause", "/unpause")


@OX_PROF_BP.route("/set_interval", methods=["GET", "POST"])
def set_interval() -> ResponseReturnValue:
    """Have an interval of so many seconds, as the query or the form has it."""
    seconds = request.values.get("interval", "")
    return _change("set_interval", "/interval", {"seconds": seconds}, _FIELD.format(""))


@OX_PROF_BP.get("/show_req_times")
def show_req_times() -> ResponseReturnValue:
    """Show requests and times by route, the slowest first; as CSV where `as_csv` is 1.

    Requests are counted while the profiler samples.
    """
    found = sorted(_profiler().snapshot().routes.items(), key=_mean_seconds, reverse=True)
    if request.args.get("as_csv") == "1":
        text = io.StringIO()
        lines = csv.writer(text)
        lines.writerow(("route", "requests", "cpu_seconds", "wait_seconds"))
        lines.writerows((route, *usage) for route, usage in found)
        headers = {"Content-Disposition": "attachment; filename=requests.csv"}
        return Response(text.getvalue(), headers=headers, mimetype="text/csv")
    rows = [
        (
            one[0],
            one[1].requests,
            f"{_mean_seconds(one):.3f}",
            f"{one[1].cpu_seconds:.3f}",
            f"{one[1].wait_seconds:.3f}",
        )
        for one in found
    ]
    address = escape(url_for(".show_req_times", as_csv=1))
    return _page(
        f'<p><a href="{address}">as CSV</a></p>',
        _table(("route", "requests", "mean seconds", "CPU seconds", "wait seconds"), rows),
    )


def _mean_seconds(entry: tuple[str, RouteUsage]) -> float:
    _, usage = entry
    return (usage.cpu_seconds + usage.wait_seconds) / max(usage.requests, 1)


def _profiler() -> Profiler:
    profiler = get()
    if profiler is None:
        abort(503, "ox_otel is not installed in this process")
    return profiler


def _change(
    verb: str, path: str, parameters: dict[str, str] | None = None, field: str = ""
) -> ResponseReturnValue:
    """Change what POST asks for, and show the status; show to GET how to ask."""
    if request.method != "POST":
        reason = _paragraph("This changes something: it takes a POST, which no link can send.")
        return _page(reason, _form(verb, field)), 405, {"Allow": "POST"}
    headers = {name.lower(): value for name, value in request.headers}
    query = urlencode(parameters or {})
    done = answer(Request("POST", path, query, headers, trusted=True), "", metrics=False)
    if done.status != 200:
        return Response(done.body, done.status, mimetype="text/plain")
    return status()


def _page(*parts: str) -> str:
    links = "".join(
        f'<a href="{escape(url_for(f".{view}"))}">{view}</a> '
        for view in ("status", "show_req_times")
    )
    start = '<!doctype html><html lang="en"><meta charset="utf-8"><title>ox_profile</title>'
    return f"{start}<h1>ox_profile</h1><p>{links}</p>{''.join(parts)}</html>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _form(verb: str, field: str = "") -> str:
    """Return a form with one button; with Flask-WTF's token, where the application has it."""
    token = current_app.jinja_env.globals.get("csrf_token")
    if callable(token):
        field += f'<input type="hidden" name="csrf_token" value="{escape(token())}">'
    action = escape(url_for(f".{verb}"))
    return f'<form method="post" action="{action}">{field}<button>{verb}</button></form>'


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [f"<th>{escape(name)}</th>" for name in head]
    return "".join(
        [
            f"<table><tr>{''.join(lines)}</tr>",
            *(
                "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>"
                for row in rows
            ),
            "</table>",
        ]
    )
