"""Profiles in OTLP: what a receiver decodes with the generated messages is the tree that was sent."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2
from opentelemetry.proto.profiles.v1development import profiles_pb2

from ox_otel import Node
from ox_otel._otlp import Window, encode
from ox_otel.recorders import REST, TOKEN_LENGTH

ROOT = Node("total", 0, "total")
WINDOW = Window(1_700_000_000.5, 60.25)

names = st.text("abc", max_size=5)


def decode(body: bytes) -> Any:
    """Return the request to export profiles that a receiver gets."""
    return profiles_service_pb2.ExportProfilesServiceRequest.FromString(body)


def tree_of(request: Any) -> dict[tuple[str, ...], int]:
    """Return the time of each stack in the one profile of a request, outermost function first."""
    dictionary = request.dictionary
    [resource] = request.resource_profiles
    [scope] = resource.scope_profiles
    [profile] = scope.profiles
    tree: dict[tuple[str, ...], int] = {}
    for sample in profile.samples:
        stack = []
        for number in dictionary.stack_table[sample.stack_index].location_indices:
            [line] = dictionary.location_table[number].lines
            name = dictionary.function_table[line.function_index].name_strindex
            stack.append(dictionary.string_table[name])
        [nanoseconds] = sample.values
        tree[tuple(reversed(stack))] = nanoseconds
    return tree


def node(path: str) -> Node:
    """Return the node on the path of functions that one letter each names."""
    return Node(ROOT.path + "".join(TOKEN_LENGTH * name for name in path), len(path), path[-1])


def tree(times: dict[str, int]) -> dict[Node, int]:
    """Return a tree whose nodes have these times by path, with all nodes above."""
    above = {path[:end] for path in times for end in range(1, len(path) + 1)}
    nodes = {node(path): times.get(path, 0) for path in above}
    return {ROOT: times.get("", 0)} | nodes


@given(st.dictionaries(names, st.integers(0, 10**15), max_size=8))
def test_any_tree_comes_back(times: dict[str, int]) -> None:
    """Whatever the tree: the times of all its stacks come back, those of the root as of the rest."""
    request = decode(encode(tree(times), "cpu", 0.02, WINDOW, {}))
    expected = {tuple(path) or (str(REST),): time for path, time in times.items() if time}
    assert expected == tree_of(request)


@given(st.dictionaries(names, st.integers(0, 10**15), max_size=8))
def test_dictionaries_are_as_demanded(times: dict[str, int]) -> None:
    """The first entry of each table stands for nothing; nothing else is there twice or unused."""
    tables = decode(encode(tree(times), "cpu", 0.02, WINDOW, {})).dictionary
    for name in ("mapping", "location", "function", "link", "attribute", "stack"):
        table = getattr(tables, f"{name}_table")
        assert b"" == table[0].SerializeToString()
        entries = [entry.SerializeToString() for entry in table]
        assert len(set(entries)) == len(entries)
    assert "" == tables.string_table[0]
    assert len(set(tables.string_table)) == len(tables.string_table)
    used = {letter for path, time in times.items() for letter in (path or [str(REST)]) if time}
    assert {"", "cpu", "nanoseconds", "profile.frame.type"} | used == {*tables.string_table}


def test_what_is_said_of_the_profile() -> None:
    """Kind, unit, window and rate of samples are there; the frames are CPython's."""
    request = decode(encode(tree({"ab": 5}), "wall", 0.02, WINDOW, {}))
    texts = request.dictionary.string_table
    scope = request.resource_profiles[0].scope_profiles[0]
    [profile] = scope.profiles
    assert "ox_otel" == scope.scope.name
    for kind in (profile.sample_type, profile.period_type):
        assert ("wall", "nanoseconds") == (texts[kind.type_strindex], texts[kind.unit_strindex])
    assert 1_700_000_000_500_000_000 == profile.time_unix_nano
    assert (60_250_000_000, 20_000_000) == (profile.duration_nano, profile.period)
    assert 16 == len(profile.profile_id)
    for location in request.dictionary.location_table[1:]:
        [number] = location.attribute_indices
        attribute = request.dictionary.attribute_table[number]
        assert "profile.frame.type" == texts[attribute.key_strindex]
        assert "cpython" == attribute.value.string_value


def test_each_profile_has_an_id_of_its_own() -> None:
    """Two profiles of the same tree are two."""
    first, second = (decode(encode({ROOT: 1}, "cpu", 0.02, WINDOW, {})) for _ in range(2))
    ids = {r.resource_profiles[0].scope_profiles[0].profiles[0].profile_id for r in (first, second)}
    assert 2 == len(ids)


def test_attributes_of_the_resource() -> None:
    """Attributes of every kind that a resource may have arrive as what they are."""
    given = {"text": "ü", "number": 3, "share": 0.5, "truth": True, "many": ("a", "b")}
    request = decode(encode({ROOT: 1}, "cpu", 0.02, WINDOW, given))
    found: dict[str, Any] = {}
    for pair in request.resource_profiles[0].resource.attributes:
        value = getattr(pair.value, pair.value.WhichOneof("value"))
        is_array = pair.value.WhichOneof("value") == "array_value"
        found[pair.key] = tuple(one.string_value for one in value.values) if is_array else value
    assert given == found
    assert found["truth"] is True


def test_the_messages_are_those_that_were_tested() -> None:
    """The wire format has the numbers of fields that this version of the signal has."""
    message = profiles_pb2.Profile.DESCRIPTOR.fields_by_name
    numbers = {name: field.number for name, field in message.items()}
    assert {"sample_type": 1, "samples": 2, "time_unix_nano": 3, "duration_nano": 4} == {
        name: numbers[name]
        for name in ("sample_type", "samples", "time_unix_nano", "duration_nano")
    }
