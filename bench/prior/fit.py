"""Fits the prior's coefficients and validates them by leaving whole families of models out.

usage: python -m bench.prior.fit TABLE.json NODE.yaml [--write]

Non-negative least squares on relative errors, re-weighted so that a few odd models do not bend the rest.
``--write`` puts the terms, the reference speeds (NODE.yaml of the machine that was measured) and the
error quantiles into the product's ``coefficients.json``. Needs scipy, which the product does not.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import nnls

COEFFICIENTS = Path(__file__).parents[2] / "operator/tailwise/prediction/coefficients.json"

FAMILIES = (
    ("resnet", "resnet|resnext|wide_resnet|seresnet|fcn_resnet|resnest|open-nsfw"),
    ("mobilenet", "mobilenet|mnasnet|lraspp|deeplabv3_mobile"),
    ("efficientnet", "efficientnet|tf_efficientnet|rexnet|ghostnet"),
    ("vgg", "vgg|alexnet|repvgg"),
    ("bert", "bert|minilm|albert|roberta|distilbert"),
    ("vit", "vit_|deit|whisper|xcit"),
    ("mixer", "mixer|resmlp|gmlp"),
    ("hybrid", "swin|pvt|edgenext|mobilevit|efficientvit|levit|poolformer|fastvit"),
    ("shufflenet", "shuffle"),
    ("densenet", "densenet|dla|hrnet|vovnet|cspdark"),
    ("inception", "inception|googlenet"),
    ("regnet", "regnet"),
    ("lstm", "lstm"),
    ("gru", "gru"),
    ("silero", "silero"),
    ("detector", "detector|320n"),
    ("ocr", "ch_"),
    ("unet", "unet"),
    ("generator", "dcgan"),
    ("batched mlp", "mlp_1024|mlp_2048"),
    ("small mlp", "mlp_small"),
    ("mlp", "mlp"),
    ("depthwise", "depthwise"),
    ("narrow groups", r"grouped.*of_\d$"),
    ("wide groups", "grouped"),
    ("convnext", "convnext|convmixer"),
    ("large segmentation and detection", "retina|deeplabv3_resnet50"),
)

TERMS = {
    "dense_flops": "Compute", "matmul_flops": "Compute", "depthwise_flops": "Compute",
    "grouped_flops": "Compute", "unblocked_grouped_flops": "Compute", "narrow_grouped_flops": "Compute",
    "thin_grouped_flops": "Compute", "transposed_flops": "Compute", "recurrent_flops": "Compute",
    "quantised_flops": "Compute", "weight_bytes": "Memory", "convolution_bytes": "Memory",
    "product_bytes": "Memory", "elementwise_elements": "Memory", "transcendental_elements": "Compute",
    "normalised_elements": "Compute", "resized_elements": "Compute", "transposed_elements": "Memory",
    "copied_elements": "Memory", "pooling_operations": "Compute", "operator_count": "Overhead",
    "matrix_vector_bytes": "Memory", "cached_matrix_vector_bytes": "Memory",
}  # fmt: skip

QUANTISED_SHARE_OF_MATMUL = 0.4
"""8-bit products against float32 ones where no quantised model was measured."""

Array = NDArray[np.float64]


def family(name: str) -> str:
    """The family a model is left out with; a model of no family is one of its own."""
    return next((label for label, pattern in FAMILIES if re.match(pattern, name)), name)


def design(rows: list[dict[str, Any]], l3_bytes: int) -> Array:
    """Amounts of every term: shape (models, terms)."""
    matrix = np.zeros((len(rows), len(TERMS)))
    for index, entry in enumerate(rows):
        work = dict(entry["work"])
        # As in prediction.prior: weights that stay in the last cache from query to query are read faster.
        if entry["parameterBytes"] < 0.75 * l3_bytes:
            work["cached_matrix_vector_bytes"] = work.pop("matrix_vector_bytes", 0)
        matrix[index] = [work.get(term, 0) for term in TERMS]
    return matrix


def fit(amounts: Array, nanoseconds: Array) -> Array:
    """Costs a unit in nanoseconds, none negative; shape (terms,)."""
    weights = np.ones(len(nanoseconds))
    costs = np.zeros(amounts.shape[1])
    for _ in range(8):
        relative = amounts / nanoseconds[:, None] * weights[:, None]
        scale = np.maximum(relative.max(axis=0), 1e-30)
        costs = nnls(relative / scale, weights)[0] / scale
        weights = 1 / np.sqrt(np.maximum(np.abs(amounts @ costs / nanoseconds - 1), 0.05))
    return costs


def left_out(amounts: Array, nanoseconds: Array, families: list[str]) -> Array:
    """Predictions of each model by costs fitted without its family."""
    predicted = np.empty_like(nanoseconds)
    for label in sorted(set(families)):
        out = np.array([name == label for name in families])
        predicted[out] = amounts[out] @ fit(amounts[~out], nanoseconds[~out])
    return predicted


def main(arguments: list[str]) -> int:
    """Print the errors in and out of sample, the worst models and the costs; write them when asked."""
    rows = json.loads(Path(arguments[0]).read_text())
    node = yaml.safe_load(Path(arguments[1]).read_text())
    families = [family(entry["name"]) for entry in rows]
    nanoseconds = np.array([entry["cpuMilliseconds"] * 1e6 for entry in rows])
    amounts = design(rows, node.get("l3CacheBytes", 0))
    costs = fit(amounts, nanoseconds)
    inside = amounts @ costs / nanoseconds - 1
    outside = left_out(amounts, nanoseconds, families) / nanoseconds - 1
    for index in np.argsort(-np.abs(outside)):
        print(
            f"{rows[index]['name']:32s} {families[index]:20s} {nanoseconds[index] / 1e6:10.3f} ms"
            f"  fitted {inside[index]:+.1%}  left out {outside[index]:+.1%}"
        )
    for term, cost in zip(TERMS, costs, strict=True):
        print(f"{term:32s} {cost:.5g} ns")
    for label, errors in (("fitted", np.abs(inside)), ("family left out", np.abs(outside))):
        print(
            f"{label}: {len(rows)} models, {len(set(families))} families, "
            f"median {np.median(errors):.1%}, mean {errors.mean():.1%}, "
            f"90 % below {np.quantile(errors, 0.9):.1%}"
        )
    if "--write" in arguments:
        _write(costs, node, outside, np.abs(inside), len(set(families)))
    return 0


def _write(costs: Array, node: dict[str, Any], outside: Array, inside: Array, families: int) -> None:
    document = json.loads(COEFFICIENTS.read_text())
    known = dict(zip(TERMS, costs, strict=True))
    if not known["quantised_flops"]:
        known["quantised_flops"] = QUANTISED_SHARE_OF_MATMUL * known["matmul_flops"]
    measured = node["measured"]
    document["reference"] = {
        "runtimeGflopsPerCore": measured["runtimeGflopsPerCore"],
        "copyGigabytesPerSecondPerCore": measured["copyGigabytesPerSecondPerCore"],
        "operatorOverheadNanoseconds": measured["operatorOverheadNanoseconds"],
    }
    document["terms"] = {
        term: {"nanosecondsPerUnit": float(f"{known[term]:.5g}"), "scale": scale}
        for term, scale in TERMS.items()
        if known[term]
    }
    # measured / predicted, one-sided: nine in ten models of families never seen are below.
    factor = float(np.quantile(1 / (1 + outside), 0.9))
    document["errors"]["cpuTimeFactor"] = round(factor, 3)
    document["provenance"] = (
        f"CPU time of {len(outside)} models in {families} families, ONNX Runtime, one thread, on "
        f"{node['cpuModel']}; fitted: median error {np.median(inside):.1%}; family left out: median "
        f"{np.median(np.abs(outside)):.1%}, mean {np.abs(outside).mean():.1%}. Repeat with: "
        "python -m bench.prior.fit bench/prior/measured.json NODE.yaml"
    )
    COEFFICIENTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
