"""The examples are accepted as they stand, and use nothing that has no behaviour yet."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.latency_model import LatencyModel
from tailwise.api.not_implemented import unimplemented_fields
from tests.cluster import api as cluster_api
from tests.cluster.controlplane import ControlPlane

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

OBJECTS = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}-{document['metadata']['name']}")
    for path in EXAMPLES
    for document in yaml.safe_load_all(path.read_text())
]


@pytest.mark.parametrize("document", OBJECTS)
def test_an_example_is_accepted_to_the_last_field(
    control_plane: ControlPlane, document: dict[str, Any]
) -> None:
    server = cluster_api.connect(control_plane)
    path = f"{server.path(document)}?fieldManager=test&force=true&fieldValidation=Strict&dryRun=All"
    answer = server.request("PATCH", path, document, "application/apply-patch+yaml")
    if document["kind"] == "InferenceWorkload":
        assert unimplemented_fields(InferenceWorkload.model_validate(answer).spec) == []
    if document["kind"] == "LatencyModel":
        assert unimplemented_fields(LatencyModel.model_validate(answer).spec) == []
