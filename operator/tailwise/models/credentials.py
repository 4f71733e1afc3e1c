"""What a reading may use to identify itself: environment variables, and the keys of a mounted Secret.

The operator's own readings get none of it. ``tailwise inspect`` passes on its user's, and an inspection
Job those of the workload's namespace. Keys of a Secret are the variables themselves, and the files that
KServe's storage Secrets have, so that a Secret made for either serves both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailwise.models.errors import ModelForbidden

_NAMES = re.compile(
    r"(AWS|AZURE|AZ|GOOGLE|HF|IDENTITY|MSI)_[A-Z0-9_]+|STORAGE_EMULATOR_HOST|DOCKER_CONFIG|"
    r"KUBERNETES_SERVICE_(HOST|PORT)"
)
_NOT_PASSED = re.compile(r"HF_(HOME|HUB_CACHE)|KUBERNETES_.*")
# KServe's names on the left.
_ALIASES = {
    "AZ_CLIENT_ID": "AZURE_CLIENT_ID",
    "AZ_CLIENT_SECRET": "AZURE_CLIENT_SECRET",
    "AZ_TENANT_ID": "AZURE_TENANT_ID",
    "AZURE_STORAGE_ACCESS_KEY": "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT": "AZURE_STORAGE_ACCOUNT_NAME",
    "S3_ENDPOINT": "AWS_ENDPOINT_URL",
    "awsAccessKeyID": "AWS_ACCESS_KEY_ID",
    "awsSecretAccessKey": "AWS_SECRET_ACCESS_KEY",
}
_GOOGLE_FILE = "gcloud-application-credentials.json"
_DOCKER_FILES = (".dockerconfigjson", "config.json")
DOCKER_FILE, HTTPS_HOST, HTTPS_HEADERS = (
    "TAILWISE_DOCKER_CONFIG",
    "TAILWISE_HTTPS_HOST",
    "TAILWISE_HTTPS_HEADERS",
)
_MOST_VALUE_BYTES = 64 * 1024


def credentials(environ: Mapping[str, str], directory: Path | None = None) -> dict[str, str]:
    """The variables to pass on: those of ``environ`` that stores know, and what ``directory`` holds."""
    found = {
        name: value
        for name, value in environ.items()
        if _NAMES.fullmatch(name) and not _NOT_PASSED.fullmatch(name)
    }
    docker = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/")) / ".docker") / "config.json"
    if docker.is_file():
        found[DOCKER_FILE] = str(docker)
    if directory is not None:
        found |= _of_secret(directory)
    for given, known in _ALIASES.items():
        if given in found:
            found.setdefault(known, found[given])
    return found


def _of_secret(directory: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted(directory.iterdir()):
        if not file.is_file() or file.stat().st_size > _MOST_VALUE_BYTES:
            continue
        if file.name == _GOOGLE_FILE:
            found["GOOGLE_APPLICATION_CREDENTIALS"] = str(file)
        elif file.name in _DOCKER_FILES:
            found[DOCKER_FILE] = str(file)
        elif file.name in ("https-host", "headers"):
            found[HTTPS_HOST if file.name == "https-host" else HTTPS_HEADERS] = _text(file)
        elif _NAMES.fullmatch(file.name) or file.name in _ALIASES:
            found[file.name] = _text(file)
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").strip()


def docker_config(environment: Mapping[str, str]) -> dict[str, Any]:
    """Registries' credentials; empty where there are none."""
    file = environment.get(DOCKER_FILE)
    if not file:
        return {}
    content = _json(Path(file).read_text(encoding="utf-8", errors="replace"), "the registries' credentials")
    return content


def http_headers(environment: Mapping[str, str], host: str) -> dict[str, str]:
    """Headers for an HTTP server: only for the very host that the Secret names beside them."""
    if not host or environment.get(HTTPS_HOST) != host:
        return {}
    content = _json(environment.get(HTTPS_HEADERS) or "{}", "the Secret's key headers")
    return {str(name): str(value) for name, value in content.items()}


def _json(text: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ModelForbidden(f"{what} cannot be used: not JSON") from error
    if not isinstance(content, dict):
        raise ModelForbidden(f"{what} cannot be used: not a JSON object")
    return content
