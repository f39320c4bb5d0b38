"""The demo's words: a table of the profile beside the truth, and the verdict on it."""

from collections import Counter
from dataclasses import dataclass

from answers import REST, Seconds

UNPLACED = "__unplaced__"  # the profiler's name for CPU of which it does not know whose it was
EXPECTED = "pure Python"  # functions of this kind have to lead
BLIND_SPOTS = ("C, holds the GIL", "database")
NOTE = f"* engine `threads` sees C code only when it lets go of the GIL: what it can't tell is {UNPLACED}"
SHOWN = 10


@dataclass(frozen=True)
class Comparison:
    """A profile of `elapsed` seconds beside the shop's own accounts of them."""

    profile: Seconds
    truth: Seconds
    kinds: dict[str, str]
    elapsed: float

    def percent(self, seconds: Seconds) -> Counter[tuple[str, str]]:
        """Return CPU as a share of all CPU, waits as a share of the time that passed."""
        all_cpu = sum(used for (_, state), used in seconds.items() if state == "cpu")
        whole = {"cpu": all_cpu or 1, "wait": self.elapsed}
        shares = {key: 100 * used / whole[key[1]] for key, used in seconds.items()}
        for name, state in seconds:
            if name not in (*self.kinds, REST) and not name.endswith(UNPLACED):
                shares[REST, state] = shares.get((REST, state), 0) + shares[name, state]
        return Counter(shares)

    def ranking(self) -> list[str]:
        """Return every function that the profile knows, the one with the most CPU first."""
        names = {name for name, _ in self.profile}
        return sorted(names, key=lambda name: -self.profile[name, "cpu"])

    def table(self, source: str, engine: str) -> str:
        """Return a line for each of the hottest functions, and for each that the shop knows.

        Where the *engine* of the profiler has blind spots, functions in them are marked.
        """
        marked = BLIND_SPOTS if engine == "threads" else ()
        seen, true = self.percent(self.profile), self.percent(self.truth)
        names = self.ranking()[:SHOWN]
        names += [name for name in self.kinds if name not in names] + [REST]
        lines = [
            f"{'':34}{'CPU, % of all':^28}{'wait, % of a thread':^28}".rstrip(),
            f"{'self time of':34}" + 2 * f"{source:>13}{'truth':>7}{'diff':>7} " + " kind",
        ]
        for name in names:
            cells = ""
            for state in ("cpu", "wait"):
                share, truth = seen[name, state], true[name, state]
                known = (name, state) in true
                cells += f"{share:13.1f}"
                cells += f"{truth:7.1f}{share - truth:+7.1f} " if known else f"{'':15}"
            kind = self.kinds.get(name, "")
            short = name if len(name) < 34 else f"..{name[-31:]}"
            lines.append(f"{short:34}{cells} {kind}{' *' if kind in marked else ''}".rstrip())
        return "\n".join([*lines, *([NOTE] if marked else [])])

    def verdict(self, source: str) -> tuple[bool, str]:
        """Return whether the expected functions lead by CPU, and that in words."""
        expected = [name for name, kind in self.kinds.items() if kind == EXPECTED]
        functions = [name for name in self.ranking() if not name.endswith(UNPLACED)]
        leading = functions[: len(expected)]
        if set(leading) != set(expected):
            led = f"led by {', '.join(leading)}" if leading else "which has no function at all"
            return False, f"NOT FOUND: {', '.join(expected)} do not lead the profile, {led}"
        seen, true = self.percent(self.profile), self.percent(self.truth)
        error = {name: seen[name, "cpu"] - true[name, "cpu"] for name in leading}
        worst = max(error, key=lambda name: abs(error[name]))
        return True, (
            f"FOUND: {', '.join(leading)} lead by CPU, as {source} answers;"
            f" worst difference {error[worst]:+.1f} points ({worst})"
        )
