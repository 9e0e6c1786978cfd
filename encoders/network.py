"""The image tower of a `lite` release as OpenVINO runs it: one network of one fixed shape, in the fastest numbers that
give what the trained tower gives.

Where the processor multiplies bfloat16 itself (AVX512-BF16 or AMX), all but the first block runs in it: twice as fast.
The first block stays in float32, for it is where bfloat16 costs most of the likeness to the trained tower: on the
photos of `val` the least cosine is 0.9993 with it and 0.9989 without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from encoders.errors import ReleaseRefused

if TYPE_CHECKING:
    import openvino

Precision = Literal["auto", "f32"]
HALF = "bf16 after the first block"


class Network:
    """Pictures uint8 (batch, H, W, 3) of just that shape to features (batch, 1280) and unit embeddings (batch, dim)."""

    def __init__(self, parts: Sequence[openvino.CompiledModel]) -> None:
        self._parts = parts

    def __call__(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both are copies. Equal pictures give equal bits, whatever else is in the batch."""
        passed: Any = pictures
        for part in self._parts[:-1]:
            passed = part(passed)[0]
        out = self._parts[-1](passed)
        return np.array(out[0]), np.array(out[1])


def precision_of(wanted: Precision, device: str) -> str:
    """`f32`, or `HALF` where it is `auto` and the device computes bfloat16 natively. KeyError for a device that
    OpenVINO does not have here."""
    import openvino

    core = openvino.Core()
    if device.upper() not in core.available_devices:
        raise KeyError(device)
    able = core.get_property(device.upper(), "OPTIMIZATION_CAPABILITIES")
    return HALF if wanted == "auto" and "BF16" in able else "f32"


def compiled(path: Path, shape: tuple[int, int, int, int], *, device: str, threads: int, precision: str) -> Network:
    """The network in `path` for pictures of `shape`, (batch, height, width, 3). Raises ReleaseRefused where it is not
    such a tower."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))

    def part(model: openvino.Model, numbers: str) -> openvino.CompiledModel:
        options = {
            "INFERENCE_PRECISION_HINT": numbers,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return core.compile_model(model, device.upper(), options)

    if precision == "f32":
        return Network([part(model, "f32")])
    first, rest = _after_the_first_block(model, path)
    return Network([part(first, "f32"), part(rest, "bf16")])


def _after_the_first_block(model: openvino.Model, path: Path) -> tuple[openvino.Model, openvino.Model]:
    """The model in two: the stem with the first block, and what takes its output."""
    import openvino
    from openvino import opset13

    border = next((node.output(0) for node in model.get_ordered_ops() if _ends_a_block(node)), None)
    if border is None:
        raise ReleaseRefused(path, "is not an image tower of this kind: it has no linear bottleneck")
    first = openvino.Model([border], model.get_parameters(), "first block")
    between = opset13.parameter(list(border.get_shape()), border.get_element_type())
    takers = [taker for taker in border.get_target_inputs() if taker.get_node().get_type_name() != "Result"]
    for taker in takers:
        taker.replace_source_output(between.output(0))
    return first, openvino.Model(model.get_results(), [between], "rest")


def _ends_a_block(node: openvino.Node) -> bool:
    """Whether this is the bias of a convolution that no activation follows: blocks end so, and nothing else does."""
    if node.get_type_name() != "Add" or node.input_value(0).get_node().get_type_name() != "Convolution":
        return False
    return all(taker.get_node().get_type_name() != "Clamp" for taker in node.output(0).get_target_inputs())
