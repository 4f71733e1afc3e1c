"""``tailwise operator``: runs the operator, in a pod or, with a kubeconfig, from anywhere."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tailwise.cli.argument_types import network, positive_number, whole_number
from tailwise.cli.logs import LogFormat, configure
from tailwise.cluster.client import ConfigurationError, connect, own_namespace
from tailwise.controllers.decision_sink import writer_of
from tailwise.controllers.options import OperatorOptions
from tailwise.telemetry.queries import CpuUnit, UtilisationQueries, cadvisor, custom, node_exporter

if TYPE_CHECKING:
    from tailwise.controllers.runtime import Runtime

_LOGGER = logging.getLogger(__name__)

_PRESETS = {"NodeExporter": node_exporter, "CAdvisor": cadvisor}
_CUSTOM = "Custom"

_COLLECT_AFTER = (20_000, 10, 10)

# Past kopf's own time for ending (20 s), and below a node's patience with a pod.
_LAST_SECONDS = 25.0

_count, _port = whole_number(1), whole_number(0, 65535)


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "operator",
        help="run the operator",
        description="Places pods of InferenceWorkloads. Runs until SIGTERM; the exit code is 1 when it "
        "lost its Lease or a part of it failed.",
    )
    _add_cluster(parser)
    _add_telemetry(parser)
    models = parser.add_argument_group("models")
    models.add_argument(
        "--allow-model-network",
        action="append",
        type=network,
        default=[],
        metavar="CIDR",
        help="addresses that models may be read from though they are not public, such as those of a model "
        "store in the cluster; repeatable. Plain http is read only where one is given",
    )
    models.add_argument(
        "--refuse-model-network",
        action="append",
        type=network,
        default=[],
        metavar="CIDR",
        help="addresses that models are not read from although they are public, such as a cluster's service "
        "or pod range outside the private ones; repeatable",
    )
    models.add_argument(
        "--allow-model-files", action="store_true", help="read file:// URLs too, for development"
    )
    models.add_argument(
        "--model-retry-seconds",
        type=positive_number,
        default=5.0,
        metavar="SECONDS",
        help="wait before a model that could not be read is tried again; doubles up to 60 times this, and is "
        "120 times this where the file itself is wrong",
    )
    models.add_argument(
        "--inspection-image",
        default=os.environ.get("TAILWISE_IMAGE") or None,
        metavar="IMAGE",
        help="image of the Jobs that read models which need credentials or a volume, mostly this operator's "
        "own; default: $TAILWISE_IMAGE. Without it such models are not read",
    )
    models.add_argument(
        "--inspection-deadline-seconds",
        type=_count,
        default=300,
        metavar="SECONDS",
        help="time that such a Job has, the pull of its image included (300)",
    )
    _add_training(parser)
    models.add_argument(
        "--resync-seconds",
        type=positive_number,
        default=300.0,
        metavar="SECONDS",
        help="look at everything again this often, and ask models' stores whether files have changed (300)",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument(
        "--log-format", default=LogFormat.JSON.value, choices=[each.value for each in LogFormat]
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training")
    training.add_argument(
        "--training-image",
        default=os.environ.get("TAILWISE_TRAINING_IMAGE") or None,
        metavar="IMAGE",
        help="image of the Jobs that train versions; default: $TAILWISE_TRAINING_IMAGE. Without it nothing "
        "is trained, and versions that there are go on serving",
    )
    training.add_argument(
        "--training-service-account",
        default="tailwise-training",
        metavar="NAME",
        help="service account of training Jobs in the operator's namespace, which may create ConfigMaps "
        "(tailwise-training)",
    )
    training.add_argument(
        "--training-pull-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="Secret of the operator's namespace that the training image is pulled with; repeatable",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE") or own_namespace("tailwise-system"),
        help="where agents write hardware and the Lease is; default: the pod's own, else tailwise-system",
    )
    cluster.add_argument(
        "--kubeconfig", help="default: $KUBECONFIG, the pod's service account, ~/.kube/config"
    )
    cluster.add_argument(
        "--leader-elect",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="act only while holding the Lease; without it only one replica may run",
    )
    cluster.add_argument("--placement-workers", type=_count, default=16, metavar="N")
    cluster.add_argument("--metrics-port", type=_port, default=9090, help="0: serve no metrics")
    cluster.add_argument("--health-port", type=_port, default=8080, help="0: answer no probes")


def _add_telemetry(parser: argparse.ArgumentParser) -> None:
    telemetry = parser.add_argument_group("telemetry")
    telemetry.add_argument(
        "--prometheus-url",
        type=_http_url,
        metavar="URL",
        help="without it utilisation is unknown and latency not observed",
    )
    telemetry.add_argument("--prometheus-token-file", type=Path, metavar="FILE", help="bearer token")
    telemetry.add_argument(
        "--utilisation-preset",
        default="CAdvisor",
        choices=[*_PRESETS, _CUSTOM],
        help="whose series tell how busy nodes are; Custom: give --cpu-query",
    )
    telemetry.add_argument(
        "--utilisation-selector", default="", metavar="MATCHERS", help='such as job="node"'
    )
    telemetry.add_argument("--utilisation-window-seconds", type=_count, default=60, metavar="SECONDS")
    telemetry.add_argument("--cpu-query", metavar="PROMQL", help="U_C by node, with preset Custom")
    telemetry.add_argument(
        "--cpu-query-unit", default=CpuUnit.FRACTION.value, choices=[unit.value for unit in CpuUnit]
    )
    telemetry.add_argument("--frequency-query", metavar="PROMQL", help="U_F by node, with preset Custom")
    telemetry.add_argument(
        "--decisions-to",
        type=_sink,
        metavar="TARGET",
        help="keep each decision, the best other nodes and what was then observed as JSON Lines: a file, or "
        "a prefix such as s3://bucket/decisions (gs://, az://), with the credentials of the environment",
    )
    telemetry.add_argument("--poll-seconds", type=_count, default=15, metavar="SECONDS")
    telemetry.add_argument("--observe-seconds", type=_count, default=30, metavar="SECONDS")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or failure."""
    configure(arguments.log_level, LogFormat(arguments.log_format))
    try:
        options = _options(arguments)
    except ValueError as error:
        raise SystemExit(f"tailwise operator: {error}") from error
    # An object's JSON is hundreds of containers that go at once: looking for cycles at each 700 of them took
    # a seventh of the time that a pod's events take.
    gc.set_threshold(*_COLLECT_AFTER)
    return asyncio.run(_operate(options, arguments.health_port))


