"""The file of https://www.speedscope.app: a page that shows profiles and keeps them to itself."""

import json

from ox_otel.profiles import Profile
from ox_otel.recorders import Function


def write(profile: Profile, time: str) -> bytes:
    """Return the stacks of *profile*, each as long as its *time* in nanoseconds."""
    nanoseconds = profile.nanoseconds(time)
    places: dict[Function, int] = {}
    samples = [
        [places.setdefault(function, len(places)) for function in stack] for stack in nanoseconds
    ]
    weights = list(nanoseconds.values())
    content = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "ox_otel",
        "shared": {"frames": [{"name": str(function)} for function in places]},
        "profiles": [
            {
                "type": "sampled",
                "name": time,
                "unit": "nanoseconds",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
    }
    return json.dumps(content).encode()
