"""A node's hardware as the ConfigMap its agent writes and the operator reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from tailwise.api.hardware import HARDWARE_KEY, HARDWARE_LABEL, NodeHardware
from tailwise.api.labels import MANAGED_BY, MANAGED_BY_LABEL, hardware_config_map_name


class HardwareError(ValueError):
    """A ConfigMap does not hold a node's hardware; the message names it, the field and the way out."""


# A thousand nodes' documents are seconds of work for the pure Python parser.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def config_map(hardware: NodeHardware, namespace: str) -> dict[str, Any]:
    """The ConfigMap to apply for this hardware."""
    document = hardware.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": hardware_config_map_name(hardware.node),
            "namespace": namespace,
            "labels": {
                HARDWARE_LABEL: "true",
                "app.kubernetes.io/name": "tailwise",
                "app.kubernetes.io/component": "agent",
                MANAGED_BY_LABEL: MANAGED_BY,
            },
        },
        "data": {HARDWARE_KEY: yaml.safe_dump(document, sort_keys=False)},
    }


def hardware_from_object(config_map: Mapping[str, Any]) -> NodeHardware:
    """Read the hardware out of a ConfigMap.

    Raises:
        HardwareError: the key is missing, is no YAML, misses a field, or speaks of another node than the
            ConfigMap's name does (which would let one agent speak for another's node).
    """
    metadata = config_map["metadata"]
    where = f"ConfigMap {metadata.get('namespace', '')}/{metadata['name']}"
    way_out = "delete it and the node's agent will write it anew"
    text = (config_map.get("data") or {}).get(HARDWARE_KEY)
    if text is None:
        raise HardwareError(f"{where}: data has no key {HARDWARE_KEY}; {way_out}")
    try:
        hardware = NodeHardware.model_validate(yaml.load(text, _LOADER))  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" (line {place.line + 1})" if place else ""
        raise HardwareError(f"{where}: data.{HARDWARE_KEY} is not YAML{line}; {way_out}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or HARDWARE_KEY
        raise HardwareError(f"{where}: {field}: {first['msg']}; {way_out}") from error
    if metadata["name"] != hardware_config_map_name(hardware.node):
        raise HardwareError(
            f"{where}: node: says {hardware.node}, whose ConfigMap is "
            f"{hardware_config_map_name(hardware.node)}; {way_out}"
        )
    return hardware
