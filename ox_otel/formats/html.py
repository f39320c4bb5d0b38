"""One file for a browser: the flame graph and the table of the page, which asks nobody anything."""

import json
from base64 import b64encode
from hashlib import sha256
from time import gmtime, strftime

from ox_otel._graph import graph
from ox_otel._page import content
from ox_otel.profiles import Profile


def write(profile: Profile, time: str) -> bytes:
    """Return the page with script, style and data in it; it shows this *time* first."""
    began = strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(profile.started))
    shown = {"title": f"{profile.seconds:.1f} s from {began}", "time": time, **graph(profile)}
    # no name in it can end the element that it stands in
    data = json.dumps(shown, separators=(",", ":")).replace("<", "\\u003c")
    script, style = content("page.js").decode(), content("page.css").decode()
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    block = f'<script id="profile" type="application/json">{data}</script>'
    page = content("page.html").decode()
    for outside, inside in {
        '<meta charset="utf-8">': f'<meta charset="utf-8">\n{head}',
        '<link rel="icon" href="page.svg">': '<link rel="icon" href="data:,">',
        '<link rel="stylesheet" href="page.css">': f"<style>{style}</style>",
        '<script src="page.js" defer></script>\n': "",
        "</body>": f"{block}\n<script>{script}</script>\n</body>",
    }.items():
        page = page.replace(outside, inside, 1)
    return page.encode()


def _digest(text: str) -> str:
    """Return how a policy names what alone may be run, or styled by."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
