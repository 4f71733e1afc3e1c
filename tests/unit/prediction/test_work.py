from __future__ import annotations

from typing import Any

import pytest

from tailwise.models.records import OperatorKind, OperatorRecord
from tailwise.models.work import work_terms


def record(op_type: str, kind: OperatorKind = OperatorKind.OTHER, **fields: Any) -> OperatorRecord:
    return OperatorRecord(name=op_type, op_type=op_type, domain="", kind=kind, **fields)


def convolution(groups: int, channels: int, outputs: int | None = None, **fields: Any) -> OperatorRecord:
    return record(
        "Conv",
        OperatorKind.CONVOLUTION,
        flops=1600,
        groups=groups,
        input_channels_per_group=channels,
        output_channels_per_group=outputs or channels,
        **fields,
    )


@pytest.mark.parametrize(
    ("conv", "term", "amount"),
    [
        (convolution(1, 32), "dense_flops", 1600),
        (convolution(1, 16, 24), "dense_flops", 1600 * 32 // 24),
        (convolution(32, 1), "depthwise_flops", 1600),
        (convolution(4, 32), "grouped_flops", 1600),
        (convolution(4, 24), "unblocked_grouped_flops", 1600),
        (convolution(8, 8), "narrow_grouped_flops", 1600),
        (convolution(32, 4), "thin_grouped_flops", 1600),
        (convolution(1, 32, transposed=True), "transposed_flops", 1600),
    ],
)
def test_a_convolution_counts_by_the_channels_of_its_groups(
    conv: OperatorRecord, term: str, amount: int
) -> None:
    terms = work_terms([conv])
    assert getattr(terms, term) == amount
    assert sum(v for k, v in terms.model_dump(by_alias=False).items() if k.endswith("_flops")) == amount


def test_what_the_runtime_folds_or_fuses_costs_nothing() -> None:
    terms = work_terms(
        [
            record("Relu", OperatorKind.ACTIVATION, output_elements=9, fused_into_previous=True),
            record("Shape", OperatorKind.DATA_MOVEMENT, output_elements=9, constant=True),
        ]
    )
    assert set(terms.model_dump().values()) == {0}


def test_a_gelu_written_out_counts_as_one_operator() -> None:
    written_out = [record(name, output_elements=10) for name in ("Div", "Erf", "Add", "Mul", "Mul")]
    terms = work_terms([*written_out, record("Add", output_elements=10)])
    assert (terms.operator_count, terms.transcendental_elements, terms.elementwise_elements) == (2, 10, 10)


def test_loops_count_as_often_as_they_run() -> None:
    assert work_terms([record("Add", output_elements=10, count=7)]).elementwise_elements == 70


def test_products_of_few_rows_are_bound_by_their_weights() -> None:
    vector = record("Gemm", OperatorKind.MATMUL, flops=80, weight_bytes=160, rows=1, columns=4, depth=10)
    matrix = record("Gemm", OperatorKind.MATMUL, flops=800, weight_bytes=160, rows=10, columns=4, depth=10)
    assert work_terms([vector]).matrix_vector_bytes == 160
    assert work_terms([vector]).matmul_flops == 0
    assert work_terms([matrix]).matmul_flops == 800
