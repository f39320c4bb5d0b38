"""The package ox-profile itself, with a recorder of ours."""

import time

import pytest
from ox_profile.core import launchers, sampling

from ox_otel import Function
from ox_otel.ox_profile import CountingRecorder


def burn() -> None:
    """Use some CPU."""
    end = time.thread_time() + 0.5
    while time.thread_time() < end:
        sum(range(1000))


def test_its_sampler_takes_a_recorder_of_ours() -> None:
    """What it has sampled, it asks our recorder for, and shows."""
    sampler = sampling.Sampler(CountingRecorder())

    def here() -> None:
        sampler.run()

    here()
    [record], total = sampler.query("*.here")
    assert (1, 1) == (record.hits, total)
    assert record.name in sampler.show(limit=1000)


@pytest.mark.filterwarnings("ignore:isDaemon:DeprecationWarning")  # it asks itself
def test_its_launcher_fills_a_recorder_of_ours() -> None:
    """As its thread samples, ours knows what burns."""
    recorder = CountingRecorder()
    launcher = launchers.SimpleLauncher(sampler=sampling.Sampler(recorder))
    launcher.start()
    launcher.unpause()
    burn()
    launcher.cancel()
    launcher.join(10)

    assert recorder.snapshot().functions[Function(__name__, "burn")].hits > 5
    assert f"{__name__}.burn" in launcher.show(limit=1000)
