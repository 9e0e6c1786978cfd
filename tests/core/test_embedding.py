import numpy as np
import pytest

from streamproc.core.embedding import SeenVector, SpokenVector, pack, unpack
from streamproc.core.span import Span
from tests.builders import vector_of


def test_a_vector_travels_without_loss() -> None:
    vector = vector_of(3, -1, 0.5)

    assert vector.tolist() == unpack(pack(vector)).tolist()


def test_what_is_no_finite_vector_does_not_travel() -> None:
    with pytest.raises(ValueError, match="not a finite vector"):
        pack(np.array([1.0, np.nan], dtype=np.float32))
    with pytest.raises(ValueError, match="not a finite vector"):
        pack(np.ones((2, 2), dtype=np.float32))


def test_bytes_that_are_no_vector_are_refused_wherever_they_come_in() -> None:
    infinite = np.array([np.inf], dtype="<f4").tobytes()

    with pytest.raises(ValueError, match="5 bytes are no float32 vector"):
        unpack(b"12345")
    with pytest.raises(ValueError, match="NaN or infinity"):
        SeenVector(at_ms=0, vector=infinite)
    with pytest.raises(ValueError, match="NaN or infinity"):
        SpokenVector(span=Span(start_ms=0, end_ms=1), text="", language="en", vector=infinite)
