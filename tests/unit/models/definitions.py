"""What products operators are defined to make, in NumPy and without a thought for speed.

Each function is its operator's definition in the ONNX specification (or in ONNX Runtime's documentation of
its own operators), and multiplies Numbers where the definition sums products. Scales, gates and masks are
plain: they are no multiply-accumulates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.unit.models.counting import floats, numbers, times

Array = Any


def automatic_pads(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], mode: str
) -> list[int]:
    """Pads at every begin, then at every end, for SAME_UPPER, SAME_LOWER and VALID."""
    begins, ends = [], []
    for length, width, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        total = max(0, (math.ceil(length / stride) - 1) * stride + reach - length) if mode != "VALID" else 0
        less = total // 2
        begins.append(total - less if mode == "SAME_LOWER" else less)
        ends.append(less if mode == "SAME_LOWER" else total - less)
    return begins + ends


def convolution(
    x: Array,
    w: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int = 1,
) -> Array:
    """Every result is the sum of its window times its filter, padding included."""
    dims = w.ndim - 2
    padded = numbers(np.pad(x, [(0, 0), (0, 0), *zip(pads[:dims], pads[dims:], strict=True)]))
    filters = numbers(w)
    reach = [(width - 1) * dilation + 1 for width, dilation in zip(w.shape[2:], dilations, strict=True)]
    sizes = [(s - r) // t + 1 for s, r, t in zip(padded.shape[2:], reach, strides, strict=True)]
    result = np.zeros((x.shape[0], w.shape[0], *sizes))
    per_group = w.shape[0] // group
    for sample, channel in itertools.product(range(x.shape[0]), range(w.shape[0])):
        first = (channel // per_group) * w.shape[1]
        for position in np.ndindex(*sizes):
            window = tuple(
                slice(at * stride, at * stride + length, dilation)
                for at, stride, length, dilation in zip(position, strides, reach, dilations, strict=True)
            )
            patch = padded[(sample, slice(first, first + w.shape[1]), *window)]
            result[(sample, channel, *position)] = np.sum(patch * filters[channel])
    return result


def transposed_convolution(
    x: Array,
    w: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int = 1,
) -> Array:
    """Every input adds its filter, times itself, to the results around it; the pads are then cut off."""
    dims = w.ndim - 2
    source, filters = numbers(x), numbers(w)
    reach = [(width - 1) * dilation + 1 for width, dilation in zip(w.shape[2:], dilations, strict=True)]
    sizes = [(s - 1) * t + r for s, r, t in zip(x.shape[2:], reach, strides, strict=True)]
    whole: Array = np.zeros((x.shape[0], w.shape[1] * group, *sizes))
    for sample, channel in itertools.product(range(x.shape[0]), range(x.shape[1])):
        first = (channel // (x.shape[1] // group)) * w.shape[1]
        for position in np.ndindex(*x.shape[2:]):
            window = tuple(
                slice(at * stride, at * stride + length, dilation)
                for at, stride, length, dilation in zip(position, strides, reach, dilations, strict=True)
            )
            part = floats(filters[channel] * source[(sample, channel, *position)])
            whole[(sample, slice(first, first + w.shape[1]), *window)] += part
    cut = tuple(slice(pads[axis], sizes[axis] - pads[axis + dims]) for axis in range(dims))
    return whole[(slice(None), slice(None), *cut)]


def deformed_convolution(
    x: Array, w: Array, offset: Array, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> Array:
    """As a convolution, but each tap looks where its offset says, between four neighbours."""
    channels, height, width = x.shape[1:]
    filters = numbers(w)
    kernel = w.shape[2:]
    sizes = offset.shape[2:]
    moves = offset.reshape(x.shape[0], *kernel, 2, *sizes)
    result = np.zeros((x.shape[0], w.shape[0], *sizes))

    def at(sample: int, channel: int, row: float, column: float) -> float:
        total = 0.0
        for r in (math.floor(row), math.floor(row) + 1):
            for c in (math.floor(column), math.floor(column) + 1):
                if 0 <= r < height and 0 <= c < width:
                    total += float(x[sample, channel, r, c]) * (1 - abs(row - r)) * (1 - abs(column - c))
        return total

    for sample, i, j in itertools.product(range(x.shape[0]), range(sizes[0]), range(sizes[1])):
        taps = np.zeros((channels, *kernel))
        for channel, a, b in np.ndindex(*taps.shape):
            row = i * strides[0] - pads[0] + a * dilations[0] + moves[sample, a, b, 0, i, j]
            column = j * strides[1] - pads[1] + b * dilations[1] + moves[sample, a, b, 1, i, j]
            taps[channel, a, b] = at(sample, channel, row, column)
        sampled = numbers(taps)
        for channel in range(w.shape[0]):
            result[sample, channel, i, j] = np.sum(sampled * filters[channel])
    return result


def contraction(equation: str, operands: Sequence[Array]) -> Array:
    """Einsum of two or more operands from left to right, each step over the labels of both.

    Labels that one operand has alone, and that nothing later needs, are summed before they are multiplied.
    """
    terms, output = equation.split("->")
    labels = terms.split(",")
    held, array = labels[0], floats(operands[0])
    for index in range(1, len(operands)):
        needed = set(output).union(*labels[index + 1 :])
        left, right = [held, array], [labels[index], floats(operands[index])]
        for own, other in ((left, right), (right, left)):
            for label in [label for label in own[0] if label not in needed and label not in other[0]]:
                own[1] = own[1].sum(axis=own[0].index(label))
                own[0] = own[0].replace(label, "")
        held = "".join(label for label in dict.fromkeys(left[0] + right[0]) if label in needed)
        every = "".join(dict.fromkeys(left[0] + right[0]))
        sizes = {label: max(_size(left, label), _size(right, label)) for label in every}
        factors = [numbers(_spread(each, every, sizes)) for each in (left, right)]
        summed = tuple(axis for axis, label in enumerate(every) if label not in held)
        array = floats(np.sum(np.asarray(factors[0] * factors[1], dtype=object), axis=summed))
        held = "".join(label for label in every if label in held)
    return array.transpose([held.index(label) for label in output])


def _size(operand: Sequence[Any], label: str) -> int:
    return int(operand[1].shape[operand[0].index(label)]) if label in operand[0] else 1


def _spread(operand: Sequence[Any], every: str, sizes: dict[str, int]) -> Array:
    """The operand with an axis for each label, repeated where it has none."""
    labels, array = operand
    ordered = array.transpose([labels.index(label) for label in every if label in labels])
    widened = ordered.reshape([_size(operand, label) for label in every])
    return np.broadcast_to(widened, [sizes[label] for label in every])


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def recurrent(kind: str, x: Array, w: Array, r: Array, direction: str) -> Array:
    """RNN, GRU (reset before its product) and LSTM without biases; X [steps, batch, input]."""
    steps, batch, _ = x.shape
    directions, hidden = r.shape[0], r.shape[2]
    result = np.zeros((steps, directions, batch, hidden))
    for index in range(directions):
        order = range(steps)
        if direction == "reverse" or index == 1:
            order = range(steps - 1, -1, -1)
        state, cell = np.zeros((batch, hidden)), np.zeros((batch, hidden))
        for step in order:
            state, cell = _STEPS[kind](x[step], w[index], r[index], state, cell)
            result[step, index] = state
    return result


def _rnn_step(x: Array, w: Array, r: Array, state: Array, cell: Array) -> tuple[Array, Array]:
    return np.tanh(times(x, w.T) + times(state, r.T)), cell


def _gru_step(x: Array, w: Array, r: Array, state: Array, cell: Array) -> tuple[Array, Array]:
    update_w, reset_w, hidden_w = np.split(w, 3)
    update_r, reset_r, hidden_r = np.split(r, 3)
    update = _sigmoid(times(x, update_w.T) + times(state, update_r.T))
    reset = _sigmoid(times(x, reset_w.T) + times(state, reset_r.T))
    candidate = np.tanh(times(x, hidden_w.T) + times(reset * state, hidden_r.T))
    return (1 - update) * candidate + update * state, cell


def _lstm_step(x: Array, w: Array, r: Array, state: Array, cell: Array) -> tuple[Array, Array]:
    entry, output, forget, candidate = np.split(times(x, w.T) + times(state, r.T), 4, axis=1)
    cell = _sigmoid(forget) * cell + _sigmoid(entry) * np.tanh(candidate)
    return _sigmoid(output) * np.tanh(cell), cell


_STEPS = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def attention(q: Array, k: Array, v: Array, *, causal: bool = False) -> Array:
    """Heads of queries [B, h, S, d] over keys [B, g, T, d] and values [B, g, T, e]; g divides h."""
    repeat = q.shape[1] // k.shape[1]
    keys, values = np.repeat(k, repeat, axis=1), np.repeat(v, repeat, axis=1)
    scores = times(q, keys.swapaxes(-1, -2)) / math.sqrt(q.shape[-1])
    if causal:
        rows, columns = scores.shape[-2:]
        hidden = np.arange(columns)[None, :] > np.arange(rows)[:, None] + (columns - rows)
        scores = np.where(hidden, -1e9, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return times(weights / weights.sum(axis=-1, keepdims=True), values)


def linear_attention(q: Array, k: Array, v: Array, decay: float, beta: float, *, delta: bool) -> Array:
    """One state [dk, dv] a key head, written and read at each step; q [B, T, h, d], k and v [B, T, g, d].

    The decay is exp(0) where none is given, and the rate beta one.
    """
    batch, steps, heads, _ = q.shape
    groups = k.shape[2]
    result = np.zeros((batch, steps, heads, v.shape[-1]))
    for sample, group in itertools.product(range(batch), range(groups)):
        state = np.zeros((k.shape[-1], v.shape[-1]))
        for step in range(steps):
            state = math.exp(decay) * state
            key, value = k[sample, step, group], v[sample, step, group]
            if delta:
                value = beta * (value - times(key[None, :], state)[0])
            state = state + times(key[:, None], value[None, :])
            for head in range(group * heads // groups, (group + 1) * heads // groups):
                result[sample, step, head] = times(q[sample, step, head][None, :], state)[0]
    return result / math.sqrt(q.shape[-1])


def split_heads(x: Array, heads: int) -> Array:
    """[B, S, h x d] as [B, h, S, d]."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def joined_heads(x: Array) -> Array:
    """[B, h, S, d] as [B, S, h x d]."""
    joined = x.swapaxes(1, 2)
    return joined.reshape(*joined.shape[:2], -1)
