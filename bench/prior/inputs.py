"""Inputs for one query of an ONNX model: its declared shapes, dynamic axes bound, seeded values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}

# Axes that files leave open, by file and input: what the model is usually asked for.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "320n": {"images": (1, 3, 320, 320)},
    "ch_PP-OCRv4_det_infer": {"x": (1, 3, 480, 640)},
    "ch_PP-OCRv4_rec_infer": {"x": (1, 3, 48, 320)},
    "ch_ppocr_mobile_v2.0_cls_infer": {"x": (1, 3, 48, 192)},
    "magika": {"bytes": (1, 2048)},
    "minilm_int8": dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, 128)),
    "silero_vad": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_16k_op15": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_half": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_op18_ifless": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_16k_sequence": {"input": (16, 576), "h": (1, 1, 128), "c": (1, 1, 128)},
}


def input_shapes(session: Any, path: Path, batch_size: int = 1) -> dict[str, tuple[int, ...]]:
    """The shape of every input: the file's own, else this module's table, else 1 (batch size first)."""
    known = SHAPES.get(path.stem, {})
    shapes = {}
    for declared in session.get_inputs():
        axes = known.get(declared.name) or tuple(
            axis if isinstance(axis, int) and axis > 0 else (batch_size if index == 0 else 1)
            for index, axis in enumerate(declared.shape)
        )
        shapes[declared.name] = axes
    return shapes


def random_inputs(session: Any, path: Path, batch_size: int = 1) -> dict[str, Any]:
    """One query: normal floats, small positive integers, true booleans."""
    rng = np.random.default_rng(0)
    shapes = input_shapes(session, path, batch_size)
    made: dict[str, Any] = {}
    for declared in session.get_inputs():
        kind = TYPES[declared.type]
        shape = shapes[declared.name]
        if declared.name == "sr":
            made[declared.name] = np.array(16000, kind)
        elif np.issubdtype(kind, np.floating):
            made[declared.name] = rng.standard_normal(shape).astype(kind)
        else:
            made[declared.name] = rng.integers(1, 2, shape).astype(kind)
    return made
