"""The recorder for prometheus_client where many processes share `PROMETHEUS_MULTIPROC_DIR`.

No collector of one's own works there: the library's counters are incremented, whose files outlive
their process and are summed up by whoever is scraped.
"""

import os
from typing import Literal

from prometheus_client import Counter, Gauge

from ox_otel._fork import uncut
from ox_otel._interpreter import uncollected
from ox_otel._metrics import METRICS
from ox_otel._profiler import Profiler
from ox_otel._pruning import Pruning
from ox_otel.recorders import Batch

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of prometheus_client that names the folder where its processes keep their counts."""

ROOM = 1 << 24
"""Bytes that must be free there: to write into a mapped file on a full disk ends the process."""

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

    Their series cannot end, so a retired one just stays what it is, and its heir is not told of:
    what comes when the process has had as much as it may is pruned.

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
        # kept in forked children: their files begin with the same series
        self._pruning = Pruning(profiler.places.functions, profiler.places.nodes)

    def record(self, batch: Batch) -> None:
        """Add *batch* to the counters, all of it or, where the disk is nearly full, nothing."""
        self._check_room()
        gains, status = self._pruning.prune(batch), self._profiler.status()
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
