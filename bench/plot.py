"""Plots as SVG."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 860, 360
LEFT, RIGHT, TOP, BOTTOM = 50, 160, 40, 70
COLOURS = ("#c92a2a", "#f08c00", "#1971c2", "#2f9e44", "#9c36b5", "#495057", "#0c8599", "#846358")


def bars(title: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Return a group of bars for each of *groups*, with one bar for each of *series*."""
    top = _above(series)
    slot = (WIDTH - LEFT - RIGHT) / len(groups)
    width = slot * 0.8 / max(len(series), 1)
    parts = _axes(title, top)
    for number, (values, colour) in enumerate(zip(series.values(), COLOURS, strict=False)):
        for group, value in enumerate(values):
            x, y = LEFT + group * slot + number * width, _y(value, top)
            height = HEIGHT - BOTTOM - y
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
                f' fill="{colour}"/>'
            )
    for group, name in enumerate(groups):
        x, y = LEFT + group * slot, HEIGHT - BOTTOM + 14
        parts.append(f'<text x="{x}" y="{y}" transform="rotate(20 {x} {y})">{escape(name)}</text>')
    return _drawing(parts + _legend(series))


def lines(
    title: str, x_label: str, xs: Sequence[float], series: Mapping[str, Sequence[float]]
) -> str:
    """Return a line for each of *series* over *xs*."""
    top, right = _above(series), max(xs)
    parts = _axes(title, top)

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * x / right

    for values, colour in zip(series.values(), COLOURS, strict=False):
        points = " ".join(
            f"{across(x):.1f},{_y(y, top):.1f}" for x, y in zip(xs, values, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    for x in xs:
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 14}">{x:g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 34}">{escape(x_label)}</text>')
    return _drawing(parts + _legend(series))


def save(path: str, drawing: str) -> None:
    """Write *drawing* to *path*."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(drawing)


def _above(series: Mapping[str, Sequence[float]]) -> float:
    return max((value for values in series.values() for value in values), default=0.0) or 1.0


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * max(value, 0.0) / top


def _axes(title: str, top: float) -> list[str]:
    parts = [f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>']
    for part in range(5):
        value = top * part / 4
        y = _y(value, top)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ccc"/>')
        parts.append(f'<text x="8" y="{y + 4:.1f}">{value:.3g}</text>')
    return parts


def _legend(names: Mapping[str, object]) -> list[str]:
    parts = []
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        x, y = WIDTH - RIGHT + 12, TOP + 18 * number
        parts.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="{y + 10}">{escape(name)}</text>')
    return parts


def _drawing(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    body = "\n".join(parts)
    return f'{head} font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
