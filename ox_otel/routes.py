"""Cost by route in web applications: middlewares that know which route a request has taken.

A route is named by its template, as the framework has it (`/users/{id}`), never by the path of a
request: what no route has matched counts under `UNMATCHED`.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import Any

from ox_otel._accounts import Account, at_hand, meter, turn
from ox_otel._books import books
from ox_otel._driving import driven
from ox_otel._server_spans import begin_instead
from ox_otel._tag import end

Environ = dict[str, Any]
Scope = MutableMapping[str, Any]


def name(route: str) -> None:
    """Say which route the request at hand has taken, where its framework does not tell us.

    *route* is a template, of which there are few.
    """
    account = at_hand.get()
    if account is not None:
        account.template = lambda: route


class Wsgi:
    """The WSGI application *app*, with an account of every request until its body is closed.

    Routes of Flask are known: `app.wsgi_app = Wsgi(app.wsgi_app)`.
    """

    def __init__(self, app: Callable[[Environ, Any], Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        account = begin_instead(lambda: _flask_template(environ))
        if account is None:
            return self._app(environ, start_response)

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            route = _flask_template(environ)
            if route is not None:  # Flask forgets it before it returns
                account.template = lambda: route
            return start_response(status, headers, *((exc_info,) if exc_info else ()))

        files = _Files(environ)
        body: Iterable[bytes] = ()
        try:
            body = self._app(environ, start)
            if not isinstance(body, (list, tuple)) and body not in files:
                body = _Body(body, account)
        finally:
            if isinstance(body, _Body):
                _rest(account)
            else:
                end(account)
        return body


class _Files:
    """What a server's `wsgi.file_wrapper` has made of files, to be sent by its own means.

    A server knows it by its type, or, as uWSGI, by the very object that a function of its returned.
    """

    def __init__(self, environ: Environ) -> None:
        self._wrapper: Any = environ.get("wsgi.file_wrapper")
        self._made: list[Any] = []
        if self._wrapper is not None and not isinstance(self._wrapper, type):
            environ["wsgi.file_wrapper"] = self._make

    def __contains__(self, body: object) -> bool:
        if isinstance(self._wrapper, type):
            return isinstance(body, self._wrapper)
        return any(body is made for made in self._made)

    def _make(self, *file: Any) -> Any:
        made = self._wrapper(*file)
        self._made.append(made)
        return made


class _Body:
    """The parts of a body, made for an account as the server asks for them."""

    def __init__(self, body: Iterable[bytes], account: Account) -> None:
        self._account = account
        self._body = body
        self._parts = iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _resumed(self._account):
            return next(self._parts)

    def close(self) -> None:
        """Close the body, and the account."""
        try:
            with _resumed(self._account):
                getattr(self._body, "close", _nothing)()
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()  # a server that does not close what it has been given

    def _end(self) -> None:
        self._account.books.close_account(self._account)


def _nothing() -> None:
    pass


@contextmanager
def _resumed(account: Account) -> Iterator[None]:
    """Work for *account* within."""
    before = at_hand.get()
    at_hand.set(account)
    turn(meter())
    try:
        yield
    finally:
        at_hand.set(before)
        turn(meter())


def _rest(account: Account) -> None:
    """Work for it no more, until it is resumed."""
    at_hand.set(account.outer)
    turn(meter())


class Asgi:
    """The ASGI application *app*, with an account of every HTTP request.

    Routes of Starlette and FastAPI are known: `app.add_middleware(Asgi)`, as the last one. What
    tasks do that a request starts counts while it lasts, and so does what plain functions do as
    endpoints, in threads; in a mounted application routes are named as it names them itself.
    """

    def __init__(self, app: Callable[[Scope, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer a request, or whatever the server has."""
        if scope["type"] != "http" or books() is None:
            await self._app(scope, receive, send)
        else:
            await driven(self._answer(scope, receive, send))

    async def _answer(self, scope: Scope, receive: Any, send: Any) -> None:
        account = begin_instead(lambda: _starlette_template(scope))
        try:
            await self._app(scope, receive, send)
        finally:
            if account is not None:
                end(account)


def django(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return Django's middleware for an account of every request; `MIDDLEWARE` names it first."""
    if not iscoroutinefunction(get_response):

        def answer(request: Any) -> Any:
            account = begin_instead(lambda: _django_template(request))
            try:
                return get_response(request)
            finally:
                if account is not None:
                    end(account)

        return answer

    async def answer_within(request: Any) -> Any:
        account = begin_instead(lambda: _django_template(request))
        try:
            return await get_response(request)
        finally:
            if account is not None:
                end(account)

    async def answer_soon(request: Any) -> Any:
        return await driven(answer_within(request))

    return answer_soon


django.sync_capable = django.async_capable = True  # type: ignore[attr-defined]


def _flask_template(environ: Environ) -> str | None:
    return _text(_of(_of(environ.get("werkzeug.request"), "url_rule"), "rule"))


def _django_template(request: Any) -> str | None:
    return _text(_of(_of(request, "resolver_match"), "route"))


def _starlette_template(scope: Scope) -> str | None:
    included = scope.get("fastapi")  # which has the prefix of a router that was included
    if type(included) is dict and "effective_route_context" in included:
        return _text(_of(included["effective_route_context"], "path"))
    if "route" in scope:
        return _text(_of(scope["route"], "path"))
    if "endpoint" not in scope:
        return None
    return _path_to(scope["endpoint"], _of(scope.get("router"), "routes"))


def _path_to(endpoint: Any, routes: Any) -> str | None:
    """Return the path of a route of Starlette before 1.0, which tells the endpoint only."""
    for route in routes or ():
        path = _text(_of(route, "path")) or ""
        if endpoint is _of(route, "endpoint") or endpoint is _of(route, "app"):
            return path
        below = _path_to(endpoint, _of(_of(route, "app"), "routes"))
        if below is not None:
            return path + below
    return None


def _of(thing: Any, name: str) -> Any:
    """Return an attribute that *thing* itself has, None if there is none; runs no code of its."""
    try:
        return object.__getattribute__(thing, "__dict__").get(name)
    except AttributeError:
        return None


def _text(template: Any) -> str | None:
    return template if type(template) is str else None
