"""Who is hot enough for a series of its own? The candidates of one table of series.

The heat of a candidate is counted in hits and halved every `HALF_LIFE` seconds. A few hits are
enough while the table has room; later only a share of all that happened counts that says that the
candidate matters, so that start-up code cannot fill the table.
"""

from collections.abc import Iterable
from heapq import nlargest
from typing import Generic, TypeVar

K = TypeVar("K")

HALF_LIFE = 60.0
RETIRE_AFTER = 1800.0
"""Seconds without an increment after which a series may end to make room for a hotter one."""

REMEMBERED = 500
"""Stacks of a batch up to which the next one knows where they went; of more, few come again."""

_CHEAP = 5.0  # heat of a function seen five times waiting, or two or three times running


class Heat(Generic[K]):
    """The candidates for a table of *limit* places, bounded: the coldest are forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heat: dict[K, float] = {}  # in units of _weight
        self._total = 0.0
        self._weight = 1.0
        self._cooled_at: float | None = None

    def __len__(self) -> int:
        return len(self._heat)

    def cool(self, now: float) -> None:
        """Let old heat fade: instead of cooling every entry, newer hits weigh more."""
        elapsed = 0.0 if self._cooled_at is None else now - self._cooled_at
        self._cooled_at = now
        self._weight *= 2.0 ** min(elapsed / HALF_LIFE, 100.0)
        if self._weight > 1e100:
            self._heat = {key: heat / self._weight for key, heat in self._heat.items()}
            self._total /= self._weight
            self._weight = 1.0
        if len(self._heat) > 4 * self._limit:
            hottest = nlargest(2 * self._limit, self._heat, key=self._heat.__getitem__)
            self._heat = {key: self._heat[key] for key in hottest}

    def observe(self, hits: float) -> None:
        """Take note of all *hits* that there were, which shares are taken of."""
        self._total += hits * self._weight

    def warm(self, candidates: Iterable[K], hits: float) -> None:
        """Add *hits* to the heat of each of the candidates."""
        heat = hits * self._weight
        for key in candidates:
            self._heat[key] = self._heat.get(key, 0.0) + heat

    def worthy(self, among: Iterable[K] | None = None) -> list[tuple[float, K]]:
        """Return those that have earned a series, each after its heat, hottest first.

        *among* are the candidates to look at, by default all.
        """
        cheap = _CHEAP * self._weight
        heat = self._heat
        candidates = heat.items() if among is None else ((key, heat[key]) for key in among)
        worthy = [(heat, key) for key, heat in candidates if heat >= cheap]
        worthy.sort(key=_by_heat, reverse=True)
        return worthy

    def matters(self, heat: float) -> bool:
        """Return whether so much heat is the share of one place, or more, of all that there was.

        Who has less may have a series only while there is plenty of room.
        """
        return heat >= max(_CHEAP * self._weight, self._total / self._limit)

    def forget(self, candidate: K) -> None:
        """Let go of one that is a candidate no more."""
        del self._heat[candidate]


def _by_heat(entry: tuple[float, object]) -> float:
    return entry[0]