async def _operate(options: OperatorOptions, health_port: int) -> int:
    import kopf  # noqa: PLC0415 - 65 MB that other commands do without
    from kubernetes_asyncio.config import kube_config  # noqa: PLC0415

    from tailwise import handlers  # noqa: F401, PLC0415 - registers with kopf
    from tailwise.controllers.runtime import Runtime  # noqa: PLC0415

    if options.kubeconfig:
        # kopf logs in by itself, from the place that the library has read from $KUBECONFIG on its import.
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = options.kubeconfig
    try:
        await (await connect(kubeconfig=options.kubeconfig)).close()
    except ConfigurationError as error:  # else a traceback from within kopf
        _LOGGER.critical("%s", error)
        return 1
    runtime = Runtime(options)
    endpoint = f"http://0.0.0.0:{health_port}/healthz" if health_port else None
    _LOGGER.info("starting in namespace %s as %s", options.namespace, options.identity)
    last = asyncio.create_task(_end_at_last(runtime))
    try:
        await kopf.operator(
            clusterwide=True,
            standalone=True,
            liveness_endpoint=endpoint,
            stop_flag=runtime.ended,
            memo=kopf.Memo(runtime=runtime),
            # kopf would ask for this user's name, and a container's user has none.
            identity=cast(Any, options.identity),
        )
    except asyncio.CancelledError:
        raise
    except Exception:
        _LOGGER.exception("the operator failed")
        return 1
    finally:
        last.cancel()
    if runtime.failure is not None:
        return 1
    _LOGGER.info("stopped")
    return 0


async def _end_at_last(runtime: Runtime) -> None:
    """End a process that failed and does not end in order: one that lost its Lease must not linger."""
    await runtime.ended.wait()
    await asyncio.sleep(_LAST_SECONDS)
    if runtime.failure is not None:
        _LOGGER.critical("not ended in order within %.0f s; ending at once", _LAST_SECONDS)
        logging.shutdown()
        os._exit(1)


def _options(arguments: argparse.Namespace) -> OperatorOptions:
    return OperatorOptions(
        namespace=arguments.namespace,
        identity=f"{os.environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(4)}",
        kubeconfig=arguments.kubeconfig,
        prometheus_url=arguments.prometheus_url or None,
        prometheus_token_file=arguments.prometheus_token_file,
        utilisation=_utilisation(arguments),
        poll_seconds=float(arguments.poll_seconds),
        observe_seconds=float(arguments.observe_seconds),
        decisions_to=arguments.decisions_to,
        model_networks=tuple(arguments.allow_model_network),
        model_refused_networks=tuple(arguments.refuse_model_network),
        model_files=arguments.allow_model_files,
        model_retry_seconds=arguments.model_retry_seconds,
        resync_seconds=arguments.resync_seconds,
        inspection_image=arguments.inspection_image,
        inspection_deadline_seconds=arguments.inspection_deadline_seconds,
        training_image=arguments.training_image,
        training_service_account=arguments.training_service_account,
        training_pull_secrets=tuple(arguments.training_pull_secret),
        leader_elect=arguments.leader_elect,
        metrics_port=arguments.metrics_port,
        placement_workers=arguments.placement_workers,
    )


def _utilisation(arguments: argparse.Namespace) -> UtilisationQueries:
    window = arguments.utilisation_window_seconds
    if arguments.utilisation_preset != _CUSTOM:
        preset = _PRESETS[arguments.utilisation_preset]
        return preset(window_seconds=window, selector=arguments.utilisation_selector)
    if not arguments.cpu_query:
        raise ValueError("--utilisation-preset Custom needs --cpu-query")
    return custom(
        cpu=arguments.cpu_query,
        cpu_unit=CpuUnit(arguments.cpu_query_unit),
        frequency=arguments.frequency_query,
        window_seconds=window,
    )


def _sink(text: str) -> str:
    try:
        writer_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _http_url(text: str) -> str:
    if text and not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is no http:// or https:// URL")
    return text
