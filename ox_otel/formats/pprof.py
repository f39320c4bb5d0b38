"""pprof, as `go tool pprof`, Grafana Alloy, Parca and Pyroscope read it.

It is a message of `proto/profile.proto` in google/pprof, gzipped. A function has its module where
others have a file: paths are nobody's business, and `-files` sums up modules.
"""

import gzip
from collections.abc import Iterable

from ox_otel.profiles import Profile
from ox_otel.recorders import Function

_MAPPING = 1  # the only one


def write(profile: Profile, time: str) -> bytes:
    """Return the stacks of *profile* that have any *time*, with it and their hits."""
    texts = {"": 0}  # each with its place in the table of texts: the format wants this one first
    numbers: dict[Function, int] = {}

    def text(text: str) -> int:
        return texts.setdefault(text, len(texts))

    def number(function: Function) -> int:
        return numbers.setdefault(function, len(numbers) + 1)  # 0 would be none

    time_type = _whole(1, text(time)) + _whole(2, text("nanoseconds"))
    fields = [
        _part(1, _whole(1, text("samples")) + _whole(2, text("count"))),
        _part(1, time_type),
    ]
    for stack, nanoseconds in profile.nanoseconds(time).items():
        locations = [number(function) for function in reversed(stack)]  # innermost first
        values = [profile.stacks[stack].hits, nanoseconds]
        fields.append(_part(2, _wholes(1, locations) + _wholes(2, values)))
    # its functions have names, so that nobody looks for symbols in a program
    fields.append(_part(3, _whole(1, _MAPPING) + _whole(5, text("python")) + _whole(7, 1)))
    for function, place in numbers.items():
        line = _part(4, _whole(1, place))
        fields.append(_part(4, _whole(1, place) + _whole(2, _MAPPING) + line))
        name = _whole(2, text(str(function))) + _whole(3, text(str(function)))
        module = _whole(4, text(function.module))
        fields.append(_part(5, _whole(1, place) + name + module))
    fields += [
        _whole(9, round(1e9 * profile.started)),
        _whole(10, round(1e9 * profile.seconds)),
        _part(11, time_type),
        _whole(12, round(1e9 * profile.interval)),
        _whole(14, text(time)),
    ]
    fields += [_part(6, one.encode()) for one in texts]
    return gzip.compress(b"".join(fields), mtime=0)


def _whole(field: int, value: int) -> bytes:
    """Return a field of the message that holds a whole number, not negative."""
    return _varint(field << 3) + _varint(value)


def _wholes(field: int, values: Iterable[int]) -> bytes:
    return _part(field, b"".join(map(_varint, values)))


def _part(field: int, content: bytes) -> bytes:
    """Return a field that holds bytes: a text, several numbers, or a message of its own."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = value & 0x7F
    encoded = bytearray()
    while value := value >> 7:
        encoded.append(low | 0x80)
        low = value & 0x7F
    encoded.append(low)
    return bytes(encoded)
