"""The image tower."""

from pathlib import Path

import pytest
import torch

from encoders.errors import WeightsRefused
from encoders.vision import ImageTower, pretrained


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (96, 32)])
def test_any_shape_of_picture_gives_unit_vectors(size: tuple[int, int]) -> None:
    vectors = ImageTower("tiny", 32).eval()(torch.randn(3, 3, *size))

    assert (3, 32) == tuple(vectors.shape)
    assert torch.allclose(torch.ones(3), vectors.norm(dim=1), atol=1e-5)


def test_attention_starts_as_plain_average() -> None:
    tower = ImageTower("tiny", 32)
    features = torch.rand(2, 64, 3, 5)

    assert torch.allclose(features.mean(dim=(2, 3)), tower.pool(features), atol=1e-6)


def test_folding_batch_norm_changes_nothing() -> None:
    published = pytest.importorskip("efficientnet_lite_pytorch", reason="the published network is not installed")
    from encoders.vision import packaged_weights

    reference = published.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(packaged_weights("efficientnet-lite0"), weights_only=True))
    pixels = torch.rand(1, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        expected, got = reference.extract_features(pixels), pretrained("efficientnet-lite0").eval()(pixels)

    assert torch.allclose(expected, got, atol=1e-3)


def test_weights_of_another_network_are_refused() -> None:
    from encoders.vision import packaged_weights

    with pytest.raises(WeightsRefused, match="not the weights of efficientnet-lite2"):
        pretrained("efficientnet-lite2", packaged_weights("efficientnet-lite0"))


def test_a_pickle_that_is_more_than_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"run": Path("/")}, path)

    with pytest.raises(WeightsRefused, match=r"evil\.pth: not a readable state dict"):
        pretrained("efficientnet-lite0", path)


def test_a_missing_weight_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match=r"nowhere\.pth"):
        pretrained("efficientnet-lite0", tmp_path / "nowhere.pth")
