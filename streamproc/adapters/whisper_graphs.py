"""Whisper's encoder and decoder as OpenVINO graphs, made of CTranslate2's weights.

Weights are 8-bit integers with one scale for each output, as CTranslate2 has them; the CPU plugin multiplies them
with inputs that it makes 8-bit as well, a few hundred at a time. Convolutions and norms keep their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset6, opset15

HEAD: Final = 64  # every Whisper has heads of so many numbers
Variables = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class WhisperShape:
    """How large a Whisper model is."""

    mels: int
    width: int  # of encoder and decoder
    encoder_layers: int
    decoder_layers: int
    vocabulary: int

    @property
    def heads(self) -> int:
        """Of each attention."""
        return self.width // HEAD


def shape_of(variables: Variables) -> WhisperShape:
    """KeyError where they are not Whisper's."""
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    return WhisperShape(
        mels=variables["encoder/conv1/weight"].shape[1],
        width=width,
        encoder_layers=sum(n.startswith("encoder/") and n.endswith("/ffn/linear_0/bias") for n in variables),
        decoder_layers=sum(n.startswith("decoder/") and n.endswith("/ffn/linear_0/bias") for n in variables),
        vocabulary=vocabulary,
    )


def encoder_graph(variables: Variables, *, seconds: int) -> openvino.Model:
    """From `mel`, (1, mels, seconds * 100), to what the decoder looks at: keys and values by turns of its layers, each
    (1, heads, seconds * 50, HEAD)."""
    parts, shape = _Parts(variables), shape_of(variables)
    mel = _input("mel", [1, shape.mels, seconds * 100])
    x: Any = mel
    for name, stride in (("encoder/conv1", 1), ("encoder/conv2", 2)):
        x = opset15.convolution(x, parts.constant(f"{name}/weight"), [stride], [1], [1], [1])
        x = opset15.gelu(opset15.add(x, _floats(parts[f"{name}/bias"][None, :, None])), "erf")
    x = opset15.transpose(x, _integers(0, 2, 1))
    x = opset15.add(x, _floats(parts["encoder/position_encodings/encodings"][None, : seconds * 50]))
    for layer in range(shape.encoder_layers):
        name = f"encoder/layer_{layer}"
        normed = parts.norm(x, f"{name}/self_attention/layer_norm")
        query, key, value = (parts.head(normed, f"{name}/self_attention/linear_0", part, of=3) for part in range(3))
        seen = opset15.scaled_dot_product_attention(query, key, value)
        x = opset15.add(x, parts.linear(parts.joined(seen), f"{name}/self_attention/linear_1"))
        x = parts.feed_forward(x, f"{name}/ffn")
    x = parts.norm(x, "encoder/layer_norm")
    shown = [
        parts.head(x, f"decoder/layer_{layer}/attention/linear_1", part, of=2)
        for layer in range(shape.decoder_layers)
        for part in range(2)
    ]
    return openvino.Model([opset15.result(each) for each in shown], [mel], "encoder")


