"""The examples do what they say."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ox_otel.recorders import Batch, Function, Usage

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextmanager
def running(*command: str, env: dict[str, str] | None = None) -> Iterator[None]:
    """Run *command* in the folder of the examples, and end it in the end."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=EXAMPLES, env={**os.environ, **(env or {})}
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def get(url: str) -> str:
    """Return what *url* answers, as soon as it does."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return str(answer.read().decode())
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.1)


def cpu_seconds(metrics: str) -> dict[str, float]:
    """Return the self CPU seconds of each function in a page of metrics."""
    return {
        sample.labels["function"]: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "ox_profile_self_seconds_total" and sample.labels["state"] == "cpu"
    }


def test_the_script_prints_its_profile() -> None:
    """What uses the CPU and what waits are both in the table."""
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert re.search(r"__main__\.crunch", done.stdout)
    assert re.search(r"__main__\.fetch", done.stdout)


def test_the_flask_app_shows_its_profile_with_its_metrics(free_port: Callable[[], int]) -> None:
    """An app that has /metrics already needs nothing else."""
    port = free_port()
    with running("-m", "flask", "--app", "flask_app", "run", "--port", str(port)):
        deadline, metrics = time.monotonic() + 60, ""
        while not cpu_seconds(metrics).keys() & {"index", "index.<locals>.<genexpr>"}:
            assert time.monotonic() < deadline
            for _ in range(40):
                get(f"http://127.0.0.1:{port}/")
            time.sleep(1.2)
            metrics = get(f"http://127.0.0.1:{port}/metrics")

    assert "python_info" in metrics


def test_every_gunicorn_worker_has_an_endpoint(
    free_port: Callable[[], int], free_ports: Callable[[int], int], tmp_path: Path
) -> None:
    """Two workers answer on two ports, each with a profile of its own."""
    base, first = free_port(), free_ports(2)
    text = (EXAMPLES / "gunicorn.conf.py").read_text()
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(
        text.replace("9464-9495", f"{first}-{first + 1}", 1).replace("8000", str(base), 1)
    )
    command = ("-m", "gunicorn", "--config", str(config), "flask_app:app")
    with running(*command):
        deadline, pages = time.monotonic() + 60, [""]
        while not any("index" in name for page in pages for name in cpu_seconds(page)):
            assert time.monotonic() < deadline
            for _ in range(60):
                get(f"http://127.0.0.1:{base}/")
            time.sleep(1.2)
            pages = [get(f"http://127.0.0.1:{first + number}/metrics") for number in (0, 1)]
        pids = {
            re.search(r'"pid": (\d+)', get(f"http://127.0.0.1:{first + n}/status"))[1]
            for n in (0, 1)
        }

    assert 2 == len(pids)
    assert all("ox_profile_samples_total" in page for page in pages)


def test_the_recorder_of_ones_own_writes_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each function that used the CPU, none for those that did not."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("own_recorder", EXAMPLES / "own_recorder.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    busy, idle = Function("m", "busy"), Function("m", "idle")
    module.create().record(
        Batch({busy: Usage(1, 1, 0.5, 0, 0.5, 0), idle: Usage(1, 1, 0, 1, 0, 1)})
    )

    lines = (tmp_path / "profile.csv").read_text().splitlines()
    assert ["m.busy,0.5"] == [line.partition(",")[2] for line in lines]


def test_the_command_line_of_the_own_recorder_works(tmp_path: Path) -> None:
    """Named in OX_OTEL_RECORDERS, it records an unchanged program."""
    env = {
        **os.environ,
        "OX_OTEL_RECORDERS": "prometheus,own_recorder:create",
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")]),
    }
    program = tmp_path / "app.py"
    program.write_text("import time\nend = time.time() + 1.5\nwhile time.time() < end: pass\n")
    subprocess.run(
        [sys.executable, "-m", "ox_otel", "app.py"], cwd=tmp_path, env=env, timeout=60, check=True
    )

    assert "__main__.<module>" in (tmp_path / "profile.csv").read_text()
