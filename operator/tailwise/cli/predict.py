"""``tailwise predict``: a model's predicted P50, P90 and bound on a node, from its graph and NODE.yaml."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.cli.argument_types import positive_number, whole_number
from tailwise.cli.inspect import failure, inspected, shape_argument
from tailwise.models.errors import InspectionError
from tailwise.prediction.artefact import ArtefactError, load_directory
from tailwise.prediction.learned import LearnedPredictor
from tailwise.prediction.prediction import BOUND_PERCENTILE, NodeLoad, Prediction, Question, Serving
from tailwise.prediction.predictor import Predictor, PriorPredictor


class UsageError(ValueError):
    """An input cannot be used; the message names the file or option, the field and the way out."""


def add_parser(subparsers: Any) -> None:
    """Add ``predict`` and its options."""
    parser = subparsers.add_parser("predict", help="predict a model's P90 on a node")
    parser.add_argument("--model", required=True, help="ONNX file, or its URL, or a profile (.json, .yaml)")
    parser.add_argument("--node", required=True, type=Path, help="NODE.yaml, from: tailwise agent --print")
    parser.add_argument(
        "--cpu-limit-millicores", type=whole_number(0), default=0, metavar="M", help="0 or left out: no limit"
    )
    parser.add_argument("--threads", type=whole_number(1), default=1, help="intra-op threads of the server")
    parser.add_argument(
        "--overhead-microseconds",
        type=whole_number(0),
        default=0,
        metavar="US",
        help="CPU time that the server spends on a query beside the model; default: 0",
    )
    parser.add_argument("--batch-size", type=whole_number(1), default=1, help="inferences in one query")
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        type=shape_argument,
        metavar="NAME=1,3,224,224",
        help="sizes of an input with dynamic axes, or AXIS=128 for a named axis; may be repeated",
    )
    parser.add_argument("--concurrency", type=whole_number(1), default=1, help="clients in a closed loop")
    parser.add_argument(
        "--requests-per-second",
        type=positive_number,
        default=None,
        help="open loop: queries arriving at random",
    )
    parser.add_argument(
        "--cpu-utilisation-percent",
        type=percent,
        default=0.0,
        help="load of others on the node, or 'unknown' (default: 0, an idle node)",
    )
    parser.add_argument(
        "--percentile",
        type=int,
        choices=(50, 90, 95, 99),
        default=BOUND_PERCENTILE,
        help="of queries that the bound is for (90)",
    )
    parser.add_argument(
        "--version",
        type=Path,
        metavar="DIR",
        help="a version, as tailwise train wrote it (default: the prior)",
    )
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text")


def run(arguments: argparse.Namespace) -> int:
    """Print the prediction; 1 when the model or the node cannot be read."""
    try:
        hardware = read_node(arguments.node)
        profile = _profile(arguments)
        predictor = _predictor(arguments.version)
    except InspectionError as error:
        print(f"tailwise predict: --model {failure(arguments.model, error)}", file=sys.stderr)
        return 1
    except ArtefactError as error:
        print(f"tailwise predict: --version {error}", file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"tailwise predict: {error}", file=sys.stderr)
        return 1
    serving = Serving(
        cpu_limit_millicores=arguments.cpu_limit_millicores or None,
        threads=arguments.threads,
        batch_size=arguments.batch_size,
        concurrency=arguments.concurrency,
        requests_per_second=arguments.requests_per_second,
        overhead_milliseconds=arguments.overhead_microseconds / 1000,
        bound_percentile=arguments.percentile,
    )
    load = NodeLoad(cpu=arguments.cpu_utilisation_percent)
    prediction = predictor.predict(Question(profile, serving, hardware, load))
    for note in _notes(serving, hardware):
        print(f"tailwise predict: {note}", file=sys.stderr)
    if profile.unresolved_count:
        print(
            f"tailwise predict: {arguments.model}: {profile.unresolved_count} operators not counted; "
            "the prediction leaves them out",
            file=sys.stderr,
        )
    if arguments.output == "json":
        print(json.dumps(_document(prediction), indent=2))
    else:
        _print_text(prediction, arguments.percentile)
    return 0


def _notes(serving: Serving, hardware: NodeHardware) -> list[str]:
    """What is asked for and has no effect on this node."""
    cores = hardware.cores
    notes = []
    if serving.threads > cores:
        notes.append(f"--threads {serving.threads}: node {hardware.node} runs {cores} at once, one a core")
    limit = serving.cpu_limit_millicores
    if limit is not None and limit > cores * 1000:
        notes.append(f"--cpu-limit-millicores {limit}: node {hardware.node} has no more than {cores * 1000}")
    return notes


def _predictor(version: Path | None) -> Predictor:
    return PriorPredictor() if version is None else LearnedPredictor(load_directory(version), 1)


def read_node(path: Path, option: str = "--node") -> NodeHardware:
    """Read NODE.yaml, or a whole ConfigMap as kubectl prints it; ``option`` is who named the file.

    Raises:
        UsageError: the file cannot be read or is not a node's hardware.
    """
    way_out = "write it with: tailwise agent --print"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("kind") == "ConfigMap":
            document = yaml.safe_load((document.get("data") or {}).get("hardware.yaml", ""))
        return NodeHardware.model_validate(document)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{option} {path}: {getattr(error, 'strerror', None) or error}; {way_out}"
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{option} {path}: this is not YAML; {way_out}") from error
    except ValidationError as error:
        raise UsageError(f"{option} {path}: {_first_error(error)}; {way_out}") from error


def _profile(arguments: argparse.Namespace) -> ModelProfile:
    if arguments.model.endswith((".json", ".yaml", ".yml")):
        return read_profile(Path(arguments.model), arguments.batch_size)
    return inspected(arguments.model, arguments.batch_size, arguments.input_shape)


def read_profile(path: Path, batch_size: int) -> ModelProfile:
    """Read a profile that ``tailwise inspect`` printed.

    Raises:
        UsageError: the file cannot be read, is no profile, or one of another batch.
    """
    way_out = "write it with: tailwise inspect MODEL --output json"
    try:
        profile = ModelProfile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--model {path}: {getattr(error, 'strerror', None) or error}; {way_out}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--model {path}: this is not YAML or JSON; {way_out}") from error
    except ValidationError as error:
        raise UsageError(f"--model {path}: {_first_error(error)}; {way_out}") from error
    if profile.batch_size != batch_size:
        raise UsageError(
            f"--model {path}: batchSize is {profile.batch_size}, --batch-size is {batch_size}; "
            f"inspect the model at that batch size"
        )
    return profile


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "model_type":  # pydantic names a class, which says nothing to who wrote the file
        return "this is no mapping of fields to values"
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else str(first["msg"])


def _document(prediction: Prediction) -> dict[str, Any]:
    return {
        "p50Milliseconds": prediction.p50_milliseconds,
        "p90Milliseconds": prediction.p90_milliseconds,
        "boundMilliseconds": prediction.bound_milliseconds,
        "source": prediction.source.value,
        "terms": dict(prediction.terms),
    }


def _print_text(prediction: Prediction, percentile: int) -> None:
    print(f"P50     {prediction.p50_milliseconds:10.3f} ms")
    print(f"P90     {prediction.p90_milliseconds:10.3f} ms")
    print(
        f"bound   {prediction.bound_milliseconds:10.3f} ms  (P{percentile} is below this nine times in ten)"
    )
    print(f"source  {prediction.source.value}")
    for name, value in prediction.terms.items():
        print(f"  {name:28s} {value:12.4f}")


def percent(text: str) -> float | None:
    """A fraction in [0, 1] from a percentage; None for ``unknown``."""
    if text == "unknown":
        return None
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'unknown'") from None
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return value / 100
