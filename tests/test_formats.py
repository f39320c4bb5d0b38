"""Formats: whoever reads them finds every stack with all of its time, whatever it is named."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import Function, Profile, Usage
from ox_otel.formats import FORMATS, frame
from ox_otel.profiles import TIMES

A, B, C = Function("app", "main"), Function("app.db", "Cart.load"), Function("lib", "<lambda>")
STACKS = {
    (A,): Usage(1, 1, 1.0, 0.5, 1.0, 0.5),
    (A, B): Usage(2, 2, 0.25, 0.0, 0.25, 0.0),
    (A, B, A, B): Usage(3, 3, 2.0, 1.0, 2.0, 1.0),
    (C, B): Usage(4, 4, 0.125, 0.0, 0.125, 0.0),
    (C,): Usage(5, 5, 0.0, 2.0, 0.0, 2.0),
}
PROFILE = Profile(STACKS, 1_700_000_000.5, 10.25, 0.02)

Read = dict[tuple[str, ...], int]
"""What was read: stacks of labels, outermost first, and their nanoseconds."""


def labels(times: Mapping[tuple[Function, ...], int]) -> Read:
    """Return these times by the labels of the stacks."""
    return {tuple(map(str, stack)): nanoseconds for stack, nanoseconds in times.items()}


def varint(message: bytes, place: int) -> tuple[int, int]:
    """Return the number that stands at *place*, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message of protocol buffers: the number of each, and its value."""
    place = 0
    while place < len(message):
        tag, place = varint(message, place)
        value, place = varint(message, place)
        assert tag % 8 in (0, 2)
        if tag % 8 == 0:
            yield tag // 8, value
        else:
            assert place + value <= len(message)
            yield tag // 8, message[place : place + value]
            place += value


def packed(values: bytes) -> list[int]:
    """Return the numbers that stand in one field."""
    found, place = [], 0
    while place < len(values):
        value, place = varint(values, place)
        found.append(value)
    return found


class Pprof:
    """A pprof message, read by its definition: what refers to nothing is an error."""

    def __init__(self, body: bytes) -> None:
        found = list(fields(gzip.decompress(body)))
        self.texts = [text.decode() for text in self.all(found, 6)]
        assert "" == self.texts[0]
        assert len({*self.texts}) == len(self.texts)
        self.whole = {number: value for number, value in found if isinstance(value, int)}
        self.types = [self.type(one) for one in self.all(found, 1)]
        self.period_type = self.type(*self.all(found, 11))
        mappings = [dict(fields(one)) for one in self.all(found, 3)]
        functions = {dict(fields(one))[1]: dict(fields(one)) for one in self.all(found, 5)}
        assert 0 not in functions
        names = {one: self.texts[function[2]] for one, function in functions.items()}
        self.modules = {names[one]: self.texts[function[4]] for one, function in functions.items()}
        locations = {}
        for one in self.all(found, 4):
            location = dict(fields(one))
            assert location[2] in [mapping[1] for mapping in mappings]
            locations[location[1]] = names[dict(fields(location[4]))[1]]
        assert len(locations) == len(functions) == len(self.all(found, 4))
        self.samples = {}
        for one in self.all(found, 2):
            sample = dict(fields(one))
            stack = tuple(locations[location] for location in packed(sample[1])[::-1])
            values = packed(sample[2])
            assert len(self.types) == len(values)
            assert stack not in self.samples
            self.samples[stack] = values

    @staticmethod
    def all(found: list[tuple[int, int | bytes]], number: int) -> list[bytes]:
        """Return all fields of this number."""
        return [value for one, value in found if one == number and isinstance(value, bytes)]

    def type(self, message: bytes) -> tuple[str, str]:
        """Return a type of values: what, and in which unit."""
        kind = dict(fields(message))
        return self.texts[kind[1]], self.texts[kind[2]]


def read_collapsed(body: bytes) -> Read:
    """Return what the script `flamegraph.pl` would find."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in body.decode().split("\n")[:-1]:
        stack, _, nanoseconds = line.rpartition(" ")
        found[tuple(stack.split(";"))] += int(nanoseconds)
    return dict(found)


def read_speedscope(body: bytes) -> Read:
    """Return the one profile in a file of speedscope."""
    content = json.loads(body)
    [profile] = content["profiles"]
    names = [one["name"] for one in content["shared"]["frames"]]
    assert profile["endValue"] == sum(profile["weights"])
    stacks = [tuple(names[place] for place in stack) for stack in profile["samples"]]
    found: Counter[tuple[str, ...]] = Counter()
    for stack, weight in zip(stacks, profile["weights"], strict=True):
        found[stack] += weight
    return dict(found)


def read_pprof(body: bytes) -> Read:
    """Return the times in a pprof file."""
    return {stack: values[1] for stack, values in Pprof(body).samples.items()}


