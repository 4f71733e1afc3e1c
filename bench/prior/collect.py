"""Joins measured CPU times with the models' work terms: the table the prior is fitted on.

usage: python -m bench.prior.collect CPU.json [CPU.json ...] OUT.json MODEL.onnx [MODEL.onnx ...]

CPU.json is what ``bench.prior.measure`` wrote. The table holds no model, so the fit can be repeated
without them.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from bench.prior.inputs import SHAPES
from tailwise.models.graph import read_skeleton
from tailwise.models.profile import build_profile
from tailwise.models.sources import FileSource


def row(path: Path) -> dict[str, Any]:
    """A model's name, parameter bytes and work terms at the shapes it is measured with."""
    skeleton = read_skeleton(FileSource(path))
    profile = build_profile(skeleton, SHAPES.get(path.stem, {}))
    return {
        "name": path.stem,
        "flops": profile.flops,
        "parameterBytes": profile.parameter_bytes,
        "work": {k: v for k, v in profile.work.model_dump(by_alias=False).items() if v},
    }


def main(arguments: list[str]) -> int:
    """Write the table; a model that cannot be counted is named and left out."""
    files = [Path(a) for a in arguments]
    models = [f for f in files if f.suffix == ".onnx"]
    *measured, out = [f for f in files if f.suffix == ".json"]
    times: dict[str, Any] = {}
    for path in measured:
        times |= json.loads(path.read_text())
    rows = []
    with ProcessPoolExecutor(2) as pool:
        futures = {path: pool.submit(row, path) for path in models if path.stem in times}
        for path, future in futures.items():
            try:
                rows.append(future.result() | {"cpuMilliseconds": round(times[path.stem]["median"], 5)})
                print(path.stem, flush=True)
            except Exception as error:
                print(f"{path.stem}: left out: {error}", file=sys.stderr)
    rows.sort(key=lambda entry: entry["name"])
    out.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in rows) + "\n]\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
