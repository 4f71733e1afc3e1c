"""Every operator there is can be counted, or stands here with the reason why it cannot."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as onnxruntime_native
import pytest

from tailwise.models import contributed_shapes, control_flow, operators
from tailwise.models.binding import bind_inputs
from tailwise.models.interpretation import Interpreter, Scope
from tailwise.models.local_functions import inlined
from tailwise.models.tensors import Tensor, Value, normal_domain
from tests.unit.models.node_cases import NodeCase, node_cases, sequences_of, with_contents

# Operators of the default domain without a rule: they are named as unresolved where they occur.
NOT_COUNTED = {
    "ImageDecoder": "what a compressed picture costs to decode, and how large it is, stands in its bytes",
}

# Operators that have a rule, but whose result has no size before it is computed.
SIZED_BY_DATA = {
    "StringSplit": "how many words a text has stands in the text",
}

TRAINING = "only training runs it"
PREVIEW = "ONNX's own preview of an operator that no released operator set has"
OTHER_DOMAINS = {
    ("ai.onnx.preview", "FlexAttention"): PREVIEW,
    ("ai.onnx.preview.training", "Adagrad"): TRAINING,
    ("ai.onnx.preview.training", "Adam"): TRAINING,
    ("ai.onnx.preview.training", "Gradient"): TRAINING,
    ("ai.onnx.preview.training", "Momentum"): TRAINING,
}

_GENERATES = "generates a whole sequence: its length stands in the data"
_GPU = "only GPU kernels of ONNX Runtime have it; the files that nodes with CPUs serve do not"
_EXTERNAL = "a graph compiled for another device, opaque to everyone else"
_TEXT = "works on text, whose length stands in the data"
_TRAINS = "only training runs it"
_BLOCK_FORMAT = "a storage format of experimental hardware"
NOT_COUNTED_OF_RUNTIME = {
    **dict.fromkeys(("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"), _GENERATES),
    **dict.fromkeys(("NGramRepeatBlock", "SampleOp", "SpeculativePrefixCommit"), _GENERATES),
    **dict.fromkeys(("EPContext", "Snpe"), _EXTERNAL),
    **dict.fromkeys(("Tokenizer", "MurmurHash3", "WordConvEmbedding"), _TEXT),
    **dict.fromkeys(("NGramHashMapping", "VarlenNGramHashMapping"), _TEXT),
    **dict.fromkeys(("BifurcationDetector", "BitmaskBiasDropout", "BitmaskDropout", "IsAllFinite"), _TRAINS),
    **dict.fromkeys(("TorchEmbedding", "AttnLSTM"), "no converter writes it any more"),
    **dict.fromkeys(("QuantizeBFP", "DequantizeBFP"), _BLOCK_FORMAT),
    **dict.fromkeys(("QuantizeWithOrder", "DequantizeWithOrder"), _GPU),
    **dict.fromkeys(
        (
            "BranchwiseRMSNorm", "ConvStateReplay", "DecoderAttention",
            "DynamicSparseAttention", "DynamicTimeWarping", "EngramGate", "GatedAdd", "GatedDeltaNet",
            "GatedDeltaNetStateReplay", "GatedRelativePositionBias", "GatherPacked",
            "HyperConnectionLowRankMix", "HyperConnectionPostMix", "HyperConnectionPreMix",
            "LinearAttentionGate", "LongformerAttention", "MRotaryEmbedding", "Mamba2Verify",
            "MatMulBlockQuantizedFp4Weight", "MatMulBlockQuantizedFp8Weight", "MatMulNBitsQLoRA",
            "MatMulPacked", "MoEGroupRouter", "MoEPacked", "PackedMultiHeadAttention",
            "PackedSparseAttentionIndexer", "PackedSparseAttentionIndexerMerge", "PagedAttention",
            "QOrderedAttention", "QOrderedLongformerAttention", "RMSNormRotary", "RemovePadding",
            "RestorePadding", "RouterGateUpProj", "SparseAttentionIndexer", "SparsePagedAttention",
            "UnfoldTensor", "VarlenCausalConvWithState",
        ),
        _GPU,
    ),
}  # fmt: skip


def schemas() -> list[tuple[str, str]]:
    """Domain and type of all operators ONNX defines in any operator set, deprecated ones included."""
    every = onnx.defs.get_all_schemas_with_history()
    return sorted({(normal_domain(schema.domain), schema.name) for schema in every})


def explained(domain: str, op_type: str) -> bool:
    return (domain == "" and op_type in NOT_COUNTED) or (domain, op_type) in OTHER_DOMAINS


def counted(domain: str, op_type: str) -> bool:
    flow = domain == "" and op_type in control_flow.OPERATORS
    return flow or operators.rule_for(domain, op_type) is not None


@pytest.mark.parametrize(("domain", "op_type"), schemas())
def test_every_operator_of_onnx_is_counted_or_explained(domain: str, op_type: str) -> None:
    assert counted(domain, op_type) != explained(domain, op_type)


def test_every_contributed_operator_of_the_runtime_is_counted_or_explained() -> None:
    every = onnxruntime_native.get_all_operator_schema()
    names = {schema.name for schema in every if schema.domain == "com.microsoft"}
    with_a_rule = {name for name in names if counted("com.microsoft", name)}
    assert names - with_a_rule == set(NOT_COUNTED_OF_RUNTIME)
    assert {name for name in with_a_rule if not contributed_shapes.is_known(name)} == set()
    blocked = {schema.name for schema in every if schema.domain == "com.microsoft.nchwc"}
    assert {name for name in blocked if not counted("com.microsoft.nchwc", name)} == set()


def walked(case: NodeCase) -> tuple[Scope, list[str]]:
    """The scope after the case's model was walked, and the operators that were not counted."""
    model, shapes = with_contents(case)
    model = inlined(model)
    sets = {normal_domain(entry.domain): entry.version for entry in model.opset_import}
    fed: dict[str, Value] = {**bind_inputs(model.graph, shapes, None), **sequences_of(case)}
    scope = Scope(model.graph)
    tally = Interpreter(sets).run(scope, fed)
    return scope, [entry.operator for entry in tally.unresolved]


