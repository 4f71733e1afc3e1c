"""Versions below a URL, on each store and on a volume. The version is trained on SYNTHETIC rows."""

import urllib.request
from pathlib import Path

import pytest

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.prediction.artefact import ArtefactError, Refusal
from tailwise.prediction.artefact_urls import delete_version, read_version, version_url, write_version
from tailwise.prediction.learned import LearnedPredictor
from tailwise.prediction.manifest import MODEL_FILE
from tailwise.training.run import Trained, train
from tests.unit.training.builders import FAMILIES, NODES, question, synthetic
from tests.unit.training.conftest import small_spec

# Google's emulator takes no uploads of the kind that the library makes, so there a version is only read.
PREFIXES = {"s3": "s3://models/tailwise/", "azure": "az://models/tailwise"}


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(synthetic(rows=200), small_spec())


@pytest.fixture(scope="module")
def other() -> Trained:
    return train(synthetic(rows=200, seed=1), small_spec())


@pytest.fixture(params=["file", *PREFIXES])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a version that no other test writes, in a process that may write there."""
    if request.param == "file":
        return version_url(tmp_path.as_uri(), "default", 1)
    _may_use(request.getfixturevalue(request.param), monkeypatch)
    return version_url(PREFIXES[request.param], tmp_path.name, 1)


def _may_use(secret: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in secret.items():
        monkeypatch.setenv(name, value)


def test_a_version_serves_as_it_was_trained_and_is_gone_once_deleted(url: str, trained: Trained) -> None:
    for _ in range(2):  # a writer that was killed begins again
        write_version(url, trained.files)
    artefact = read_version(url, trained.digest)
    assert artefact.manifest == trained.manifest
    answer = LearnedPredictor(artefact, 1).predict(question(FAMILIES["conv"][0], NODES[0], 0.3))
    assert answer.source is PredictionSource.LEARNED
    for _ in range(2):
        delete_version(url)
    with pytest.raises(ArtefactError) as error:
        read_version(url, trained.digest)
    assert error.value.refusal is Refusal.MISSING
    assert url in str(error.value)


def test_another_version_is_neither_written_over_nor_run(url: str, trained: Trained, other: Trained) -> None:
    write_version(url, trained.files)
    with pytest.raises(ArtefactError, match="is not written over; delete it") as error:
        write_version(url, other.files)
    assert error.value.refusal is Refusal.FOREIGN
    with pytest.raises(ArtefactError) as error:
        read_version(url, other.digest)
    assert error.value.refusal is Refusal.TAMPERED


def test_a_writer_that_was_killed_leaves_no_version(url: str, trained: Trained) -> None:
    with pytest.raises(KeyError):
        write_version(url, {MODEL_FILE: trained.files[MODEL_FILE]})
    with pytest.raises(ArtefactError) as error:
        read_version(url, trained.digest)
    assert error.value.refusal is Refusal.MISSING
    write_version(url, trained.files)
    assert read_version(url, trained.digest).digest == trained.digest


def test_a_version_in_google_cloud_storage_is_read(
    gcs: dict[str, str], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    _may_use(gcs, monkeypatch)
    for name, content in trained.files.items():
        place = f"uploadType=media&name=tailwise/default/v1/{name}"
        upload = f"{gcs['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/models/o?{place}"
        request = urllib.request.Request(upload, data=content, method="POST")  # noqa: S310
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
    url = version_url("gs://models/tailwise", "default", 1)
    assert read_version(url, trained.digest).manifest == trained.manifest


def test_a_bucket_that_is_not_there_is_named_with_the_way_out(
    s3: dict[str, str], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    _may_use(s3, monkeypatch)
    url = version_url("s3://none-such/x", "default", 1)
    with pytest.raises(ArtefactError, match=r"spec.artifactStore.url: .*s3://none-such/x.*; check the path"):
        write_version(url, trained.files)
