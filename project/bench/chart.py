"""A chart of the CPU time of a request by the size of the table, as SVG with a light and a dark theme."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 800, 436
LEFT, RIGHT, TOP, BOTTOM = 70, 600, 84, 350  # of the plot; the labels of the lines are to the right of it
NAME_HEIGHT = 34  # of a label, which has two lines of text
MARKS = ('M-4-4h8v8h-8z', 'M0-5.5 5.5 4h-11z', 'M0-5a5 5 0 1 0 .01 0z')  # square, triangle, circle
DASHES = ('none', '7 4', '2 3')

Series = Mapping[str, Sequence[tuple[int, float]]]

STYLE = """
.paper { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif }
.title { font-size: 17px; font-weight: 600 } .quiet { fill: #59636e } .small { font-size: 11px }
.grid { stroke: #d1d9e0 } .finer { stroke: #eff2f5 } .line { fill: none; stroke-width: 2.5 }
.c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 }
.m0 { fill: #0969da } .m1 { fill: #bc4c00 } .m2 { fill: #1a7f37 } .name { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 } text { fill: #f0f6fc } .quiet { fill: #9198a1 }
  .grid { stroke: #3d444d } .finer { stroke: #212830 }
  .c0 { stroke: #58a6ff } .c1 { stroke: #f0883e } .c2 { stroke: #3fb950 }
  .m0 { fill: #58a6ff } .m1 { fill: #f0883e } .m2 { fill: #3fb950 }
}
"""


def draw(series: Series, title: str, subtitle: str, notes: Sequence[str]) -> str:
    """Return a chart with two logarithmic axes.

    :param series: at most three lines: ``[(users in the table, microseconds), ...]`` by name.
    :param title: the title of the chart.
    :param subtitle: a description of the axes.
    :param notes: lines of small print below the chart.
    :returns: the text of an SVG file.
    """
    sizes = [size for points in series.values() for size, _ in points]
    costs = [cost for points in series.values() for _, cost in points]
    first, last = math.floor(math.log10(min(sizes))), max(math.ceil(math.log10(max(sizes))), 2)
    low = math.floor(math.log10(min(costs)))
    high = max(math.ceil(math.log10(max(costs))), low + 1)

    def x(size: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log10(size) - first) / (last - first)

    def y(cost: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (math.log10(cost) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title>',
        f'<desc id="d">{escape(_in_words(series))}</desc>',
        f'<style>{STYLE}</style>',
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        _text(24, 34, title, 'title'),
        _text(24, 56, subtitle, 'quiet'),
    ]
    for power in range(low, high + 1):
        for times in (1, 2, 5):
            cost = times * 10**power
            if power < high or times == 1:
                parts.append(f'<path class="{"grid" if times == 1 else "finer"}" d="M{LEFT} {y(cost):.1f}H{RIGHT}"/>')
                parts.append(_text(LEFT - 10, y(cost) + 4, f'{cost:,}', 'quiet', 'end'))
    for power in range(first, last + 1):
        parts.append(f'<path class="grid" d="M{x(10**power):.1f} {TOP}V{BOTTOM}"/>')
        parts.append(_text(x(10**power), BOTTOM + 22, f'{10**power:,}', 'quiet', 'middle'))
    names = _apart({name: y(points[-1][1]) for name, points in series.items()})
    for index, (name, points) in enumerate(series.items()):
        path = 'L'.join(f'{x(size):.1f} {y(cost):.1f}' for size, cost in points)
        parts.append(f'<path class="line c{index}" stroke-dasharray="{DASHES[index]}" d="M{path}"/>')
        parts += [
            f'<path class="m{index}" transform="translate({x(size):.1f} {y(cost):.1f})" d="{MARKS[index]}"/>'
            for size, cost in points
        ]
        end = x(points[-1][0]) + 16
        parts.append(f'<path class="m{index}" transform="translate({end:.1f} {names[name]:.1f})" d="{MARKS[index]}"/>')
        parts.append(_text(end + 12, names[name] + 4, name, 'name'))
        parts.append(_text(end + 12, names[name] + 20, f'{points[0][1]:,.0f} to {points[-1][1]:,.0f} µs', 'quiet'))
    parts += [_text(24, BOTTOM + 52 + 17 * line, note, 'quiet small') for line, note in enumerate(notes)]
    parts += ['</svg>', '']
    return '\n'.join(parts)


def _text(x: float, y: float, text: str, kind: str, anchor: str = 'start') -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Return the heights of the labels: beside the ends of their lines, in the same order, without overlapping."""
    placed: dict[str, float] = {}
    lowest: float = TOP
    for left, name in enumerate(sorted(heights, key=heights.__getitem__)):
        room_below = (len(heights) - left - 1) * NAME_HEIGHT
        placed[name] = min(max(heights[name], lowest), BOTTOM - room_below)
        lowest = placed[name] + NAME_HEIGHT
    return placed


def _in_words(series: Series) -> str:
    return '; '.join(
        f'{name}: ' + ', '.join(f'{cost:,.0f} µs with {size:,} users' for size, cost in points)
        for name, points in series.items()
    )