def read_frame(body: bytes) -> Read:
    """Return the self times in a data frame, having checked the rules of its rows."""
    rows = json.loads(body)
    assert [0] == [row["level"] for row in rows[:1]]
    assert all(0 < after["level"] <= before["level"] + 1 for before, after in pairwise(rows))
    path: list[str] = []
    found: Counter[tuple[str, ...]] = Counter()
    below: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        path[row["level"] :] = [row["label"]]
        found[tuple(path[1:])] += row["self"]
        below[tuple(path[:-1])] += row["value"]
    assert below[()] == sum(row["self"] for row in rows)
    path = []
    for row in rows:
        path[row["level"] :] = [row["label"]]
        assert row["value"] == row["self"] + below[tuple(path)]
    return {stack: nanoseconds for stack, nanoseconds in found.items() if nanoseconds}


READERS: dict[str, Callable[[bytes], Read]] = {
    "collapsed": read_collapsed,
    "speedscope": read_speedscope,
    "pprof": read_pprof,
    "frame": read_frame,
}

letters = st.characters(exclude_categories=["C", "Zl", "Zp"])
names = st.text(letters, min_size=1, max_size=8)
modules = names.filter(lambda name: "." not in name)  # or two functions could have one label
functions = st.builds(Function, modules, names) | st.sampled_from([A, B, C])
times = st.floats(0, 1e6)
usages = st.builds(
    lambda hits, cpu, wait: Usage(hits, hits, cpu, wait, cpu, wait), st.integers(0), times, times
)
profiles = st.builds(
    Profile,
    st.dictionaries(st.lists(functions, min_size=1, max_size=6).map(tuple), usages, max_size=8),
    st.floats(0, 4e9),
    st.floats(0.1, 300),
    st.floats(0.001, 60),
)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("time", TIMES)
def test_a_profile_is_read_back(name: str, time: str) -> None:
    """Each format has each stack that has any of the time, with that time."""
    assert labels(PROFILE.nanoseconds(time)) == READERS[name](FORMATS[name].write(PROFILE, time))


@given(profiles, st.sampled_from([*TIMES]))
def test_any_profile_is_read_back(profile: Profile, time: str) -> None:
    """Whatever functions are named and however little there is, nothing gets lost."""
    expected = labels(profile.nanoseconds(time))
    for name in READERS.keys() - {"collapsed"}:
        assert (name, expected) == (name, READERS[name](FORMATS[name].write(profile, time)))
    lines = Counter[tuple[str, ...]]()
    for stack, nanoseconds in expected.items():  # a semicolon cannot be written there
        lines[tuple(label.replace(";", ",") for label in stack)] += nanoseconds
    assert lines == read_collapsed(FORMATS["collapsed"].write(profile, time))


def test_every_format_has_a_reader() -> None:
    """No format goes untested."""
    assert {*FORMATS} - {"html"} == {*READERS}


def test_what_pprof_says_of_the_profile() -> None:
    """Types of values, time, length and interval are as Alloy, Parca and Pyroscope name them."""
    pprof = Pprof(FORMATS["pprof"].write(PROFILE, "cpu"))
    assert [("samples", "count"), ("cpu", "nanoseconds")] == pprof.types
    assert ("cpu", "nanoseconds") == pprof.period_type
    started, seconds, interval, default = (pprof.whole[number] for number in (9, 10, 12, 14))
    assert (1_700_000_000_500_000_000, 10_250_000_000, 20_000_000) == (started, seconds, interval)
    assert "cpu" == pprof.texts[default]
    assert {str(function): function.module for function in (A, B, C)} == pprof.modules
    assert [2, 250_000_000] == pprof.samples[str(A), str(B)]
    wall = Pprof(FORMATS["pprof"].write(PROFILE, "wall"))
    assert ("wall", "nanoseconds") == wall.types[1] == wall.period_type


def test_an_empty_profile_is_one() -> None:
    """Where nothing has happened, each format says so, in a form that readers take."""
    empty = Profile({}, 0.0, 1.0, 0.02)
    assert [{}, {}, {}, {}] == [
        read(FORMATS[name].write(empty, "cpu")) for name, read in READERS.items()
    ]
    assert [frame.Row(0, "total", 0, 0)] == frame.rows(empty, "cpu")


def test_rows_are_a_walk_through_the_calls() -> None:
    """A caller comes before those it calls, these by name, each with all that is below it."""
    rows = frame.rows(PROFILE, "cpu")
    assert [
        (0, "total", 3_375_000_000, 0),
        (1, "app.main", 3_250_000_000, 1_000_000_000),
        (2, "app.db.Cart.load", 2_250_000_000, 250_000_000),
        (3, "app.main", 2_000_000_000, 0),
        (4, "app.db.Cart.load", 2_000_000_000, 2_000_000_000),
        (1, "lib.<lambda>", 125_000_000, 0),
        (2, "app.db.Cart.load", 125_000_000, 125_000_000),
    ] == [tuple(row) for row in rows]


def test_a_semicolon_in_a_name_ends_no_frame() -> None:
    """In collapsed stacks it stands as a comma."""
    profile = Profile({(Function("a;b", "f"),): Usage(1, 1, 1e-9, 0.0)}, 0.0, 1.0, 0.02)
    assert b"a,b.f 1\n" == FORMATS["collapsed"].write(profile, "cpu")


def test_formats_depend_on_the_profile_alone() -> None:
    """The same profile makes the same bytes."""
    for form in FORMATS.values():
        assert form.write(PROFILE, "cpu") == form.write(PROFILE, "cpu")
