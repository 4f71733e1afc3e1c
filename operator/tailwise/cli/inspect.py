"""``tailwise inspect PATH_OR_URL``: a model's FLOPs, parameters and operators, from its graph alone.

Exit codes: 0 all operators are counted, 2 bad input (a model that cannot be read, or wrong options), 3 the
profile is Partial (and printed all the same).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tailwise.api.profile import MOST_OPERATORS_LISTED, Completeness, ModelProfile
from tailwise.cli.argument_types import add_output, network, positive_number, whole_number
from tailwise.cli.waiting import shown_while_waiting
from tailwise.models import errors
from tailwise.models.addresses import AddressPolicy
from tailwise.models.credentials import credentials
from tailwise.models.errors import InspectionError
from tailwise.models.inspection import InspectionLimits, InspectionRequest, inspect
from tailwise.models.report import write_report

EXIT_BAD_INPUT, EXIT_PARTIAL = 2, 3
_PATIENCE_SECONDS = 120.0

# What a message of the reader itself leaves to say to who sits before a shell.
_WAYS_OUT = {
    errors.ModelUnreachable.reason: "check the address, and that this machine may reach it",
    errors.ModelNotFound.reason: "check the path",
    errors.NotAModel.reason: "name a whole ONNX file",
    errors.ModelTruncated.reason: "fetch or upload it again",
    errors.DigestMismatch.reason: "correct --sha256, or the file",
    errors.InspectionTimeout.reason: "give it more with --timeout SECONDS of tailwise inspect",
}


def add_parser(subparsers: Any, name: str = "inspect") -> None:
    """Add ``inspect``, or whatever it is called, and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help="count a model's FLOPs, parameters and operators",
        description="Count a model's FLOPs, parameters and operators. Only the graph is read: of a file of "
        "hundreds of megabytes mostly less than one.",
    )
    parser.add_argument("model", metavar="PATH_OR_URL", help="a file, or an https://, http:// or file:// URL")
    parser.add_argument("--batch-size", type=whole_number(1), metavar="N", help="size of the batch axis (1)")
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        type=shape_argument,
        metavar="NAME=1,3,224,224",
        help="sizes of an input with dynamic axes, or AXIS=128 for a named axis; may be repeated",
    )
    parser.add_argument("--sha256", metavar="DIGEST", help="refuse a file that is another")
    parser.add_argument(
        "--allow-address",
        action="append",
        default=[],
        type=network,
        metavar="CIDR",
        help="a network that may be read from although its addresses are link-local",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=_PATIENCE_SECONDS,
        metavar="SECONDS",
        help="give up after (120)",
    )
    parser.add_argument(
        "--credentials-directory",
        type=Path,
        metavar="DIR",
        help="a mounted Secret with credentials of the model's store, beside those of the environment",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write the answer there as an inspection Job does, whatever it is, and print nothing",
    )
    parser.add_argument(
        "--operators",
        type=_listed,
        default=10,
        metavar="N|all",
        help="how many of the heaviest operators to list, each with its FLOPs and the bytes it moves (10)",
    )
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Inspect and print; returns the exit code."""
    if arguments.report is not None:
        return write_report(arguments.report, request_of(arguments))
    try:
        with shown_while_waiting(f"reading {arguments.model}"):
            profile = inspect(request_of(arguments))
    except InspectionError as error:
        print(f"tailwise inspect: {failure(arguments.model, error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    _print(arguments.model, profile, arguments.output)
    if profile.completeness is Completeness.PARTIAL:
        print(
            f"tailwise inspect: the profile is Partial, {profile.unresolved_count} operators are not counted",
            file=sys.stderr,
        )
        return EXIT_PARTIAL
    return 0


def failure(model: str, error: InspectionError) -> str:
    """Why a model cannot be read, with its name and the way out."""
    way_out = _WAYS_OUT.get(error.reason, "")
    told = f"{model}: {error.reason}: {error.message}"
    return told if not way_out or way_out in told else f"{told}; {way_out}"


def inspected(
    model: str, batch_size: int, input_shapes: Sequence[tuple[str, tuple[int, ...]]]
) -> ModelProfile:
    """A model's profile, read from this machine as the command itself does.

    Raises:
        InspectionError: it cannot be read.
    """
    return inspect(
        request_of(
            argparse.Namespace(
                model=model,
                batch_size=batch_size,
                input_shape=input_shapes,
                sha256=None,
                allow_address=[],
                credentials_directory=None,
                timeout=_PATIENCE_SECONDS,
            )
        )
    )


def request_of(arguments: argparse.Namespace) -> InspectionRequest:
    """The request that the options amount to.

    It is the user's own machine: loopback and private addresses are fine. Link-local ones, where metadata
    services live, are not, whether named or redirected to, unless allowed.
    """
    return InspectionRequest(
        url=url_of(arguments.model),
        input_shapes=dict(arguments.input_shape),
        batch_size=arguments.batch_size,
        listed_operators=getattr(arguments, "operators", 10),
        sha256=arguments.sha256,
        addresses=AddressPolicy(allowed_networks=tuple(arguments.allow_address), allow_local=True),
        allow_http=True,
        allow_files=True,
        environment=credentials(os.environ, arguments.credentials_directory),
        limits=InspectionLimits(wall_seconds=arguments.timeout),
    )


def url_of(word: str) -> str:
    """A URL as it is; a path as a file:// URL."""
    scheme = urlsplit(word).scheme if "://" in word else ""
    return word if scheme else Path(word).absolute().as_uri()


def _print(model: str, profile: ModelProfile, output: str) -> None:
    """Print the profile as it was asked for; what only people need is imported only for them."""
    document = profile.model_dump(mode="json", by_alias=True)
    if output == "json":
        print(json.dumps(document, indent=2))
    elif output == "yaml":
        print(yaml.safe_dump(document, sort_keys=False), end="")
    else:
        from tailwise.cli.profile_table import print_profile  # noqa: PLC0415

        print_profile(model, profile)


def _listed(word: str) -> int:
    return MOST_OPERATORS_LISTED if word == "all" else min(whole_number(1)(word), MOST_OPERATORS_LISTED)


def shape_argument(word: str) -> tuple[str, tuple[int, ...]]:
    """An input's name and sizes, as ``NAME=1,3,224,224``."""
    name, equals, sizes = word.rpartition("=")
    try:
        parsed = tuple(int(size) for size in sizes.replace("x", ",").split(","))
    except ValueError:
        parsed = ()
    if not equals or not name or not parsed or any(size < 0 for size in parsed):
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=SIZE,SIZE,... with sizes of 0 or more")
    return name, parsed
