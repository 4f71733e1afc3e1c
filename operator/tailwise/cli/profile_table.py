"""A model's profile for people: sums, a bar for each kind of operator, the heaviest operators.

Names of nodes come from an untrusted file: they are shown without markup and without control characters.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tailwise.api.profile import KindCost, ModelProfile

_BAR_WIDTH = 16
_MOST_UNRESOLVED = 20
_LEAST_NAME = 16
_FIGURES_WIDTH = 51
"""Columns beside names and types: FLOPs, share, weights, activations, and what stands between."""
_EIGHTHS = "".join(chr(0x2590 - eighths) for eighths in range(1, 9))
"""Blocks of one to eight eighths of a sign's width."""


def print_profile(model: str, profile: ModelProfile, console: Console | None = None) -> None:
    """Print it to standard output, as wide as the terminal is."""
    console = console or Console(highlight=False)
    blocks = console.encoding.startswith("utf")
    console.print(rendered(model, profile, width=console.width, blocks=blocks))


def rendered(model: str, profile: ModelProfile, *, width: int, blocks: bool) -> RenderableType:
    """The whole report, ``width`` signs wide; bars of ``blocks``, or of signs that every terminal has."""
    parts: list[RenderableType] = [plain(model, style="bold"), _summary(profile), _kinds(profile, blocks)]
    if profile.heaviest:
        parts.append(_heaviest(profile, width))
    if profile.conditionals:
        parts.append(_conditionals(profile))
    if profile.unresolved:
        parts.append(_unresolved(profile))
    return Group(*(Padding(part, (0, 0, 1, 2 * (index > 0))) for index, part in enumerate(parts)))


def plain(word: str, style: str = "") -> Text:
    """Text of unknown origin: no markup, and nothing that a terminal would obey."""
    return Text(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in word), style
    )


def _summary(profile: ModelProfile) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan")
    grid.add_column()
    read = f"{profile.bytes_read:,} of {profile.file_bytes:,} bytes" if profile.file_bytes else "nothing"
    rows = (
        ("FLOPs", f"{figure(profile.flops)}FLOP  ({profile.flops:,}) at batch size {profile.batch_size}"),
        ("Products", f"{figure(profile.multiply_accumulates)}MAC  ({profile.multiply_accumulates:,})"),
        (
            "Parameters",
            f"{figure(profile.parameters)}  ({profile.parameters:,}), {profile.precision}, "
            f"{size(profile.parameter_bytes)}",
        ),
        (
            "Memory traffic",
            f"{size(profile.moved_weight_bytes)} of weights, {size(profile.moved_activation_bytes)} of "
            f"activations: {profile.arithmetic_intensity:.1f} FLOP a byte before fusion",
        ),
        ("Activations", f"{size(profile.activation_bytes)} of results"),
        (
            "Graph",
            f"{sum(profile.operators.values())} operators, depth {profile.depth}, opset {profile.opset}",
        ),
        ("Operators", _most_common(profile.operators.items())),
        ("Read", read),
    )
    for name, value in rows:
        grid.add_row(name, plain(value))
    return grid


def _most_common(counts: Iterable[tuple[str, int]]) -> str:
    named = [f"{name} {count}" for name, count in counts]
    return ", ".join(named[:10]) + (f", and {len(named) - 10} other types" if len(named) > 10 else "")


def _kinds(profile: ModelProfile, blocks: bool) -> Table:
    """A row and a bar for each kind that occurs, and for those of flopsByKind that do not."""
    table = _table("Kind", "Operators", "FLOPs", "Share", "", "Moved")
    names = [*type(profile.flops_by_kind).model_fields, "dataMovement"]
    by_kind = profile.flops_by_kind.model_dump(by_alias=True)
    for name in names:
        cost = profile.kinds.get(name, KindCost(flops=by_kind.get(name, 0)))
        flops = by_kind.get(name, cost.flops)
        if not cost.operators and not flops:
            continue
        part = flops / profile.flops if profile.flops else 0.0
        table.add_row(
            _words(name),
            f"{cost.operators:,}",
            figure(flops),
            f"{part:.1%}",
            Text(bar(part, blocks=blocks), style="cyan"),
            size(cost.weight_bytes + cost.activation_bytes),
        )
    return table


def bar(part: float, *, blocks: bool) -> str:
    """A bar as long as its part of the whole; nothing only where the part is nothing."""
    if not blocks:
        return "#" * round(part * _BAR_WIDTH)
    eighths = max(round(part * _BAR_WIDTH * 8), int(part > 0))
    return _EIGHTHS[-1] * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")


def _heaviest(profile: ModelProfile, width: int) -> Table:
    table = _table("Heaviest operators", "Type", "FLOPs", "Share", "Weights", "Activations")
    types = max(len(cost.operator) for cost in profile.heaviest)
    at_most = "at most " if any(cost.upper_bound for cost in profile.heaviest) else ""
    room = max(_LEAST_NAME, width - types - len(at_most) - _FIGURES_WIDTH)
    for cost in profile.heaviest:
        part = cost.flops / profile.flops if profile.flops else 0.0
        times = f" x{cost.executions}" if cost.executions != 1 else ""
        table.add_row(
            plain(_end(cost.node + times, room)),
            plain(cost.operator),
            ("at most " if cost.upper_bound else "") + figure(cost.flops),
            f"{part:.1%}",
            size(cost.weight_bytes),
            size(cost.activation_bytes),
        )
    return table


def _end(name: str, room: int) -> str:
    """The end of a name too long for its room: what stands before is the same for many."""
    return name if len(name) <= room else "\N{HORIZONTAL ELLIPSIS}" + name[1 - room :]


def _conditionals(profile: ModelProfile) -> Table:
    table = _table("Branches that depend on the data", "Then", "Else", "Counted")
    for each in profile.conditionals:
        table.add_row(plain(each.node), figure(each.then_flops), figure(each.else_flops), each.counted)
    return table


def _unresolved(profile: ModelProfile) -> Table:
    title = f"Not counted: {profile.unresolved_count} ({profile.counted_percent} % of the operators are)"
    table = Table(title, "Type", "Why", box=None, padding=(0, 2, 0, 0), header_style="yellow")
    for entry in profile.unresolved[:_MOST_UNRESOLVED]:
        table.add_row(plain(entry.node), plain(entry.operator), plain(entry.reason))
    return table


def _table(first: str, *others: str) -> Table:
    """Columns of figures to the right of one of names, which may be cut where the terminal is narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    for other in others:
        words = other in ("Type", "Counted", "")
        table.add_column(other, justify="left" if words else "right", no_wrap=True)
    return table


def _words(name: str) -> str:
    """dataMovement as "data movement"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def figure(value: int) -> str:
    """A number with three decimals and the letter of its magnitude."""
    for letter, factor in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= factor:
            return f"{value / factor:.3f} {letter}"
    return f"{value} "


def size(count: int) -> str:
    """Bytes in the unit that leaves one to four digits before the point."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"
