"""The blueprint for those who come from ox_profile, under a real server and with real cookies."""

import csv
import time


def test_a_user_controls_the_profiler(serve) -> None:
    """Who has logged in as one who may sees the status and the requests, and pauses; others do not."""
    port = ("--bind=127.0.0.1:{port}", "--threads=4")
    site = serve("gunicorn", *port, "shops:flask_app")

    assert 401 == site.get("/ox_profile/status").status
    site.get("/login/eve")
    assert 403 == site.get("/ox_profile/status").status
    site.get("/login/ada")
    assert 200 == site.get("/ox_profile/status").status
    assert 405 == site.get("/ox_profile/pause").status
    assert 403 == site.ask("POST", "/ox_profile/pause", Origin="http://evil.example").status
    assert "running" in site.get("/ox_profile/status").text
    for number in range(20):
        assert 200 == site.get(f"/items/{number}").status

    def requests() -> dict[str, list[str]]:
        answer = site.get("/ox_profile/show_req_times?as_csv=1")
        assert answer.headers["content-type"].startswith("text/csv")
        return {cells[0]: cells[1:] for cells in csv.reader(answer.text.splitlines())}

    deadline = time.monotonic() + 60
    while requests().get("/items/<int:number>", ["0"])[0] != "20":
        assert time.monotonic() < deadline, requests()
        time.sleep(0.1)
    assert float(requests()["/items/<int:number>"][1]) > 0.3
    assert "/items/&lt;int:number&gt;" in site.get("/ox_profile/show_req_times").text
    assert "paused" in site.ask("POST", "/ox_profile/pause").text
