"""Versions in immutable ConfigMaps of a real API server. The version is trained on SYNTHETIC rows."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.cluster import apply
from tailwise.cluster.artefacts import (
    config_maps,
    delete_version,
    index_name,
    read_version,
    write_version,
)
from tailwise.cluster.client import CONFIG_MAPS, Client
from tailwise.prediction import artefact_urls
from tailwise.prediction.artefact import ArtefactError, Refusal
from tailwise.prediction.learned import LearnedPredictor
from tailwise.prediction.manifest import MANIFEST_FILE
from tailwise.training.run import Trained, train
from tests.unit.training.builders import FAMILIES, NODES, question, synthetic
from tests.unit.training.conftest import small_spec

SMALL_PART = 20_000


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(synthetic(rows=200), small_spec())


def maps(
    trained: Trained, namespace: str, version: int = 1, part_bytes: int = SMALL_PART
) -> list[dict[str, Any]]:
    return config_maps(
        trained.files, latency_model="default", version=version, namespace=namespace, part_bytes=part_bytes
    )


async def test_a_version_is_written_in_parts_and_serves_as_it_was_trained(
    client: Client, namespace: str, trained: Trained
) -> None:
    made = maps(trained, namespace)
    assert len(made) > 2
    await write_version(client, made)
    read = await read_version(client, namespace, "default", 1, trained.digest)
    assert read.manifest == trained.manifest
    answer = LearnedPredictor(read, 1).predict(question(FAMILIES["conv"][0], NODES[0], 0.3))
    assert answer.source is PredictionSource.LEARNED


async def test_what_was_written_cannot_be_changed(client: Client, namespace: str, trained: Trained) -> None:
    await write_version(client, maps(trained, namespace))
    patch = [{"op": "replace", "path": "/data/digest", "value": "sha256:0"}]
    changed = await apply.patch_json(client, CONFIG_MAPS, namespace, index_name("default", 1), patch)
    assert not changed.done
    assert "immutable" in changed.message


async def test_a_writer_that_was_killed_leaves_no_version_and_the_next_one_finishes_it(
    client: Client, namespace: str, trained: Trained
) -> None:
    made = maps(trained, namespace)
    for written in range(1, len(made)):
        await write_version(client, made[:written])
        with pytest.raises(ArtefactError, match="is not there; train a new version") as error:
            await read_version(client, namespace, "default", 1)
        assert error.value.refusal is Refusal.MISSING
    await write_version(client, made)
    assert (await read_version(client, namespace, "default", 1)).digest == trained.digest


async def test_another_version_of_the_same_number_is_refused(
    client: Client, namespace: str, trained: Trained
) -> None:
    await write_version(client, maps(trained, namespace))
    other = train(synthetic(rows=200, seed=1), small_spec())
    with pytest.raises(ArtefactError, match="stands there with other content") as error:
        await write_version(client, maps(other, namespace))
    assert error.value.refusal is Refusal.FOREIGN
    assert (await read_version(client, namespace, "default", 1)).digest == trained.digest


async def test_a_part_that_is_gone_or_another_is_refused(
    client: Client, namespace: str, trained: Trained
) -> None:
    made = maps(trained, namespace)
    await write_version(client, made)
    part = made[0]["metadata"]["name"]
    await client.request("DELETE", CONFIG_MAPS.path(namespace, part))
    with pytest.raises(ArtefactError, match=f"ConfigMap {part} is gone") as error:
        await read_version(client, namespace, "default", 1)
    assert error.value.refusal is Refusal.MISSING
    wrong = {**made[0], "binaryData": {"part": base64.b64encode(b"something else").decode()}}
    await apply.create(client, CONFIG_MAPS, wrong)
    with pytest.raises(ArtefactError, match="its parts are damaged") as error:
        await read_version(client, namespace, "default", 1)
    assert error.value.refusal is Refusal.TAMPERED


async def test_a_version_with_another_digest_than_was_noted_is_refused(
    client: Client, namespace: str, trained: Trained
) -> None:
    await write_version(client, maps(trained, namespace))
    with pytest.raises(ArtefactError, match="was noted when it was made"):
        await read_version(client, namespace, "default", 1, "sha256:0")


async def test_a_deleted_version_is_gone_with_its_parts_and_others_stay(
    client: Client, namespace: str, trained: Trained
) -> None:
    await write_version(client, maps(trained, namespace, version=1))
    await write_version(client, maps(trained, namespace, version=2))
    await delete_version(client, namespace, "default", 1)
    await delete_version(client, namespace, "default", 1)
    listed = await client.request("GET", CONFIG_MAPS.path(namespace))
    names = {each["metadata"]["name"] for each in listed["items"]}
    assert not any(name.startswith(index_name("default", 1)) for name in names)
    assert (await read_version(client, namespace, "default", 2)).digest == trained.digest


async def test_a_version_at_a_url_has_only_its_index_in_the_cluster_and_goes_with_it(
    client: Client, namespace: str, trained: Trained, tmp_path: Path
) -> None:
    url = artefact_urls.version_url(tmp_path.as_uri(), "default", 1)
    artefact_urls.write_version(url, trained.files)
    (index,) = config_maps(trained.files, latency_model="default", version=1, namespace=namespace, url=url)
    await write_version(client, (index,))
    read = await read_version(client, namespace, "default", 1, trained.digest)
    assert read.manifest == trained.manifest
    _spoil(_files_below(tmp_path)["model.onnx"])
    with pytest.raises(ArtefactError) as error:
        await read_version(client, namespace, "default", 1, trained.digest)
    assert error.value.refusal is Refusal.TAMPERED
    await delete_version(client, namespace, "default", 1)
    assert _files_below(tmp_path) == {}
    with pytest.raises(ArtefactError, match="is not there; train a new version"):
        await read_version(client, namespace, "default", 1)


def _files_below(directory: Path) -> dict[str, Path]:
    return {each.name: each for each in directory.rglob("*") if each.is_file()}


def _spoil(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_the_same_version_gives_the_same_config_maps_and_no_part_is_too_large(trained: Trained) -> None:
    assert maps(trained, "a") == maps(trained, "a")
    *parts, index = maps(trained, "a")
    assert all(len(base64.b64decode(each["binaryData"]["part"])) <= SMALL_PART for each in parts)
    assert index["data"][MANIFEST_FILE].encode() == trained.files[MANIFEST_FILE]
    assert all(each["immutable"] for each in (*parts, index))
    assert len(maps(trained, "a", part_bytes=700 * 1024)) == 2
