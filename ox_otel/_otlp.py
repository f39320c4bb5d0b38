"""A calling-context tree as OTLP has profiles (v1development): messages and tables of a dictionary.

In each table the first entry stands for nothing.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.profiles.v1development.profiles_pb2 import (
    Function,
    KeyValueAndUnit,
    Line,
    Link,
    Location,
    Profile,
    ProfilesDictionary,
    ResourceProfiles,
    Sample,
    ScopeProfiles,
    Stack,
    ValueType,
)
from opentelemetry.proto.profiles.v1development.profiles_pb2 import (
    Mapping as Binary,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from ox_otel._status import package_version
from ox_otel.recorders import REST, TOKEN_LENGTH, Node

Attributes = Mapping[str, object]
"""Of a resource, as the SDK holds them: texts, truths, numbers, and sequences of these."""


class Window(NamedTuple):
    """The time that a profile is of: its beginning in seconds since 1970, and how long it lasts."""

    began: float
    seconds: float


def encode(
    tree: Mapping[Node, int], time: str, interval: float, window: Window, resource: Attributes
) -> bytes:
    """Return the request to export *tree*: the self time of each node, of the *time* so called.

    The root is no function and stands on no stack; its own time is that of `REST`.
    *interval* is the mean number of seconds between two samples, with ticks a fifth of that.

    Raises:
        ValueError, TypeError or AttributeError: the messages installed are of another version.
    """
    labels = {node.path: node.label for node in tree}
    paths = {node.path: nanoseconds for node, nanoseconds in tree.items() if nanoseconds}
    stacks = {path: _stack(path, labels) for path in paths}
    functions = {label: number for number, label in enumerate(_distinct(stacks.values()), 1)}
    words = dict.fromkeys(["", *functions, time, "nanoseconds", "profile.frame.type"])
    places = {word: number for number, word in enumerate(words)}
    dictionary = ProfilesDictionary(
        mapping_table=[Binary()],
        link_table=[Link()],
        string_table=list(words),
        function_table=[Function(), *(Function(name_strindex=places[f]) for f in functions)],
        location_table=[
            Location(),
            *(
                Location(lines=[Line(function_index=number)], attribute_indices=[1])
                for number in functions.values()
            ),
        ],
        stack_table=[
            Stack(),
            *(Stack(location_indices=[functions[f] for f in stack]) for stack in stacks.values()),
        ],
        attribute_table=[
            KeyValueAndUnit(),
            KeyValueAndUnit(
                key_strindex=places["profile.frame.type"], value=AnyValue(string_value="cpython")
            ),
        ],
    )
    kind = ValueType(type_strindex=places[time], unit_strindex=places["nanoseconds"])
    profile = Profile(
        sample_type=kind,
        samples=[
            Sample(stack_index=number, values=[nanoseconds])
            for number, nanoseconds in enumerate(paths.values(), 1)
        ],
        time_unix_nano=round(window.began * 1e9),
        duration_nano=round(window.seconds * 1e9),
        period_type=kind,
        period=round(interval * 1e9),
        profile_id=os.urandom(16),
    )
    scope = ScopeProfiles(
        scope=InstrumentationScope(name="ox_otel", version=package_version()), profiles=[profile]
    )
    attributes = [KeyValue(key=key, value=_value(value)) for key, value in resource.items()]
    of_resource = ResourceProfiles(resource=Resource(attributes=attributes), scope_profiles=[scope])
    request = ExportProfilesServiceRequest(resource_profiles=[of_resource], dictionary=dictionary)
    encoded: bytes = request.SerializeToString()
    return encoded


def _stack(path: str, labels: Mapping[str, str]) -> list[str]:
    """Return the labels of the functions on a path, the last one called first."""
    ends = range(len(path), TOKEN_LENGTH, -TOKEN_LENGTH)
    return [labels[path[:end]] for end in ends] or [str(REST)]


def _distinct(stacks: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(label for stack in stacks for label in stack))


def _value(value: object) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
    return AnyValue(string_value=str(value))