def differs(value: Value | None, expected: object) -> str:
    """How a value differs from what the operator's definition makes; empty when it does not."""
    if not isinstance(value, Tensor) or not isinstance(expected, (np.ndarray, np.generic)):
        return ""
    wanted = np.asarray(expected)
    if value.bounded and value.shape is not None:
        fits = len(value.shape) == wanted.ndim
        fits = fits and all(most >= size for most, size in zip(value.shape, wanted.shape, strict=True))
        return "" if fits else f"its shape is {wanted.shape}, which is over the bound {value.shape}"
    if value.shape != wanted.shape:
        return f"its shape is {wanted.shape}, found {value.shape}"
    if value.array is None or wanted.dtype.kind not in "iufb":
        return ""
    close = np.allclose(value.array.astype(np.float64), wanted.astype(np.float64), rtol=1e-3, equal_nan=True)
    return "" if close else "its content is another"


def test_onnxs_own_test_cases_are_counted_with_results_of_the_size_they_have() -> None:
    wrong = []
    seen: set[tuple[str, str]] = set()
    for case in node_cases():
        if any(explained(*operator) or operator[1] in SIZED_BY_DATA for operator in case.operators):
            continue
        scope, unresolved = walked(case)
        seen |= case.operators
        if unresolved:
            wrong.append(f"{case.name}: {unresolved[0]} is not counted")
        for info, expected in zip(case.model.graph.output, case.outputs, strict=False):
            difference = differs(scope.value(info.name), expected)
            if difference:
                wrong.append(f"{case.name}: {info.name}: {difference}")
    assert wrong == []
    assert len(seen) > 180, "the cases are those of nearly all operators"


@pytest.mark.parametrize("op_type", sorted({**NOT_COUNTED, **SIZED_BY_DATA}))
def test_what_cannot_be_counted_is_named(op_type: str) -> None:
    cases = [case for case in node_cases() if ("", op_type) in case.operators]
    assert cases
    assert any(op_type in walked(case)[1] for case in cases)
