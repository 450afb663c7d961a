"""What several tests share: the shipped testbed model, a small random model of a real architecture, problems."""

from __future__ import annotations

import warm  # isort: split

import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import tacit.cli.main
from banks import FACTORIES, KINDS
from tacit.bank import Bank
from tacit.engines.local import LocalEngine
from tacit.errors import ModelError
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.tasks import sources as problems
from tacit.testbed import real

if TYPE_CHECKING:  # a second, which most modules do without
    import openai
    from starlette.testclient import TestClient

    from server import InProcess

torch.set_num_threads(1)
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's actors are niced by 15: beside other work they would starve


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test of all comes first, so that another core has something to do meanwhile."""
    items.sort(key=lambda item: "test_thousands_of_generated_requests" not in item.nodeid)


def pytest_collection_finish() -> None:
    """Every module has been imported."""
    warm.done()


def save_tiny_qwen2(directory: Path, *, chat: bool = True, seed: int = 0, **settings: object) -> Path:
    """A random-weight Qwen2 (grouped-query attention, untied embeddings) with a byte-level tokenizer, as a folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, "<|pad|>", "<|end|>", "<|user|>", "<|bot|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    if chat:
        fast.chat_template = (
            "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|bot|>' }}{{ m.content }}"
            "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<|bot|>{% endif %}"
        )
    values = {
        "vocab_size": len(vocabulary),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "eos_token_id": vocabulary["<|end|>"],
        "tie_word_embeddings": False,
        **settings,
    }
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**values))  # type: ignore[arg-type]
    model.save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random-weight Qwen2-type model with a chat template."""
    return save_tiny_qwen2(tmp_path_factory.mktemp("models") / "tiny-qwen2")


@pytest.fixture(scope="session")
def tiny(tiny_model: Path) -> Backbone:
    """That model, loaded."""
    return Backbone.load(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A server of that model, called "tiny"; modules that need another make their own."""
    from server import InProcess

    bank = tmp_path_factory.mktemp("tiny") / "bank.db"
    made = InProcess(bank, model=str(tiny_model), name="tiny", verifier="vote")
    yield made
    made.service.close()


@pytest.fixture(scope="module")
def client(server: InProcess) -> openai.OpenAI:
    """The openai package's client of that server."""
    import openai

    http: Any = server.anyone()
    return openai.OpenAI(base_url="http://localhost/v1", api_key="none", http_client=http, max_retries=0)


@pytest.fixture(scope="module")
def raw(server: InProcess) -> TestClient:
    """Requests to that server as they are."""
    return server.anyone()


@pytest.fixture(scope="session")
def testbed() -> Backbone:
    """The shipped testbed model."""
    return Backbone.load("testbed", device="cpu")


@pytest.fixture(scope="session")
def engine(testbed: Backbone) -> LocalEngine:
    """An engine on the testbed."""
    return LocalEngine(testbed)


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, for slow tests; without a package index these are skipped, but not in CI,
    where real weights are part of what is tested."""
    try:
        return real.smollm2()
    except ModelError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


Result = tuple[int, str, str]
Tacit = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tacit:
    """Run a command in this process, from the entry point on: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TACIT_BANK", raising=False)

    def call(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["tacit", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            tacit.cli.main.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def stream(count: int, seed: int = 5, which: str = "AB") -> list[Problem]:
    """Fresh testbed problems."""
    return list(islice(problems.load(f"testbed:{which}", seed=seed, limit=count), count))


@pytest.fixture(params=KINDS)
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Every kind of bank: ``open()`` opens one and the same each time."""
    return FACTORIES[request.param](tmp_path)


@pytest.fixture
def bank(factory: Any) -> Iterator[Bank]:
    """An empty bank of every kind."""
    opened = factory.open()
    yield opened
    opened.close()
