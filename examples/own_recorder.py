"""A recorder of one's own: write the functions that use the CPU to a CSV file, every second.

OX_OTEL_RECORDERS=prometheus,own_recorder:create python -m ox_otel app.py
"""

import csv
import time
from pathlib import Path

from ox_otel import Batch


class CsvRecorder:
    """Appends a line for each function that used CPU since the last batch."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, batch: Batch) -> None:
        """Write one batch; called about once a second, on a thread of its own."""
        with self._path.open("a", newline="") as file:
            lines = csv.writer(file)
            for function, usage in batch.functions.items():
                if usage.self_cpu_seconds:
                    lines.writerow([round(time.time()), function, usage.self_cpu_seconds])


def create() -> CsvRecorder:
    """Make the recorder that the variable OX_OTEL_RECORDERS names."""
    return CsvRecorder(Path("profile.csv"))
