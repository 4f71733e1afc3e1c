"""Completion of command lines: ``tailwise completion SHELL``, and kubectl's ``kubectl_complete-tailwise``.

Both ask the parsers themselves; names of workloads are asked of the cluster, for as long as a person waits.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import aiohttp

from tailwise.cluster.client import (
    INFERENCE_WORKLOADS,
    ApiError,
    ConfigurationError,
    connect,
    context_namespace,
)

_PATIENCE_SECONDS = 3.0
_NO_FILES, _FILES = 4, 0  # cobra's ShellCompDirective, which kubectl reads

_BASH = """\
# tailwise completion for bash: source <(tailwise completion bash)
_tailwise() {
    local IFS=$'\\n'
    COMPREPLY=($(tailwise completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _tailwise tailwise
"""
_ZSH = """\
# tailwise completion for zsh: source <(tailwise completion zsh)
_tailwise() {
    local -a found
    found=("${(@f)$(tailwise completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _tailwise tailwise
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH}


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "completion",
        help="print a shell's completion script",
        description="Prints a script for the shell to read: source <(tailwise completion bash). kubectl "
        "completes `kubectl tailwise` by itself where kubectl_complete-tailwise is on the PATH.",
    )
    parser.add_argument("shell", choices=[*_SCRIPTS, "words"], help="bash or zsh; words: used by the scripts")
    parser.add_argument(
        "line", nargs=argparse.REMAINDER, metavar="-- WORD", help="of the command line so far, with words"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the script, or what may stand in the last word's place."""
    if arguments.shell in _SCRIPTS:
        print(_SCRIPTS[arguments.shell], end="")
    else:
        line = arguments.line
        print("\n".join(completions(line[1:] if line[:1] == ["--"] else line)))
    return 0


def kubectl_complete() -> int:
    """``kubectl_complete-tailwise WORD...``: completions, then cobra's directive."""
    found = completions(sys.argv[1:])
    print("\n".join([*found, f":{_NO_FILES if found else _FILES}"]))
    return 0


def completions(words: Sequence[str]) -> list[str]:
    """What may stand where the last word does; nothing where only a file or a free value can."""
    from tailwise.cli.main import SUBCOMMANDS, parser_of  # noqa: PLC0415 - main imports this module

    *before, last = words or [""]
    if not before:
        return sorted(each.name for each in SUBCOMMANDS if each.name.startswith(last))
    parser = parser_of(before[0])
    if parser is None:
        return []
    options = {name: action for action in parser._actions for name in action.option_strings}
    asked = options.get(before[-1]) if len(before) > 1 else None
    if asked is not None and asked.nargs != 0:
        found: Iterable[object] = asked.choices or ()
    elif last.startswith("-"):
        found = options
    else:
        given = _positionals(before[1:], options)
        free = [action for action in parser._actions if not action.option_strings][given:]
        of_cluster = bool(free) and free[0].dest == "workload"
        found = _workloads(before, options) if of_cluster else (free[0].choices or () if free else ())
    return sorted(str(word) for word in found if str(word).startswith(last))


def _positionals(words: Sequence[str], options: dict[str, argparse.Action]) -> int:
    count, value = 0, False
    for word in words:
        if value:
            value = False
        elif word in options:
            value = options[word].nargs != 0
        elif not word.startswith("-"):
            count += 1
    return count


def _workloads(words: Sequence[str], options: dict[str, argparse.Action]) -> list[str]:
    given = {
        options[word].dest: after
        for word, after in pairwise(words)
        if word in options and options[word].dest in ("namespace", "kubeconfig", "context")
    }
    try:
        return asyncio.run(_names(given))
    except (ApiError, ConfigurationError, aiohttp.ClientError, TimeoutError, OSError):
        return []  # completion has nobody to tell


async def _names(given: dict[str, str]) -> list[str]:
    kubeconfig, context = given.get("kubeconfig") or os.environ.get("KUBECONFIG"), given.get("context")
    namespace = given.get("namespace") or context_namespace(kubeconfig, context)
    client = await connect(kubeconfig=kubeconfig, context=context)
    try:
        path = INFERENCE_WORKLOADS.path(namespace)
        listed = await client.request("GET", path, timeout_seconds=_PATIENCE_SECONDS)
    finally:
        await client.close()
    return [each["metadata"]["name"] for each in listed.get("items") or ()]
