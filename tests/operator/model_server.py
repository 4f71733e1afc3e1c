"""A server of model files, good and bad, for the operator under test to read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import onnx
from aiohttp import web
from onnx import TensorProto, helper, numpy_helper

_HUGE_BYTES = 5 * 2**30
_CHUNK_BYTES = 2**18


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


# An ir_version, then a graph of 4 TiB that is nothing but nodes of 1 KiB: no weights to jump over.
_ENDLESS_HEAD = b"\x08\x08\x3a" + _varint(2**42)
# The same that ends with the file: the rest of it, less the eight bytes that say so.
_HUGE_HEAD = b"\x08\x08\x3a" + _varint(_HUGE_BYTES - 8)
_NODES = (b"\x0a" + _varint(1024) + bytes(1024)) * (_CHUNK_BYTES // 1024 + 2)
_NODE_BYTES = 1 + len(_varint(1024)) + 1024


def _endless(head: bytes, offset: int, length: int) -> bytes:
    """Bytes of a file of nodes; at most a chunk of them."""
    if offset < len(head):
        return (head[offset:] + _NODES)[:length]
    begin = (offset - len(head)) % _NODE_BYTES
    return _NODES[begin : begin + min(length, _CHUNK_BYTES)]


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

    async def endless(request: web.Request) -> web.StreamResponse:
        """A graph that goes on: announced as 5 GB or not at all, in ranges or whole."""
        announced, ranged = "huge" in request.path, "ranges" in request.path
        head = _HUGE_HEAD if announced else _ENDLESS_HEAD
        span = request.http_range
        start, stop = 0, _HUGE_BYTES if announced else 2**42
        response = web.StreamResponse()
        if ranged and span.start is not None:
            start, stop = span.start, min(stop, span.stop or stop)
            response.set_status(206)
            whole = _HUGE_BYTES if announced else "*"
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{whole}"
        if announced or ranged:
            response.content_length = stop - start
        # The reader hangs up when it has had enough.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            while start < stop:
                chunk = _endless(head, start, stop - start)
                await response.write(chunk)
                start += len(chunk)
        return response

    async def late(_: web.Request) -> web.Response:
        """No such file, after the time of a test's pods is up."""
        await asyncio.sleep(3)
        raise web.HTTPNotFound

    application = web.Application()
    application.router.add_get("/late.onnx", late)
    for kind in ("huge-ranges", "huge-whole", "endless-ranges", "endless-whole"):
        application.router.add_get(f"/{kind}.onnx", endless)
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
