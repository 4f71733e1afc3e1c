"""Clusters from the command line: python -m tests.cluster up simulated --nodes 12.

up SIZE           bring a cluster up, or heal it; SIZE is control-plane, simulated or real
down SIZE         end it; its logs stay
status [SIZE]     what runs, by id and since when
kubeconfig SIZE   print the path of its kubeconfig
clean             end all clusters of all names, also what a crash left behind
build [SET ...]   build the programs ahead of time (default: what all three sizes need)
"""

import argparse
import sys
import time
from pathlib import Path

from tests.cluster import binaries, lifecycle
from tests.cluster.locks import say
from tests.cluster.sizes import Size

_DEFAULT_SETS = ("kubernetes-1.37", "kwok", "prometheus", "helm")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command again goes on from here", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    command: str = options.command
    if command == "build":
        for module_set in options.sets or _DEFAULT_SETS:
            began = time.monotonic()
            directory = binaries.ensure(module_set)
            say(f"{module_set}: ready after {time.monotonic() - began:.0f} s in {directory}")
        return 0
    if command == "clean":
        lifecycle.clean()
        lifecycle.end_unrecorded()
        return 0
    if command == "status" and options.size is None:
        return lifecycle.show_all()
    size = Size(options.size)
    name: str = options.name or size.value
    if command == "up":
        lifecycle.up(size, name, kubernetes_version=options.kubernetes, nodes=options.nodes)
        say(f"export KUBECONFIG={lifecycle.kubeconfig(name)}")
    elif command == "down":
        lifecycle.down(size, name)
    elif command == "kubeconfig":
        print(lifecycle.kubeconfig(name))
    else:
        return lifecycle.show(name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sizes = [size.value for size in Size]
    for command in ("up", "down", "status", "kubeconfig"):
        sub = commands.add_parser(command)
        optional = {"nargs": "?"} if command == "status" else {}
        sub.add_argument("size", choices=sizes, **optional)  # type: ignore[arg-type]
        sub.add_argument("--name", help="default: the size's name")
        if command == "up":
            sub.add_argument(
                "--kubernetes", default=binaries.DEFAULT_KUBERNETES, choices=binaries.KUBERNETES_VERSIONS
            )
            sub.add_argument(
                "--nodes", help="simulated: a number or a YAML file of shapes; real: a YAML file"
            )
    commands.add_parser("clean")
    build = commands.add_parser("build")
    build.add_argument(
        "sets",
        nargs="*",
        metavar="SET",
        help=f"of {', '.join(binaries.SETS)}; default {' '.join(_DEFAULT_SETS)}",
    )
    return parser


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