def decoder_graph(variables: Variables, *, alignment_heads: Sequence[tuple[int, int]]) -> openvino.Model:
    """The decoder over the next tokens of B texts; what came before is its state.

    Inputs: `tokens`, (B, n, width), embeddings with their positions added; `mask`, (1, 1, n, all so far), added to the
    attention; `rows`, which of the n to tell the logits of; `order`, always [0, 1, ... B - 1]; and the encoder's output
    as `shown0`, `shown1`, ..., (B, heads, frames, HEAD). Outputs: logits, (B, rows, vocabulary), and the attention of
    the alignment heads, given as (layer, head), on the sound, (B, heads, n, frames).
    """
    parts, shape = _Parts(variables), shape_of(variables)
    tokens, mask = _input("tokens", [-1, -1, shape.width]), _input("mask", [1, 1, -1, -1])
    rows, order = _input("rows", [-1], openvino.Type.i64), _input("order", [-1], openvino.Type.i32)
    shown = [_input(f"shown{i}", [-1, shape.heads, -1, HEAD]) for i in range(2 * shape.decoder_layers)]
    texts = opset15.gather(opset15.shape_of(tokens), _integers(0), _integer(0))
    none_yet = opset15.broadcast(_floats(0.0), opset15.concat([texts, _integers(shape.heads, 0, HEAD)], 0))
    grown = openvino.PartialShape([-1, shape.heads, -1, HEAD])
    states: list[Any] = []
    looks: list[Any] = []
    x: Any = tokens
    for layer in range(shape.decoder_layers):
        name = f"decoder/layer_{layer}"
        normed = parts.norm(x, f"{name}/self_attention/layer_norm")
        query, *new = (parts.head(normed, f"{name}/self_attention/linear_0", part, of=3) for part in range(3))
        both = []
        for kind, piece in zip(("keys", "values"), new, strict=True):
            # Read, reordered, lengthened, kept: the plugin knows this pattern and then copies nothing.
            state = f"{name}/{kind}"
            past = opset6.read_value(none_yet, state, openvino.Type.f32, grown)
            so_far = opset15.concat([opset15.gather(past, order, _integer(0)), piece], 2)
            states.append(opset6.assign(so_far, state))
            both.append(so_far)
        seen = opset15.scaled_dot_product_attention(query, *both, mask)
        x = opset15.add(x, parts.linear(parts.joined(seen), f"{name}/self_attention/linear_1"))
        normed = parts.norm(x, f"{name}/attention/layer_norm")
        asked = opset15.multiply(parts.linear(normed, f"{name}/attention/linear_0"), _floats(HEAD**-0.5))
        keys, values = shown[2 * layer : 2 * layer + 2]
        look = opset15.softmax(opset15.matmul(parts.apart(asked), keys, False, True), -1)  # told below: not fused
        heads = [head for its_layer, head in alignment_heads if its_layer == layer]
        if heads:
            looks.append(opset15.gather(look, _integers(*heads), _integer(1)))
        seen = opset15.matmul(look, values, False, False)
        x = opset15.add(x, parts.linear(parts.joined(seen), f"{name}/attention/linear_2"))
        x = parts.feed_forward(x, f"{name}/ffn")
    asked_for = parts.norm(opset15.gather(x, rows, _integer(1)), "decoder/layer_norm")
    logits = parts.product(asked_for, parts["decoder/embeddings/weight"])
    results = [opset15.result(logits), opset15.result(opset15.concat(looks, 1))]
    return openvino.Model(results, states, [tokens, mask, rows, order, *shown], "decoder")


class _Parts:
    """What both graphs are made of. `x` is (B, n, width) throughout."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._heads = shape_of(variables).heads

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._variables[name].astype(np.float32)

    def constant(self, name: str) -> Any:
        return _floats(self[name])

    def product(self, x: Any, weight: NDArray[np.float32]) -> Any:
        """With a weight of (outputs, inputs), made 8-bit."""
        scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-9) / 127
        small = opset15.constant(np.rint(weight / scale).astype(np.int8))
        back = opset15.multiply(opset15.convert(small, openvino.Type.f32), _floats(scale))
        return opset15.matmul(x, back, False, True)

    def linear(self, x: Any, name: str, part: int = 0, *, of: int = 1) -> Any:
        """One of the projections that are fused in these weights."""
        weight, bias = (np.split(self[f"{name}/{kind}"], of)[part] for kind in ("weight", "bias"))
        return opset15.add(self.product(x, weight), _floats(bias[None, None]))

    def head(self, x: Any, name: str, part: int, *, of: int) -> Any:
        return self.apart(self.linear(x, name, part, of=of))

    def apart(self, x: Any) -> Any:
        """(B, heads, n, HEAD)"""
        return opset15.transpose(opset15.reshape(x, _integers(0, 0, self._heads, HEAD), True), _integers(0, 2, 1, 3))

    def joined(self, x: Any) -> Any:
        """What `apart` took apart."""
        return opset15.reshape(opset15.transpose(x, _integers(0, 2, 1, 3)), _integers(0, 0, self._heads * HEAD), True)

    def norm(self, x: Any, name: str) -> Any:
        evened = opset15.mvn(x, _integers(-1), True, 1e-5, "INSIDE_SQRT")
        return opset15.add(opset15.multiply(evened, self.constant(f"{name}/gamma")), self.constant(f"{name}/beta"))

    def feed_forward(self, x: Any, name: str) -> Any:
        wide = opset15.gelu(self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0"), "erf")
        return opset15.add(x, self.linear(wide, f"{name}/linear_1"))


def _input(name: str, shape: Sequence[int], numbers: openvino.Type = openvino.Type.f32) -> Any:
    made = opset15.parameter(openvino.PartialShape(list(shape)), numbers, name)
    made.output(0).set_names({name})
    return made


def _floats(values: NDArray[Any] | float) -> Any:
    return opset15.constant(np.ascontiguousarray(values, dtype=np.float32))


def _integers(*values: int) -> Any:
    return opset15.constant(np.array(values, np.int64))


def _integer(value: int) -> Any:
    return opset15.constant(np.int64(value))
