"""The profiler: what all others call, to control it and for its figures."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from ox_otel._capture import CaptureError, wait_for, window
from ox_otel._clock import since_epoch
from ox_otel._fork import follow_forks, notice_fork
from ox_otel._interpreter import unsupported
from ox_otel._life import Life
from ox_otel._native import get_ident, own_idents
from ox_otel._pipeline import Pipeline, Places, series
from ox_otel._recent import KEPT_SECONDS
from ox_otel._sampling import Sampling
from ox_otel._settings import Settings, accepted
from ox_otel._status import Status, Wish, Wishes
from ox_otel.profiles import Profile, stacks_of_tree
from ox_otel.recorders import Answer, Batch, Recorder


class Profiler:
    """Samples the process it lives in, and lets itself be controlled from any thread.

    Only `set_interval` raises, if its value is wrong, and `capture` and `since_start`, if there is
    no such profile; what else goes wrong stands in `status`. All methods but `capture` may be
    called from signal handlers and destructors: `pause`, `unpause`, `set_interval` and `status`
    take no lock, `start` and `cancel` wait at most a second or two, those that answer with figures
    at most half a second.

    Attributes:
        url: the address of our own endpoint, empty where there is none.
        share: has all processes of the service do as this one, in one respect; where there is no
            service, nothing.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.url = ""
        self.share: Callable[[Wish], None] = lambda _: None
        self._settings = settings or Settings()
        self._recorders: list[tuple[Recorder, bool]] = []  # and whether it is quick
        obstacle = unsupported(self._settings.engine)
        self._begun = Life(self._settings, obstacle, self.cancel)
        follow_forks(self._begin_in_child, self._resume, self.hand_over)

    @property
    def _life(self) -> Life:
        """That of this very process: a child has its own, with the wishes of its parent."""
        notice_fork()
        return self._begun

    @property
    def _sampling(self) -> Sampling:
        return self._life.sampling

    @property
    def _pipeline(self) -> Pipeline:
        return self._sampling.pipeline

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    @property
    def handed_over(self) -> bool:
        """Whether the workers that this process forks are profiled in its place."""
        return self._life.handed_over

    @property
    def places(self) -> Places:
        """How many functions, nodes of the tree, and routes have series at most."""
        return self._pipeline.places

    def add_recorder(self, recorder: Recorder, *, quick: bool = False) -> None:
        """Hand everything from now on to *recorder* too, in forked children what happens there.

        It is called on a thread of its own, unless it is *quick*: then it neither waits nor takes
        long, and is called on the thread that samples.
        """
        pipeline = self._pipeline  # first: a child that begins anew adds all that are known by then
        self._recorders = [*self._recorders, (recorder, quick)]
        pipeline.add(recorder, quick=quick)

    def start(self) -> None:
        """Start the thread, sampling or paused as the settings have it; once it runs, do nothing."""
        self._life.start()

    def pause(self) -> None:
        """Stop sampling until `unpause`; paused, the thread does not wake up at all."""
        sampling = self._sampling
        sampling.paused = True
        sampling.alarm.ring()

    def unpause(self) -> None:
        """Sample again."""
        sampling = self._sampling
        sampling.paused = False
        sampling.alarm.ring()

    def is_paused(self) -> bool:
        """Return whether sampling waits for `unpause`."""
        sampling = self._sampling
        return sampling.paused and not sampling.stopping

    def set_interval(self, seconds: float | str) -> None:
        """Have the interval be so many *seconds* from now on, as `OX_OTEL_INTERVAL` means it.

        Raises:
            ConfigError: not a number from 0.001 to 60.
        """
        sampling = self._sampling
        sampling.schedule.interval = accepted("interval", seconds)
        sampling.alarm.ring()

    def wishes(self) -> Wishes:
        """Return what is wished at present, whatever the state."""
        sampling = self._sampling
        return Wishes(sampling.paused, sampling.schedule.interval)

    def cancel(self) -> None:
        """End our threads, within a second, whatever they do; `start` would start new ones.

        Only that of a recorder which hangs cannot be ended. It is left to the end of the process,
        which does not wait for it.
        """
        self._life.end()

    def hand_over(self) -> None:
        """Leave it to the workers of a server, which this process, its master, is about to fork."""
        self._life.hand_over()

    def status(self) -> Status:
        """Return the profiler as it is now."""
        life = self._life
        schedule, pipeline = life.sampling.schedule, life.sampling.pipeline
        counted = pipeline.counts.snapshot()
        last = pipeline.last_sample
        state, reason = life.state()
        return Status(
            state=state,
            reason=reason,
            engine=pipeline.engine,
            interval=schedule.stretched,
            samples=pipeline.samples,
            missed=counted.missed,
            errors=sum(counted.errors.values()),
            overhead_ratio=pipeline.overhead_ratio if state == "running" else 0.0,
            series=series(counted),
            series_limit=self._settings.max_series,
            last_sample_age=None if last is None else time.monotonic() - last,
            pid=os.getpid(),
        )

    def snapshot(self) -> Batch:
        """Return what happened since the start, up to now."""
        self._life.flush()
        return self._pipeline.counts.snapshot()

    def query(self, pattern: str = "*", limit: int = 10) -> Answer:
        """Return the *limit* functions hottest at the top of the stack; see `CountingRecorder`."""
        self._life.flush()
        return self._pipeline.counts.query(pattern, limit)

    def show(self, limit: int = 10) -> str:
        """Return the *limit* hottest functions as a table for people."""
        self._life.flush()
        return self._pipeline.counts.show(limit)

    def capture(self, seconds: float | str, *, gone: Callable[[], bool] = lambda: False) -> Profile:
        """Return what happens in the *seconds* from now on, and wait for it.

        A pause, `cancel`, the end of the interpreter, and *gone*, which is asked now and then
        whether nobody waits any more, end it earlier: then it is what has happened by then, and
        says how long that was. It changes no figure of anybody else.

        Raises:
            ConfigError: not a number from 0.1 to 300.
            TooManyCapturesError: four are being made already.
            CaptureError: nothing is sampled at present; the message says why.
        """
        length, life = window(seconds), self._life
        sampling = life.sampling
        with sampling.pipeline.captures.another() as capture:
            state, reason = life.state()  # what comes to rest from now on ends the capture
            if state != "running" or life.is_caller():
                raise CaptureError(f"nothing can be captured: {reason or state}")
            wait_for(capture, length, sampling.alarm.ring, gone)
            return capture.profile(sampling.schedule.stretched)

    def since_start(self, snapshot: Batch | None = None) -> Profile:
        """Return what happened since the start as the calling-context tree has it: at one time only.

        The tree is that of *snapshot*, without one that of now.

        Raises:
            CaptureError: there is no tree.
        """
        time_of_tree = self._settings.tree
        if time_of_tree == "off":
            raise CaptureError("there is no tree, as OX_OTEL_TREE has it; seconds=N captures")
        stacks = stacks_of_tree(snapshot or self.snapshot(), time_of_tree)
        seconds = time.monotonic() - self._pipeline.since
        interval = self._sampling.schedule.stretched
        return Profile(stacks, since_epoch() - seconds, seconds, interval, (time_of_tree,))

    def recent(self, seconds: float | str) -> Profile:
        """Return what has happened in the last *seconds*, or as much of it as is kept.

        Nothing is kept before the first call, then a minute, until half a minute after the last.

        Raises:
            ConfigError: not a number from 1 to 60.
        """
        length = window(seconds, 1, KEPT_SECONDS)
        return self._pipeline.recent.profile(length, self._sampling.schedule.stretched)

    def charge(self, cpu_seconds: float) -> None:
        """Publish CPU seconds that a thread of ours has spent, without stretching the interval."""
        self._pipeline.charge(published=cpu_seconds)

    @contextmanager
    def charging(self) -> Iterator[None]:
        """Count against the budget what the calling thread does within."""
        notice_fork()
        began = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - began
            # a thread of ours publishes all that it spent when it ends
            ours = get_ident() in own_idents
            self._pipeline.charge(published=0.0 if ours else spent, in_budget=spent)

    def count_error(self, kind: str) -> None:
        """Count an error of one of the kinds that the metrics know."""
        self._pipeline.count_error(kind)

    def _begin_in_child(self) -> None:
        self.url = ""
        self._begun = self._begun.in_child()
        for recorder, quick in self._recorders:
            self._begun.sampling.pipeline.add(recorder, quick=quick)

    def _resume(self) -> None:
        self._begun.resume()
