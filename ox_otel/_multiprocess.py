"""The recorder for prometheus_client where many processes share `PROMETHEUS_MULTIPROC_DIR`.

No collector of one's own works there: the library's counters are incremented, whose files outlive
their process and are summed up by whoever is scraped.
"""

import os
from dataclasses import replace
from typing import Literal

from prometheus_client import Counter, Gauge

from ox_otel._fork import uncut
from ox_otel._interpreter import uncollected
from ox_otel._metrics import METRICS
from ox_otel._profiler import Profiler
from ox_otel._pruning import Pruning
from ox_otel.recorders import NOTHING, OTHER, Batch, Function, Usage

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of prometheus_client that names the folder where its processes keep their counts."""

ROOM = 1 << 24
"""Bytes that must be free there: to write into a mapped file on a full disk ends the process."""

_REST = Function(OTHER, OTHER)

_MODES: dict[str, Literal["livesum", "livemax"]] = {
    "series": "livesum",
    "series_limit": "livesum",
    "interval_seconds": "livemax",
    "running": "livesum",
    "info": "livemax",
}
"""How the gauges of living processes become one."""


class MultiprocessRecorder:
    """Adds what *profiler* finds to counters that prometheus_client keeps in files.

    Their series cannot end, so a retired one just stays what it is, and its heir is not told of.
    A function that comes when the process has had as many as it may counts under `OTHER`, where a
    stack with several such functions counts several times but for its self figures; such a node
    of the tree counts as the nearest above it.

    Raises:
        OSError: the files cannot be made.
    """

    def __init__(self, profiler: Profiler) -> None:
        self._profiler = profiler
        self._folder = os.path.abspath(os.environ[MULTIPROCESS])
        self._check_room()
        self._counters, self._gauges = {}, {}
        with uncut:
            for metric in METRICS:
                name, words = f"ox_profile_{metric.name}", (metric.text, metric.labels)
                # in no registry: what is shown is collected from the files
                if metric.kind == "counter":
                    self._counters[metric] = Counter(name, *words, registry=None)
                else:
                    mode = _MODES[metric.name]
                    self._gauges[metric] = Gauge(
                        name, *words, registry=None, multiprocess_mode=mode
                    )
        self._limit = profiler.places.functions
        self._pruning = Pruning(profiler.places.nodes)
        self._named = {_REST}  # in forked children too: their files begin with the same series

    def record(self, batch: Batch) -> None:
        """Add *batch* to the counters, all of it or, where the disk is nearly full, nothing."""
        self._check_room()
        functions: dict[Function, Usage] = {}
        for function, usage in batch.functions.items():
            if len(self._named) < self._limit:
                self._named.add(function)
            home = function if function in self._named else _REST
            functions[home] = functions.get(home, NOTHING).plus(usage)
        tree = self._pruning.prune(batch.tree)
        gains, status = replace(batch, functions=functions, tree=tree), self._profiler.status()
        # a destructor may want the lock that the library holds while it writes; metric by metric,
        # since meanwhile nobody's garbage is collected
        for metric, counter in self._counters.items():
            with uncollected():
                for labels, value in metric.read(gains, status):
                    (counter.labels(*labels) if labels else counter).inc(value)
        counted = self._profiler.snapshot()
        for metric, gauge in self._gauges.items():
            with uncollected():
                for labels, value in metric.read(counted, status):
                    (gauge.labels(*labels) if labels else gauge).set(value)

    def _check_room(self) -> None:
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < ROOM:
            raise OSError(f"less than {ROOM >> 20} MiB are free for {MULTIPROCESS}")
