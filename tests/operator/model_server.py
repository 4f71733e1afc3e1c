"""A server of model files, good and bad, for the operator under test to read."""

import contextlib
from collections.abc import AsyncIterator

import numpy as np
import onnx
from aiohttp import web
from onnx import TensorProto, helper, numpy_helper

PATHS = ("good", "dynamic", "partial", "truncated", "words", "missing", "redirect", "slow")
_LINK_LOCAL = "http://169.254.169.254/latest/meta-data/model.onnx"


def convolutions(channels: int = 32, layers: int = 8, size: int = 56, *, width: int | str = 56) -> bytes:
    """A chain of 3 x 3 convolutions; ``width`` as a word makes the axis dynamic."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for layer in range(layers):
        weight = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32) / channels
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(
            helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], pads=[1, 1, 1, 1])
        )
    shape: list[int | str] = [1, channels, size, width]
    return _model(nodes, weights, "x0", f"x{layers}", shape)


def with_a_foreign_operator() -> bytes:
    """A convolution, and an operator that nobody outside its author's house can count."""
    weight = np.ones((8, 8, 3, 3), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], name="known"),
        helper.make_node("Whatever", ["y"], ["z"], domain="com.example", name="foreign"),
    ]
    return _model(nodes, [numpy_helper.from_array(weight, "w")], "x", "z", [1, 8, 64, 64])


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    source: str,
    result: str,
    shape: list[int | str],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets)
    return bytes(model.SerializeToString())


def _application() -> web.Application:
    good = convolutions()
    files = {
        "good": good,
        "dynamic": convolutions(width="W"),
        "partial": with_a_foreign_operator(),
        # The first half of a file whose weights come first holds no whole graph.
        "truncated": good[: len(good) // 2],
        "words": b"<html><body>Sign in to continue</body></html>",
    }

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPFound(_LINK_LOCAL)

    async def give(request: web.Request) -> web.Response:
        body = files.get(request.match_info["name"])
        if body is None:
            raise web.HTTPNotFound
        span = request.http_range
        if span.start is None:
            return web.Response(body=body, headers={"Accept-Ranges": "bytes"})
        part = body[span.start : span.stop]
        last = span.start + len(part) - 1
        headers = {"Content-Range": f"bytes {span.start}-{last}/{len(body)}", "Accept-Ranges": "bytes"}
        return web.Response(status=206, body=part, headers=headers)

    application = web.Application()
    application.router.add_get("/redirect.onnx", redirect)
    application.router.add_get("/{name}.onnx", give)
    return application


@contextlib.asynccontextmanager
async def model_server() -> AsyncIterator[str]:
    """Serve on a free port of loopback and give the URL below which the files are."""
    runner = web.AppRunner(_application(), handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
