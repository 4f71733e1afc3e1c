"""The CRDs made from the models are what Kubernetes and its users expect."""

import pytest

from tailwise.api.conditions import ConditionType, EventReason, Reason
from tailwise.api.crd import KINDS, custom_resource_definition, object_schema, structural, walk
from tailwise.api.schema import MAX_RULE_MESSAGE, Kind, Schema

EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def parts(kind: Kind) -> dict[str, Schema]:
    """Every part of spec and status by its path."""
    return {path: part for path, part in walk(object_schema(kind)) if path.startswith((".spec", ".status"))}


@EVERY_KIND
def test_every_field_is_described(kind: Kind) -> None:
    fields = [
        f"{path}.{name}"
        for path, part in parts(kind).items()
        for name, field in part.get("properties", {}).items()
        if len(field.get("description", "").split()) < 2
    ]
    assert fields == []


@EVERY_KIND
def test_every_string_list_and_map_is_bounded_and_nothing_is_a_float(kind: Kind) -> None:
    def is_bounded(part: Schema) -> bool:
        if part["type"] == "string":
            return "maxLength" in part or "enum" in part or part.get("format") == "date-time"
        if part["type"] == "array":
            return "maxItems" in part and "x-kubernetes-list-type" in part
        return part["type"] != "number" and ("additionalProperties" not in part or "maxProperties" in part)

    assert [path for path, part in parts(kind).items() if not is_bounded(part)] == []


@EVERY_KIND
def test_every_rule_tells_the_way_out_in_one_line(kind: Kind) -> None:
    messages = [
        rule["message"] for part in parts(kind).values() for rule in part.get("x-kubernetes-validations", ())
    ]
    assert messages
    assert [m for m in messages if "\n" in m or len(m) > MAX_RULE_MESSAGE or len(m.split()) < 6] == []


@EVERY_KIND
def test_status_holds_no_defaults(kind: Kind) -> None:
    assert [p for p, part in parts(kind).items() if p.startswith(".status") and "default" in part] == []


@EVERY_KIND
def test_columns_point_at_fields_of_the_schema(kind: Kind) -> None:
    paths = {path for path, _ in walk(object_schema(kind))}
    for column in kind.columns:
        plain = column.path.split("[?")[0]
        assert plain in paths or plain == ".metadata.creationTimestamp", column.name


def test_columns_are_those_of_the_design() -> None:
    shown = {
        kind.name: [column.name.upper() for column in kind.columns if not column.priority] for kind in KINDS
    }
    assert shown == {
        "InferenceWorkload": [
            "READY", "REPLICAS", "PLACED", "SLO(MS)", "PREDICTED(MS)", "OBSERVED(MS)", "AGE",
        ],
        "LatencyModel": ["READY", "ALGORITHM", "RMSE", "COVERAGE", "SAMPLES", "TRAINED", "AGE"],
    }  # fmt: skip


def test_names_are_short_and_in_one_category() -> None:
    names = [custom_resource_definition(kind)["spec"]["names"] for kind in KINDS]
    assert [name["shortNames"] for name in names] == [["iw"], ["lm"]]
    assert all(name["categories"] == ["tailwise"] for name in names)


def test_a_field_of_two_types_is_no_structural_schema() -> None:
    with pytest.raises(ValueError, match="one type"):
        structural({"anyOf": [{"type": "integer"}, {"type": "string"}]}, {}, defaults=True)


@pytest.mark.parametrize("reason", [*Reason, *EventReason])
def test_reasons_are_words_that_metav1_condition_admits(reason: str) -> None:
    assert reason.isalnum()
    assert reason[0].isupper()


def test_condition_types_are_unique_words() -> None:
    assert len({type_.value for type_ in ConditionType}) == len(ConditionType)
