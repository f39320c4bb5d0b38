"""A service with the profiler in it, scraped every second, does not grow.

`SOAK_SECONDS` (60) is how long it is watched; `make soak` watches it for ten minutes. The figures are
Prometheus's own: what the service's process_* metrics said at each scrape.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

pytestmark = pytest.mark.store

SHOP = Path(__file__).parents[2] / "examples" / "shop"
SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
WARM_UP = max(15.0, SECONDS / 10)  # until every route has been asked and every name seen


@pytest.fixture
def shop(free_port: int) -> Iterator[str]:
    """Run the shop under load; return its address."""
    address = f"127.0.0.1:{free_port}"
    service = subprocess.Popen([sys.executable, SHOP / "service.py", "--port", str(free_port)])
    try:
        yield address
    finally:
        service.terminate()
        service.wait(10)


def test_memory_descriptors_and_threads_are_flat(prometheus, shop: str) -> None:
    """After a warm-up the service has as much memory, files and series as at the end."""
    prometheus.scrape(shop)
    load = subprocess.Popen(
        [sys.executable, SHOP / "load.py", f"http://{shop}"], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(WARM_UP + SECONDS)
    finally:
        load.terminate()
        load.wait(10)

    def over_time(metric: str) -> list[float]:
        """Return the medians of a metric in ten parts of the time after the warm-up."""
        values = [v for _, v in prometheus.query_range(f'{metric}{{instance="{shop}"}}', SECONDS)]
        tenth = len(values) // 10
        return [median(values[n * tenth : (n + 1) * tenth]) for n in range(10)]

    resident = over_time("process_resident_memory_bytes")
    descriptors = over_time("process_open_fds")
    print(f"resident memory {resident}, descriptors {descriptors}")
    # what the allocator of a web server rounds up to, not what the profiler may have
    assert resident[-1] - resident[0] < 1024 * 1024
    assert descriptors[-1] <= descriptors[0] + 1
    assert prometheus.query(f'ox_profile_samples_total{{instance="{shop}"}} > 10 * {SECONDS}')
    assert prometheus.query(f'sum(ox_profile_errors_total{{instance="{shop}"}}) == 0')
