"""Recurrent layers: each step multiplies the input and the state with the weights of every gate.

ONNX: RNN, GRU, LSTM with X [steps, batch, input], W [directions, gates x hidden, input],
R [directions, gates x hidden, hidden]. One step of one direction has gates x hidden x (input + hidden)
multiply-accumulates a sample; the gates' own element-wise work is below a hundredth of it and left out.
"""

from __future__ import annotations

from tailwise.models.operators.rule import Rule, Rules, Uncountable, Work, product, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call


def _recurrent(gates: int) -> Rule:
    def work(call: Call) -> Work:
        _, source = shaped(call, 0, "X")
        _, weight = shaped(call, 1, "W")
        _, state = shaped(call, 2, "R")
        if len(source) != 3 or len(weight) != 3 or len(state) != 3:
            raise Uncountable("X, W and R need three axes each")
        steps, batch = (source[1], source[0]) if call.attributes.get("layout") else (source[0], source[1])
        directions, hidden = state[0], state[2]
        if weight[1] != gates * hidden or weight[2] != source[2]:
            raise Uncountable(f"its weights {list(weight)} do not fit sizes {hidden}, {source[2]}")
        return product(batch, gates * hidden, weight[2] + hidden, steps * directions, recurrent=True)

    return Rule(OperatorKind.MATMUL, work)


def _quantised_lstm(call: Call) -> Work:
    """DynamicQuantizeLSTM (com.microsoft): an LSTM whose W and R are [directions, input, 4 x hidden]."""
    steps, batch, size = shaped(call, 0, "X")[1]
    directions, hidden, wide = shaped(call, 2, "R")[1]
    return product(batch, wide, size + hidden, steps * directions, recurrent=True)


RULES: Rules = {
    "RNN": _recurrent(1),
    "GRU": _recurrent(3),
    "LSTM": _recurrent(4),
    "DynamicQuantizeLSTM": Rule(OperatorKind.MATMUL, _quantised_lstm),
}
