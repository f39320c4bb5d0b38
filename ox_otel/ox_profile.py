"""The names of ox_profile, for programs that come from there: only their imports change.

    from ox_otel import ox_profile as launchers  # was: from ox_profile.core import launchers

What is new is better done by `ox_otel.install`; the README says what is called what.
"""

from collections.abc import Mapping
from typing import Protocol, Self

from ox_otel import recorders
from ox_otel._fork import follow_forks
from ox_otel._interpreter import unsupported
from ox_otel._names import Names, function_called
from ox_otel._native import Worker, allocate_lock
from ox_otel._profiler import Profiler
from ox_otel._settings import Settings
from ox_otel._threads import Threads
from ox_otel.recorders import NOTHING, Batch, Function, Recorder, Stack, Usage

SAMPLE_SECONDS = 10.0
"""How long `Sampler.run` waits for its sample."""


class SimpleLauncher(Profiler):
    """A profiler for a program that installs none; it starts paused.

    Raises:
        ConfigError: *interval* is not a number of seconds from 0.001 to 60.
    """

    def __init__(self, interval: float = Settings.interval) -> None:
        super().__init__(Settings(interval=interval, start_paused=True))

    @classmethod
    def launch(cls) -> Self:
        """Return a new profiler that samples already."""
        launcher = cls()
        launcher.start()
        launcher.unpause()
        return launcher

    @property
    def sampler(self) -> Self:
        """Who knows the recorder, as `sampler.my_db`: the launcher itself."""
        return self

    @property
    def my_db(self) -> Self:
        """Who answers a `query`: the launcher itself."""
        return self


class Sampler:
    """Takes a sample of all threads whenever it is told to, and tells *recorder* of it at once.

    A sample by itself knows hits, and no times.

    Attributes:
        my_db: the recorder.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.my_db = recorder
        self._begin()
        follow_forks(self._begin)

    def _begin(self) -> None:
        self._engine = Threads(Names(), Settings.max_depth, lambda _: None)
        self._turn = allocate_lock()  # held while a sample is taken
        self._found: dict[Stack, Usage] = {}
        self._error: Exception | None = None

    def run(self) -> None:
        """Take one sample, of the calling thread too.

        Raises:
            RuntimeError: there is none to be had, at present or in this interpreter.
        """
        obstacle = unsupported("threads")
        if obstacle:
            raise RuntimeError(obstacle)
        with self._turn:
            # by a thread of ours, which does not see itself
            if not Worker(self._sample, "ox_otel_sample").join(SAMPLE_SECONDS):
                raise RuntimeError(f"there was no sample within {SAMPLE_SECONDS:.0f} s")
            found, error = self._found, self._error
        if error is not None:
            raise RuntimeError(str(error)) from error
        self.my_db.record(_batch(found, samples=1))

    def _sample(self) -> None:
        self._error = None
        try:
            self._engine.sample(delay=0.0)
            self._found = self._engine.drain()
        except Exception as error:
            self._error = error
        finally:
            self._engine.reset()


class Measurement(Protocol):
    """What the Sampler of the package ox-profile tells of one stack."""

    name: str
    """Its functions, outermost first, as `f(module);g(module)`."""


class CountingRecorder(recorders.CountingRecorder):
    """Also counts what the Sampler of the package ox-profile records: hits, and no times."""

    def record(self, batch: Batch | Measurement) -> None:
        """Add a batch, or one stack of ox-profile's."""
        super().record(batch if isinstance(batch, Batch) else _as_batch(batch))


def _as_batch(measurement: Measurement) -> Batch:
    stack = tuple(map(_function, measurement.name.split(";")))
    return _batch({stack: Usage(hits=1)}, samples=0)  # of how many stacks it is one, nobody says


def _function(text: str) -> Function:
    name, _, module = text.rpartition("(")
    return function_called(name, module.removesuffix(")"))


def _batch(stacks: Mapping[Stack, Usage], samples: int) -> Batch:
    """Return the hits of these stacks, with every function by its name, however rare it is."""
    functions: dict[Function, Usage] = {}
    for stack, usage in stacks.items():
        for function in {*stack}:
            self_hits = usage.hits if function == stack[-1] else 0
            gain = Usage(usage.hits, self_hits)
            functions[function] = functions.get(function, NOTHING).plus(gain)
    return Batch(functions, stacks, samples=samples)
