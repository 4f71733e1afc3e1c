"""A page of HTML that needs no other file: headings, tables and pictures within one frame."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@title@</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: @width@rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
td, th { border: 1px solid #ddd; padding: .3rem .6rem; text-align: left; font-variant-numeric: tabular-nums }
th { background: #f4f4f4 }
img { max-width: 100%; margin: 1rem 0; display: block }
</style></head><body>
@body@
</body></html>
"""


def page(title: str, parts: Sequence[str], width_rem: int) -> str:
    """The page of these parts, which are HTML already; ``width_rem`` is its greatest width."""
    framed = _FRAME.replace("@title@", html.escape(title)).replace("@width@", str(width_rem))
    return framed.replace("@body@", "\n".join(parts))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts; without a head where all heads are empty."""
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads) if any(heads) else ""
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def picture(name: str, png: bytes) -> str:
    """A picture within the page."""
    encoded = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'
