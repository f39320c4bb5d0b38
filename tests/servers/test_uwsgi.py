"""uWSGI, whose master forks without the hooks that Python has for it."""

import pytest

UWSGI = (
    "uwsgi",
    "--http-socket=127.0.0.1:{port}",
    "--master",
    "--die-on-term",
    "--need-app",
    "--disable-logging",
    "--processes=2",
    "--module=app:wsgi",
)


@pytest.mark.parametrize(
    "options",
    [
        ("--lazy-apps", "--enable-threads"),
        ("--lazy-apps", "--threads=2"),
        ("--enable-threads",),
        ("--enable-threads", "--py-call-uwsgi-fork-hooks"),
    ],
    ids=" ".join,
)
def test_every_worker_is_sampled_and_none_is_harmed(serve, prove, options) -> None:
    """Whether the workers load the app or their master does, they are sampled and it is not."""
    prove(serve(*UWSGI, *options), workers=2)
