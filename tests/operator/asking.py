"""A user's commands against the control plane of the session, as their process would run them."""

import asyncio
import contextlib
import io
import json
from typing import Any

from tailwise.cli.main import main
from tests.cluster.controlplane import ControlPlane
from tests.operator.conftest import OPERATOR_NAMESPACE


async def ask(plane: ControlPlane, *words: str) -> tuple[int, str, str]:
    """``tailwise WORD...``: exit code, what it printed, what it complained of."""
    cluster = ("--kubeconfig", str(plane.kubeconfig), "--operator-namespace", OPERATOR_NAMESPACE)
    out, err = io.StringIO(), io.StringIO()

    def run() -> int:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return main([*words, *cluster])

    # On a thread: nodes' heartbeats go on meanwhile, and the command has an event loop of its own.
    code = await asyncio.to_thread(run)
    return code, out.getvalue(), err.getvalue()


async def told(plane: ControlPlane, *words: str, code: int = 0) -> dict[str, Any]:
    """The answer as JSON, of a command that ends with this code."""
    ended, out, err = await ask(plane, *words, "--output", "json")
    assert ended == code, err
    answer: dict[str, Any] = json.loads(out)
    return answer
