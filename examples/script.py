"""Profile a script, and print where the time went when it ends."""

import time

import ox_otel


def crunch() -> int:
    """Use the CPU for a while."""
    return sum(number * number % 7 for number in range(3_000_000))


def fetch() -> None:
    """Wait, as for an answer from elsewhere."""
    time.sleep(0.3)


if __name__ == "__main__":
    with ox_otel.Profiler() as profiler:
        for _ in range(3):
            crunch()
            fetch()
        print(profiler.show(limit=5))
