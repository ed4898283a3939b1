"""A bar chart as SVG: small enough to write by hand."""

from collections.abc import Mapping
from html import escape

WIDTH, BAR, GAP, LABELS, FIGURES = 760, 18, 8, 270, 70
OURS, THEIRS = "#0a7d4b", "#9aa5b1"


def bars(title: str, values: Mapping[str, float]) -> str:
    """The chart; bars whose label begins with Jobhook stand out."""
    scale = (WIDTH - LABELS - FIGURES) / max(values.values())
    height = 40 + len(values) * (BAR + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" '
        f'font-size="13" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="0" y="20" font-weight="600">{escape(title)}</text>',
    ]
    for row, (label, value) in enumerate(values.items()):
        y = 36 + row * (BAR + GAP)
        colour = OURS if label.startswith("Jobhook") else THEIRS
        width = value * scale
        parts += [
            f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
            f'<text x="{LABELS + width + 6:.1f}" y="{y + 13}">{value:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
