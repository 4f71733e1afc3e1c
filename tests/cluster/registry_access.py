"""This machine's way to package registries, lent to an image build and kept out of the image.

Comes in: pip's settings and CA bundles as this machine has them. Goes out: volumes for the length of a build.
"""

import configparser
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PIP_CONF_IN_IMAGE = "/etc/pip.conf"
_CA_BUNDLE_IN_IMAGE = "/etc/ssl/certs/ca-certificates.crt"
_WHEELS_IN_IMAGE = "/mnt"


@contextmanager
def volumes(directory: Path) -> Iterator[tuple[str, ...]]:
    """Volumes (machine path:image path:ro) that give a build this machine's CA bundle and pip settings.

    pip's file is written in `directory` and removed afterwards: it may hold credentials.
    """
    mounts = []
    bundle = next((path for path in map(Path, _ca_bundles()) if path.is_file()), None)
    if bundle is not None:
        mounts.append(f"{bundle.resolve()}:{_CA_BUNDLE_IN_IMAGE}:ro")
    settings = _pip_settings()
    wheels = next(
        (Path(word) for word in settings.get("find-links", "").split() if Path(word).is_dir()), None
    )
    settings.pop("find-links", None)
    if wheels is not None:
        settings["find-links"] = _WHEELS_IN_IMAGE
        mounts.append(f"{wheels.resolve()}:{_WHEELS_IN_IMAGE}:ro")
    if "cert" in settings:
        settings["cert"] = _CA_BUNDLE_IN_IMAGE
    file = directory / "pip.conf"
    lines = ["[global]", *(f"{key} = {value}" for key, value in sorted(settings.items()))]
    file.touch(mode=0o600)
    file.write_text("\n".join(lines) + "\n")
    try:
        yield (*mounts, f"{file}:{PIP_CONF_IN_IMAGE}:ro")
    finally:
        file.unlink()


def _ca_bundles() -> tuple[str, ...]:
    named = (os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    return (*(path for path in named if path), _CA_BUNDLE_IN_IMAGE)


def _pip_settings() -> dict[str, str]:
    """pip's settings as pip itself reads them: the machine's file, the user's, then the environment."""
    files: list[str | Path] = [
        Path("/etc/pip.conf"),
        Path.home() / ".pip" / "pip.conf",
        Path.home() / ".config" / "pip" / "pip.conf",
    ]
    parser = configparser.RawConfigParser()
    parser.read([*files, *filter(None, [os.environ.get("PIP_CONFIG_FILE")])])
    settings: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            settings.update({key: " ".join(value.split()) for key, value in parser.items(section)})
    for key, value in os.environ.items():
        if key.startswith("PIP_") and key != "PIP_CONFIG_FILE":
            settings[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    for unwanted in ("cache-dir", "require-virtualenv", "user", "target"):
        settings.pop(unwanted, None)
    return settings
