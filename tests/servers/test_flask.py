"""Flask's development server, which starts itself anew when a file changes."""

import sys


def test_the_reloader_has_one_profiled_process_at_a_time(serve, load, prove, tmp_path) -> None:
    """Who serves is sampled, before a reload and after, and so is who watches: it loads the app."""
    watched = tmp_path / "watched"
    watched.touch()
    service = serve(
        *(sys.executable, "-m", "flask", "--app=flask_app:flask_app", "run", "--port={port}"),
        *("--reload", f"--extra-files={watched}"),
    )
    with load(service.url):
        service.wait_for(service.workers, "it is sampled")
        watched.write_text("changed")
        service.wait_for(lambda: 2 == len(service.workers()), "another process is sampled")

    # each request has a thread of its own, of which some are over before they are seen
    prove(service, workers=1, idle=1, told=0.6)
