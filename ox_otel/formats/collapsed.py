"""Collapsed stacks, as flame graph scripts read them: `module.f;module.g 1234`, in nanoseconds."""

from ox_otel.profiles import Profile
from ox_otel.recorders import Function


def write(profile: Profile, time: str) -> bytes:
    """Return a line for each stack, outermost function first, and its *time* in nanoseconds."""
    lines = [
        f"{';'.join(map(_frame, stack))} {nanoseconds}\n"
        for stack, nanoseconds in profile.nanoseconds(time).items()
    ]
    return "".join(lines).encode()


def _frame(function: Function) -> str:
    return str(function).replace(";", ",")  # which would end it
