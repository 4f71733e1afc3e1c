"""Writes docs/prior.md: how the prior works, with every coefficient as it ships.

    python -m bench.prior.page [--out docs/prior.md]

Figures come from coefficients.json; the page is the same each time it is made of the same file, and a test
compares the two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tailwise.api.profile import WorkTerms
from tailwise.prediction.coefficients import Coefficients, Scale, TermCost, coefficients
from tailwise.prediction.neighbours import BURST_MILLISECONDS
from tailwise.prediction.prior import BETWEEN, COLD, TICK_MILLISECONDS

OUT = Path("docs/prior.md")

_UNITS: Mapping[Scale, str] = {
    Scale.COMPUTE: "FLOPs of the probe's convolution",
    Scale.MEMORY: "bytes of the probe's copy",
    Scale.OVERHEAD: "small operators of the probe",
}


def main(arguments: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.prior.page", description="Write docs/prior.md.")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    options.out.write_text(page(), encoding="utf-8")
    print(f"written to {options.out}")
    return 0


def page() -> str:
    """The page in Markdown."""
    known = coefficients()
    text = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    made = {
        "terms": _terms(known),
        "reference": _reference(known),
        "provenance": _provenance(),
        "other": _other(known),
        "burst": f"{BURST_MILLISECONDS:g}",
        "tick": f"{TICK_MILLISECONDS:g}",
        "cold": f"{COLD:.0%}",
        "between": f"{BETWEEN:g}",
    }
    for name, part in made.items():
        text = text.replace(f"@{name}@", part)
    return text


def ratio(cost: TermCost, known: Coefficients) -> float:
    """A term's cost in units of what the probe measures: a number that carries to other machines."""
    reference = known.reference
    return (
        cost.nanoseconds_per_unit
        * {
            Scale.COMPUTE: reference.runtime_gflops_per_core,
            Scale.MEMORY: reference.copy_gigabytes_per_second_per_core,
            Scale.OVERHEAD: 1 / reference.operator_overhead_nanoseconds,
        }[cost.scale]
    )


def _terms(known: Coefficients) -> str:
    told = {name: field.description or "" for name, field in WorkTerms.model_fields.items()}
    told["cached_matrix_vector_bytes"] = "The same bytes where the model stays in the last-level cache."
    lines = ["| term | what is counted | costs as much as | ns on the reference |", "|---|---|---|---|"]
    for name, cost in known.terms.items():
        lines.append(
            f"| `{name}` | {told[name]} | {ratio(cost, known):.3g} {_UNITS[cost.scale]} "
            f"| {cost.nanoseconds_per_unit:.5g} |"
        )
    return "\n".join(lines)


def _reference(known: Coefficients) -> str:
    reference = known.reference
    return "\n".join(
        (
            "| speed | by the probe of the agent | on the reference |",
            "|---|---|---|",
            "| Compute | `runtimeGflopsPerCore`: convolution-like work in the runtime itself, one core | "
            f"{reference.runtime_gflops_per_core:g} GFLOP/s |",
            "| Memory | `copyGigabytesPerSecondPerCore`: memory copied by one core | "
            f"{reference.copy_gigabytes_per_second_per_core:g} GB/s |",
            "| Overhead | `operatorOverheadNanoseconds`: one small operator in the runtime | "
            f"{reference.operator_overhead_nanoseconds:g} ns |",
        )
    )


def _document() -> Mapping[str, Any]:
    text = resources.files("tailwise.prediction").joinpath("coefficients.json").read_text(encoding="utf-8")
    document: Mapping[str, Any] = json.loads(text)
    return document


def _provenance() -> str:
    return str(_document()["provenance"])


def _other(known: Coefficients) -> str:
    document = _document()
    threads, errors = known.threads, known.errors
    synchronisation = threads.synchronisation_nanoseconds_per_operator
    lines = [
        "| figure | value | source |",
        "|---|---|---|",
        f"| share of Compute that threads divide | {threads.compute_parallel_share:g} "
        f"| {document['threads']['provenance']} |",
        f"| share of Memory that threads divide | {threads.memory_parallel_share:g} | the same |",
        f"| fork and join of an operator | {synchronisation:g} ns, scaled as Overhead | the same |",
        f"| spread of a query's CPU time (sigma of its logarithm) | {known.query_sigma:g} "
        f"| {document['noise']['provenance']} |",
        f"| bound: CPU time of an unseen model | x {errors.cpu_time_factor:g} "
        f"| {document['errors']['provenance']} |",
        f"| bound: one run against many | x {errors.run_factor:g} | the same |",
        f"| unknown load taken as | {errors.unknown_load_utilisation:.0%}, bound x "
        f"{errors.unknown_load_factor:g} | chosen |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
