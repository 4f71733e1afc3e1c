from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.domain.objects import serving_cpu_limit_millicores
from tailwise.domain.parse import pod_from_object
from tailwise.domain.resources import QuantityError, millicores, parse_quantity, whole
from tests.unit.domain.builders import pod


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", Fraction(1, 10)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("2.", Fraction(2)),
        ("1Gi", Fraction(1024**3)),
        ("1e3", Fraction(1000)),
        ("1E3", Fraction(1000)),
        ("1E", Fraction(1000**6)),
        ("500u", Fraction(1, 2000)),
        ("1n", Fraction(1, 10**9)),
        ("0.1Ki", Fraction(1024, 10)),
        ("-3k", Fraction(-3000)),
        ("1e-3", Fraction(1, 1000)),
        ("9e99", Fraction(2**63 - 1)),
    ],
)
def test_a_quantity_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "1ki", "1.2.3", "0x10", "1e", "1e3m", "\u0661", "1" * 99])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(QuantityError, match="write a number like 500m"):
        parse_quantity(text)


def test_fractions_round_up_so_that_no_request_counts_for_less() -> None:
    assert millicores("500u") == 1
    assert millicores(0.25) == 250
    assert whole("1500m") == 2


@given(st.integers(0, 10**9))
def test_millicores_are_the_inverse_of_writing_them(number: int) -> None:
    assert millicores(f"{number}m") == millicores(f"{number * 1000}u") == number


def _request(**spec: object) -> int:
    return pod_from_object({"metadata": {"name": "p", "uid": "u"}, "spec": spec}).requests.get("cpu", 0)


def _container(cpu: str, *, sidecar: bool = False) -> dict[str, object]:
    restart = {"restartPolicy": "Always"} if sidecar else {}
    return {"name": f"c{cpu}", "resources": {"requests": {"cpu": cpu}}, **restart}


@pytest.mark.parametrize(
    ("spec", "millicores_requested"),
    [
        ({"containers": [_container("1"), _container("500m")]}, 1500),
        # An init container that is larger than all that runs later.
        ({"containers": [_container("1")], "initContainers": [_container("3")]}, 3000),
        # A sidecar runs beside the containers.
        ({"containers": [_container("1")], "initContainers": [_container("200m", sidecar=True)]}, 1200),
        # The sidecar before an init container runs beside it, the one after does not.
        (
            {
                "containers": [_container("1")],
                "initContainers": [
                    _container("200m", sidecar=True),
                    _container("2"),
                    _container("300m", sidecar=True),
                ],
            },
            2200,
        ),
        ({"containers": [_container("1")], "overhead": {"cpu": "250m"}}, 1250),
        ({"containers": [_container("1")], "resources": {"requests": {"cpu": "3"}}}, 3000),
        (
            {
                "containers": [_container("1")],
                "resources": {"requests": {"cpu": "3"}},
                "overhead": {"cpu": "1"},
            },
            4000,
        ),
    ],
)
def test_a_pod_requests_its_largest_moment(spec: dict[str, object], millicores_requested: int) -> None:
    assert _request(**spec) == millicores_requested


def test_a_pod_being_resized_counts_for_the_larger_of_old_and_new() -> None:
    found = pod_from_object(
        {
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [_container("1")]},
            "status": {"containerStatuses": [{"name": "c1", "allocatedResources": {"cpu": "2"}}]},
        }
    )
    assert found.requests["cpu"] == 2000


def test_the_server_is_throttled_by_its_own_limit_or_by_the_pods_whichever_is_less() -> None:
    assert serving_cpu_limit_millicores(pod(), None) is None
    assert serving_cpu_limit_millicores(pod(limits={"cpu": "2"}), None) == 2000
    assert (
        serving_cpu_limit_millicores(pod(limits={"cpu": "2"}, resources={"limits": {"cpu": "1"}}), "server")
        == 1000
    )
