"""Tilt's built-ins as far as the Tiltfile uses them, with Tilt's own signatures; each call is recorded.

Tilt cannot run where the project is tested. Its language can: the Tiltfile is evaluated by a Starlark
interpreter, so that a misspelt argument, a missing comma or an unknown built-in fails as it would in Tilt.
Signatures are those of Tilt's API reference (0.33) and of its extensions restart_process and uibutton.
"""

# ruff: noqa: ARG001 - a fake has all of its built-in's parameters, or wrong calls would not fail

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import starlark
import yaml


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a built-in; arguments by name, those with defaults only where they were given."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(slots=True)
class Recorder:
    """All calls of one evaluation, in order. ``settings`` is what ``tilt up -- ...`` was given."""

    settings: Mapping[str, Any]
    calls: list[Call] = field(default_factory=list)
    defined: list[str] = field(default_factory=list)

    def of(self, name: str) -> list[Mapping[str, Any]]:
        """Arguments of each call of a built-in."""
        return [call.arguments for call in self.calls if call.name == name]

    def recorded(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        """``fake``, with each call noted."""
        signature = inspect.signature(fake)
        name = fake.__name__

        def call(*positional: Any, **named: Any) -> Any:
            bound = signature.bind(*positional, **named)
            arguments = dict(bound.arguments)
            arguments |= arguments.pop("kwargs", {})
            self.calls.append(Call(name, arguments))
            return fake(*positional, **named)

        return call


def evaluate(path: Path, settings: Mapping[str, Any] | None = None) -> Recorder:
    """Evaluate a Tiltfile and return what it asked Tilt for.

    Raises:
        starlark.StarlarkError: as Tilt would refuse it.
    """
    recorder = Recorder(settings or {})
    module = starlark.Module()
    fakes: tuple[Callable[..., Any], ...] = (*_BUILT_INS, _config_define_string_list, _config_parse)
    for fake in fakes:
        module.add_callable(fake.__name__, recorder.recorded(_of(fake, recorder)))
    library = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
    dialect = starlark.Dialect.standard()
    dialect.enable_top_level_stmt = True
    # Names cannot hold dots: Tilt's module `config` is put together here.
    prelude = "config = struct(define_string_list=_config_define_string_list, parse=_config_parse)"
    starlark.eval(module, starlark.parse("prelude", prelude, dialect), library)
    starlark.eval(
        module,
        starlark.parse(str(path), path.read_text(), dialect),
        library,
        starlark.FileLoader(lambda name: _extension(name, recorder)),
    )
    return recorder


def _of(fake: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    """Fakes of the configuration know what was given on the command line."""
    if fake is _config_parse:

        def _config_parse_of_this_run() -> Any:
            return {name: value for name, value in recorder.settings.items() if name in recorder.defined}

        return _config_parse_of_this_run
    if fake is _config_define_string_list:

        def define(name: str, args: bool = False, usage: str = "") -> None:
            recorder.defined.append(name)

        return define
    return fake


def _extension(name: str, recorder: Recorder) -> starlark.FrozenModule:
    """The module of a ``load('ext://...')``."""
    module = starlark.Module()
    for fake in _EXTENSIONS[name]:
        module.add_callable(fake.__name__, recorder.recorded(fake))
    return module.freeze()


# ---- built-ins: parameters are Tilt's, whether or not the Tiltfile uses them


def version_settings(check_updates: bool = True, constraint: str = "") -> None: ...


def allow_k8s_contexts(contexts: str | list[str]) -> None: ...


def docker_build(
    ref: str,
    context: str,
    build_args: dict[str, str] | None = None,
    dockerfile: str = "Dockerfile",
    dockerfile_contents: str = "",
    live_update: list[Any] | None = None,
    match_in_env_vars: bool = False,
    ignore: str | list[str] = "",
    only: str | list[str] = "",
    entrypoint: str | list[str] = "",
    target: str = "",
    extra_tag: str | list[str] = "",
    pull: bool = False,
    platform: str = "",
) -> None: ...


def sync(local_path: str, remote_path: str) -> dict[str, str]:
    return {"step": "sync", "local": local_path, "remote": remote_path}


def run(cmd: str | list[str], trigger: str | list[str] = "") -> dict[str, Any]:
    return {"step": "run", "command": cmd, "trigger": trigger}


def fall_back_on(files: str | list[str]) -> dict[str, Any]:
    return {"step": "fall_back_on", "files": [files] if isinstance(files, str) else files}


def k8s_yaml(yaml: str | list[str], allow_duplicates: bool = False) -> None: ...


def encode_yaml(obj: Any) -> str:
    return "blob:" + yaml.safe_dump(json.loads(json.dumps(obj)))


def helm(
    pathToChartDir: str,  # noqa: N803 - Tilt's name
    name: str = "",
    namespace: str = "",
    values: str | list[str] = "",
    set: str | list[str] = "",  # noqa: A002 - Tilt's name
    kube_version: str = "",
    skip_crds: bool = False,
) -> str:
    return f"blob:helm {pathToChartDir}"


def port_forward(
    local_port: int, container_port: int = 0, name: str = "", link_path: str = "", host: str = ""
) -> dict[str, Any]:
    return {"local": local_port, "container": container_port}


def link(url: str, name: str = "") -> dict[str, str]:
    return {"url": url, "name": name}


def k8s_kind(
    kind: str,
    api_version: str = "",
    *,
    image_json_path: str | list[str] = "",
    image_object_json_path: dict[str, str] | None = None,
    pod_readiness: str = "",
) -> None: ...


def k8s_resource(
    workload: str = "",
    new_name: str = "",
    port_forwards: Any = None,
    extra_pod_selectors: Any = None,
    trigger_mode: Any = None,
    resource_deps: list[str] | None = None,
    objects: list[str] | None = None,
    auto_init: bool = True,
    pod_readiness: str = "",
    links: Any = None,
    labels: str | list[str] = "",
    discovery_strategy: str = "",
) -> None: ...


def _config_define_string_list(name: str, args: bool = False, usage: str = "") -> None: ...


def _config_parse() -> dict[str, Any]:
    return {}


# ---- extensions


def docker_build_with_restart(
    ref: str,
    context: str,
    entrypoint: str | list[str],
    live_update: list[Any],
    base_suffix: str = "-base",
    restart_file: str = "/.restart-proc",
    **kwargs: Any,
) -> None:
    inspect.signature(docker_build).bind(ref, context, **kwargs)


def cmd_button(
    name: str,
    resource: str = "",
    argv: list[str] | None = None,
    text: str | None = None,
    location: str = "resource",
    icon_name: str | None = None,
    icon_svg: str | None = None,
    inputs: list[Any] | None = None,
) -> None: ...


def text_input(name: str, label: str = "", default: str = "", placeholder: str = "") -> dict[str, str]:
    return {"name": name, "default": default}


_BUILT_INS: tuple[Callable[..., Any], ...] = (
    version_settings,
    allow_k8s_contexts,
    docker_build,
    sync,
    run,
    fall_back_on,
    k8s_yaml,
    encode_yaml,
    helm,
    port_forward,
    link,
    k8s_kind,
    k8s_resource,
)
_EXTENSIONS: Mapping[str, tuple[Callable[..., Any], ...]] = {
    "ext://restart_process": (docker_build_with_restart,),
    "ext://uibutton": (cmd_button, text_input),
}
