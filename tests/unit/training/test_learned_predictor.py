"""What the operator does with a version: loads it checked, answers by it, or says why the prior answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.prediction.artefact import ArtefactError, Refusal, load, load_directory
from tailwise.prediction.learned import LearnedPredictor
from tailwise.prediction.manifest import MANIFEST_FILE, MODEL_FILE, digest
from tailwise.prediction.prediction import Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.prediction.prior import UTILISATION_GRID
from tailwise.training.run import Trained
from tests.unit.prediction.builders import profile
from tests.unit.training.builders import FAMILIES, NODES, question

FAST, SLOW = NODES
CONV = FAMILIES["conv"][0]
ALIEN = profile(recurrent_flops=10**11, copied_elements=10**9, operator_count=100_000)


@pytest.fixture(scope="module")
def predictor(trained: Trained) -> LearnedPredictor:
    return LearnedPredictor(load(trained.files, "version 3", trained.digest), 3)


def test_a_known_model_on_a_known_node_gets_what_was_learned(predictor: LearnedPredictor) -> None:
    prior = PriorPredictor()
    for hardware, bias in ((FAST, 1.0), (SLOW, 1.3)):
        learned = predictor.predict(question(CONV, hardware, 0.3))
        assert learned.source is PredictionSource.LEARNED
        assert learned.p90_milliseconds == pytest.approx(
            bias * prior.predict(question(CONV, hardware, 0.3)).p90_milliseconds, rel=0.08
        )
        assert learned.bound_milliseconds >= learned.p90_milliseconds
        assert learned.bound_milliseconds < 1.3 * learned.p90_milliseconds


def test_of_other_percentiles_than_the_p90_the_prior_tells(predictor: LearnedPredictor) -> None:
    asked = question(CONV, FAST, 0.3)
    asked = replace(asked, serving=replace(asked.serving, bound_percentile=99))
    learned, prior = predictor.predict(asked), PriorPredictor().predict(asked)
    assert learned.source is PredictionSource.PRIOR
    assert learned.bound_milliseconds == pytest.approx(prior.bound_milliseconds, rel=0.01)


def test_a_model_unlike_anything_seen_gets_the_priors_answer_and_says_so(predictor: LearnedPredictor) -> None:
    learned = predictor.predict(question(ALIEN, FAST))
    prior = PriorPredictor().predict(question(ALIEN, FAST))
    assert learned.source is PredictionSource.OUT_OF_DISTRIBUTION
    assert learned.p90_milliseconds == pytest.approx(prior.p90_milliseconds)
    assert learned.bound_milliseconds == pytest.approx(prior.bound_milliseconds)


def test_an_unseen_model_of_a_familiar_kind_is_bounded_more_widely(predictor: LearnedPredictor) -> None:
    new = profile(dense_flops=401 * 10**6, operator_count=60)
    learned, known = (predictor.predict(question(each, FAST)) for each in (new, CONV))
    assert learned.source is PredictionSource.LEARNED
    assert (
        learned.bound_milliseconds / learned.p90_milliseconds
        > known.bound_milliseconds / known.p90_milliseconds
    )


def test_an_unknown_load_is_stale_and_bounded_more_widely(predictor: LearnedPredictor) -> None:
    unknown = predictor.predict(question(CONV, FAST, None))
    assert unknown.source is PredictionSource.STALE
    assert unknown.bound_milliseconds > predictor.predict(question(CONV, FAST, 0.3)).bound_milliseconds


@pytest.mark.parametrize("serving", [Serving(None), Serving(500), Serving(1000)])
def test_more_load_is_never_faster(predictor: LearnedPredictor, serving: Serving) -> None:
    for family in FAMILIES.values():
        for model in family:
            for hardware in NODES:
                table = predictor.table(model, serving, hardware)
                assert table.version == 3
                for values in (table.p50, table.p90, table.bound):
                    assert values.shape == UTILISATION_GRID.shape
                    assert (np.diff(values) >= 0).all()
                assert (table.bound >= table.p90).all()


def test_one_question_is_answered_as_its_table_does(predictor: LearnedPredictor) -> None:
    table = predictor.table(CONV, Serving(None), SLOW)
    answer = predictor.predict(question(CONV, SLOW, 0.4))
    assert (answer.p50_milliseconds, answer.p90_milliseconds, answer.bound_milliseconds) == table.at(0.4)


def test_beyond_the_loads_that_were_seen_the_prior_carries_on(predictor: LearnedPredictor) -> None:
    learned = predictor.table(CONV, Serving(None), FAST)
    prior = PriorPredictor().table(CONV, Serving(None), FAST)
    beyond = UTILISATION_GRID > 1
    ratio = learned.p90[beyond] / prior.p90[beyond]
    assert ratio == pytest.approx(np.full(beyond.sum(), ratio[0]))


def test_a_version_is_read_back_from_the_directory_it_was_written_to(
    trained: Trained, tmp_path: Path
) -> None:
    for name, data in trained.files.items():
        (tmp_path / name).write_bytes(data)
    assert load_directory(tmp_path, trained.digest).manifest == trained.manifest


def _changed(files: dict[str, bytes], **fields: object) -> dict[str, bytes]:
    document = json.loads(files[MANIFEST_FILE]) | fields
    return {**files, MANIFEST_FILE: json.dumps(document).encode()}


def _another_graph(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    model.graph.initializer[0].float_data.append(0.0)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL_FILE])
def test_an_artefact_with_a_file_missing_is_refused(trained: Trained, name: str) -> None:
    files = {key: value for key, value in trained.files.items() if key != name}
    with pytest.raises(ArtefactError, match=f"v1: {name} is missing; train a new version") as error:
        load(files, "v1")
    assert error.value.refusal is Refusal.MISSING


def test_a_changed_graph_is_refused(trained: Trained) -> None:
    files = {**trained.files, MODEL_FILE: _another_graph(trained.files[MODEL_FILE])}
    with pytest.raises(ArtefactError, match=r"v1: model\.onnx has digest .*, the manifest says") as error:
        load(files, "v1", trained.digest)
    assert error.value.refusal is Refusal.TAMPERED


def test_a_changed_manifest_is_refused(trained: Trained) -> None:
    files = _changed(dict(trained.files), modelDigest="sha256:0")
    with pytest.raises(ArtefactError, match="was noted when it was made") as error:
        load(files, "v1", trained.digest)
    assert error.value.refusal is Refusal.TAMPERED


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"formatVersion": 2}, "its format is 2, this operator reads 1"),
        ({"features": ["a"]}, "its features are not those of this operator"),
        ({"priorDigest": "sha256:0"}, "it corrects another prior"),
        ({"algorithm": "GuessWork"}, "algorithm"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_an_artefact_of_another_version_is_refused(
    trained: Trained, fields: dict[str, object], told: str
) -> None:
    with pytest.raises(ArtefactError, match=told) as error:
        load(_changed(dict(trained.files), **fields), "v1")
    assert error.value.refusal is Refusal.FOREIGN
    assert "train a new version" in str(error.value)


def test_a_graph_that_is_no_tailwise_version_is_refused(trained: Trained) -> None:
    for data in (b"", b"no graph", trained.files[MODEL_FILE][:1000]):
        files = _changed(dict(trained.files), modelDigest=digest(data)) | {MODEL_FILE: data}
        with pytest.raises(ArtefactError, match="ONNX Runtime cannot open") as error:
            load(files, "v1")
        assert error.value.refusal is Refusal.FOREIGN
