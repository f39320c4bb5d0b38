"""The configurations by which stores of profiles pull ours."""

import re
from pathlib import Path
from typing import Any

import yaml

from ox_otel import Profiler, Settings
from ox_otel.http import Exposure, Request, respond

DEPLOY = Path(__file__).parent.parent / "deploy"
IN_GO = {"memory", "block", "goroutine", "mutex"}
"""What stores ask of every target unless they are told not to."""


def served(path: str) -> str:
    """Return the content type of the profile that is served there, for a process at rest."""
    exposure = Exposure(Profiler(Settings()), None, None, loopback=True)
    answer = respond(Request("HEAD", path, "seconds=14", {"host": "127.0.0.1:9464"}), exposure)
    assert 200 == answer.status
    return answer.headers["Content-Type"]


def alloy_blocks(config: str) -> dict[str, dict[str, str]]:
    """Return the blocks of kinds of profiles, each with its arguments."""
    code = re.sub(r"//.*", "", config)
    assert code.count("{") == code.count("}")
    blocks = re.findall(r'profile\.(\w+)(?: "(\w+)")? \{([^}]*)\}', code)
    return {
        name or kind: dict(re.findall(r'^\s*(\w+)\s*= "?([^"\n]*?)"?\s*$', content, re.MULTILINE))
        for kind, name, content in blocks
    }


def test_alloy_pulls_what_there_is() -> None:
    """CPU and wall from our routes, of the type that it demands, and nothing that is not there."""
    config = (DEPLOY / "alloy" / "config.alloy").read_text()
    blocks = alloy_blocks(config)
    assert {"enabled": "true", "path": "/debug/pprof/wall", "delta": "true"} == blocks.pop("wall")
    assert {kind: {"enabled": "false"} for kind in IN_GO} == blocks
    assert {"/debug/pprof/wall", "/debug/pprof/profile"} == {
        *re.findall(r"/debug/pprof/\w+", config)
    }
    for path in ("/debug/pprof/wall", "/debug/pprof/profile"):
        assert "application/octet-stream" == served(path)
    assert re.search(r'"service_name" = "\w+"', config)


def test_parca_pulls_what_there_is() -> None:
    """CPU and wall from our routes, and nothing that is not there."""
    config: Any = yaml.safe_load((DEPLOY / "parca" / "parca.yaml").read_text())
    assert "FILESYSTEM" == config["object_storage"]["bucket"]["type"]
    [job] = config["scrape_configs"]
    kinds = job["profiling_config"]["pprof_config"]
    wanted = {name: kind for name, kind in kinds.items() if kind["enabled"]}
    assert {"process_cpu": "/debug/pprof/profile", "wall": "/debug/pprof/wall"} == {
        name: kind["path"] for name, kind in wanted.items()
    }
    for kind in wanted.values():
        assert kind["delta"]
        assert "application/octet-stream" == served(kind["path"])
    assert kinds.keys() - wanted.keys() == IN_GO
