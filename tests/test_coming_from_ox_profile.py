"""What ox_profile's README shows works, after the imports have been changed, and nothing else.

Each snippet is that README's, but for its imports and what stands in them for a program of one's own.
"""

import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

import ox_otel
from ox_otel import Batch, CountingRecorder, Function, Usage, _interpreter, ox_profile

PROGRAM = """
import time

def burn():
    end = time.thread_time() + 0.7
    while time.thread_time() < end:
        sum(range(1000))
"""

SIMPLEST = """
from ox_otel.ox_profile import SimpleLauncher
profiler = SimpleLauncher.launch()      # Create and start a profiler.
burn()
print(profiler.show())                  # Print current results in preformated way.
profiler.cancel()                       # Turns off the profiler for good.
"""

MORE_SOPHISTICATED = """
from ox_otel import ox_profile as launchers
profiler = launchers.SimpleLauncher()    # Create an instance of launcher to be your profiler
profiler.start()                         # The profiler is a thread so we need to call start
profiler.unpause()                       # The profiler starts out paused so we unpause it
burn()
profiler.pause()                         # You can pause if done profiling or leave running
query, total_records = profiler.query()  # Query for what the profiler has found
info = ['%s: %s' % (i.name, i.hits) for i in query]
print('Items in query:\\n  - %s' % (('\\n  - '.join(info))))
profiler.cancel()                        # This turns off the profiler for good
"""

LAUNCHER = """
from ox_otel import ox_profile as launchers
launcher = launchers.SimpleLauncher()
launcher.start()
launcher.unpause()
burn()
query, total_records = launcher.sampler.my_db.query()
info = ['%s: %s' % (i.name, i.hits) for i in query]
print('Items:%s' % (('%c - ' % 10).join([''] + info)))
launcher.cancel()  # This turns off the profiler for good
"""

SAMPLER = """
from ox_otel import ox_profile as sampling, ox_profile as recording
sampler = sampling.Sampler(recording.CountingRecorder())
def burn():
    sampler.run()
    return 'done'

burn()
info, calls = sampler.my_db.query()
pretty = ('%c'%10).join(map(str, info))
print('%i calls:%c%s' % (calls, 10, pretty))
"""

FLASK = """
from flask import Flask
from flask_login import LoginManager, UserMixin, login_user

app = Flask('app')
app.config['SECRET_KEY'] = 'a key'

class User(UserMixin):
    def __init__(self, name):
        self.id = self.name = name

LoginManager(app).user_loader(User)
app.add_url_rule('/login/<name>', view_func=lambda name: str(login_user(User(name))))

from ox_otel.flask import OX_PROF_BP
app.register_blueprint(OX_PROF_BP)
app.config['OX_PROF_USERS'] = {'admin_user_1', 'admin_user_2'}

client = app.test_client()
assert client.get('/ox_profile/status').status_code == 401
client.get('/login/admin_user_1')
client.post('/ox_profile/unpause')
burn()
print(client.get('/ox_profile/status').text)
"""


@pytest.mark.parametrize("snippet", [SIMPLEST, MORE_SOPHISTICATED, LAUNCHER, SAMPLER, FLASK])
def test_every_snippet_works(snippet: str) -> None:
    """Each shows the function that burns, and ends without a word of complaint."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM + snippet],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "burn" in done.stdout


def test_a_launcher_begins_paused() -> None:
    """Started, it waits to be told; launched, it does not."""
    launcher = ox_profile.SimpleLauncher(interval=0.5)
    with launcher:
        assert ("paused", 0.5) == (launcher.status().state, launcher.wishes().interval)
    launched = ox_profile.SimpleLauncher.launch()
    assert not launched.is_paused()
    launched.cancel()


def test_a_wrong_interval_of_a_launcher() -> None:
    """It is refused like any setting."""
    with pytest.raises(ox_otel.ConfigError, match="OX_OTEL_INTERVAL"):
        ox_profile.SimpleLauncher(interval=0)


def test_a_sample_has_every_thread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling thread and all others are seen, once a run, with hits and no times."""
    # however busy the machine is: else a sample that takes long leaves threads out
    monkeypatch.setattr("ox_otel._threads.LOOKING", 10**11)
    begun, over = threading.Event(), threading.Event()

    def wait_here() -> None:
        begun.set()
        over.wait(60)

    waiting = threading.Thread(target=wait_here)
    waiting.start()
    begun.wait(60)
    recorder = CountingRecorder()
    sampler = ox_profile.Sampler(recorder)
    for _ in range(3):
        sampler.run()
    over.set()
    waiting.join()

    counted = recorder.snapshot()
    here = Function(__name__, "test_a_sample_has_every_thread_once")
    there = Function(__name__, "test_a_sample_has_every_thread_once.<locals>.wait_here")
    assert Usage(hits=3) == counted.functions[here] == counted.functions[there]
    assert 3 == counted.samples
    assert 0 == sum(usage.cpu_seconds + usage.wait_seconds for usage in counted.functions.values())
    assert {} == sampler._engine._threads  # a thread is where it is found, not where it was


def test_a_recorder_that_fails_tells_whoever_runs_the_sampler() -> None:
    """It is called on the thread that asked for the sample."""

    class Broken:
        def record(self, batch: Batch) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        ox_profile.Sampler(Broken()).run()


def test_a_sample_that_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that is not to be sampled, or not now, is an error that says so."""
    sampler = ox_profile.Sampler(CountingRecorder())

    def refuse() -> None:
        raise _interpreter.Unsafe("there are subinterpreters")

    monkeypatch.setattr("ox_otel._threads.frames_of_threads", refuse)
    with pytest.raises(RuntimeError, match="there are subinterpreters"):
        sampler.run()
    monkeypatch.undo()
    sampler.run()

    monkeypatch.setattr("ox_otel.ox_profile.unsupported", lambda _: "no GIL")
    with pytest.raises(RuntimeError, match="no GIL"):
        sampler.run()


def test_many_threads_may_run_a_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample is taken after the other, and all are recorded."""
    recorder = CountingRecorder()
    sampler = ox_profile.Sampler(recorder)
    take, inside, most = sampler._engine.sample, [], []

    def slowly(delay: float) -> bool:
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return take(delay)

    monkeypatch.setattr(sampler._engine, "sample", slowly)
    threads = [threading.Thread(target=sampler.run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [1] * 10 == most


def test_a_recorder_takes_what_ox_profile_measures() -> None:
    """A stack in its notation counts once for each function on it, however deep it recurses."""
    recorder = ox_profile.CountingRecorder()
    for stack in ("main(app);f(app);f(app);g(lib.x)", "main(app)", "<lambda>(None)", "odd", ""):
        recorder.record(SimpleNamespace(name=stack))
    recorder.record(Batch({Function("app", "main"): Usage(1, 1, 0.5, 0, 0.5, 0)}))

    assert {
        Function("app", "main"): Usage(3, 2, 0.5, 0, 0.5, 0),
        Function("app", "f"): Usage(1, 0),
        Function("lib.x", "g"): Usage(1, 1),
        Function("None", "<lambda>"): Usage(1, 1),
        Function("odd", "unknown"): Usage(1, 1),
        Function("unknown", "unknown"): Usage(1, 1),
    } == recorder.snapshot().functions
