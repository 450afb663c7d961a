"""How problems and conversations are laid out: the same token ids as ever, for a server's client as for an agent."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from torch import Tensor

from conftest import save_tiny_qwen2
from frozen import same
from tacit.config import LearnConfig, Sampling
from tacit.engines.local import LocalEngine
from tacit.errors import ModelError
from tacit.learning import Learner, Target
from tacit.model.backbone import Backbone
from tacit.model.prompts import Template, token_ids
from tacit.problem import Problem
from tacit.responses import Responder
from tacit.server.api.errors import Refused
from tacit.server.api.prompts import chat_ids
from tacit.server.api.schemas import Message
from tacit.tasks.maths import MATHS

CHATML = (
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no role ' + m.role) }}{% endif %}"
    "{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""In the manner of Qwen: a system message of its own where none is given, no other roles."""

TEMPLATES = {
    "plain": Template(instruction=""),
    "boxed": Template(),
    "system": Template(instruction="Be brief.", system="You are “careful”.\t"),
}

PROBLEMS: list[tuple[str, list[tuple[str, str]]]] = [
    ("compute 3 + 4", []),
    ("tom has 45 eggs and sam has 34 eggs. how many more?\n", []),
    ("  2 + 2 = ?  ", [("1 + 1 = ?", "2")]),
    ("Überlege: 数学?", [("é", "a\nb"), ("1 + 1", " \\boxed{2}\n\n")]),
]

CONVERSATIONS: list[list[tuple[str, str]]] = [
    [("user", "compute 3 + 4")],
    [("user", "")],
    [("system", "Answer in French."), ("user", "compute 3 + 4\n")],
    [("developer", "Answer in French."), ("user", "compute 3 + 4")],
    [("user", "1 + 1 = ?"), ("assistant", "2"), ("user", "2 + 2 = ?")],
    [("system", "a"), ("user", "b"), ("assistant", " c\n"), ("system", "d"), ("user", "e"), ("user", "Ü数")],
]


@pytest.fixture(scope="module")
def models(testbed: Backbone, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    """The testbed, and models with a chat template and without one, under each template."""
    folder: Path = save_tiny_qwen2(tmp_path_factory.mktemp("models") / "bare", chat=False)
    bare = Backbone.load(str(folder), device="cpu")
    chatml = copy.deepcopy(tiny.tokenizer)
    chatml.chat_template = CHATML
    for tokenizer in (chatml, bare.tokenizer):  # one that begins every text, which a chat template has to do itself
        begin = [("<|pad|>", tokenizer.convert_tokens_to_ids("<|pad|>"))]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<|pad|> $A", None, begin)
    kinds = {"testbed": (testbed.model, testbed.tokenizer), "chat": (tiny.model, tiny.tokenizer)}
    kinds |= {"chatml": (tiny.model, chatml), "bare": (bare.model, bare.tokenizer)}
    return {
        f"{kind}, {name}": Backbone(model, tokenizer, template, weights_digest="0" * 64)
        for kind, (model, tokenizer) in kinds.items()
        for name, template in TEMPLATES.items()
    }


def asked(backbone: Backbone, messages: Sequence[tuple[str, str]]) -> Tensor:
    made = [Message(role=role, content=content) for role, content in messages]  # type: ignore[arg-type]
    return chat_ids(backbone, made, backbone.context)


def shown(backbone: Backbone, ids: Tensor) -> Any:
    """The prompt as people read it, and what tells its ids from any other's."""
    digest = hashlib.sha256(repr(ids.tolist()).encode()).hexdigest()
    return [backbone.tokenizer.decode(ids), len(ids), digest[:16]]


def test_the_ids_of_problems_and_conversations(models: dict[str, Backbone]) -> None:
    found = {
        name: {
            "problems": [shown(model, model.encode(text, examples)) for text, examples in PROBLEMS],
            "conversations": [
                shown(model, asked(model, messages))
                for messages in CONVERSATIONS
                # The system message belongs to chat templates; plain, a server once added it and the agent did not.
                if name != "bare, system" or messages[0][0] != "user"
            ],
        }
        for name, model in models.items()
    }
    same("prompts", found)


def test_a_conversation_of_one_question_is_the_prompt_of_that_problem(models: dict[str, Backbone]) -> None:
    for model in models.values():
        for text, _ in PROBLEMS:
            assert asked(model, [("user", text)]).tolist() == model.encode(text).tolist()


def test_the_worked_examples_of_a_task_are_shown_to_a_servers_client_too(models: dict[str, Backbone]) -> None:
    for name in ("chat, system", "chatml, system", "bare, boxed"):
        model = models[name].asked(replace(models[name].template, examples=(("1 + 1 = ?", "2"), ("2 + 3", "5"))))
        assert asked(model, [("user", "3 + 4")]).tolist() == model.encode("3 + 4").tolist()
        assert model.encode("3 + 4").tolist() == models[name].encode("3 + 4", model.template.examples).tolist()
        talk = [("system", "Be kind."), ("user", "8 + 8"), ("assistant", "16"), ("user", "9 + 9")]
        said = model.tokenizer.decode(asked(model, talk))
        places = [said.index(part) for part in ("Be kind.", "1 + 1", "2 + 3", "8 + 8", "16", "9 + 9")]
        assert places == sorted(places) and said.count("1 + 1") == 1


def test_what_a_chat_template_refuses_is_told_in_its_words(models: dict[str, Backbone]) -> None:
    strict = copy.deepcopy(models["chatml, plain"].tokenizer)
    strict.chat_template = "{% if messages[0].role != 'user' %}{{ raise_exception('no system here') }}{% endif %}x"
    model = models["chatml, system"]
    strange = Backbone(model.model, strict, model.template, weights_digest="0" * 64)
    said = "the model's chat template refuses these messages: no system here"
    with pytest.raises(ModelError, match=said):
        strange.encode("compute 3 + 4")
    with pytest.raises(Refused, match=said) as refused:
        asked(strange, [("user", "compute 3 + 4")])
    assert (refused.value.status, refused.value.param) == (400, "messages")


def test_a_conversation_without_tokens_is_refused_by_both(models: dict[str, Backbone]) -> None:
    silent = copy.deepcopy(models["chat, plain"].tokenizer)
    silent.chat_template = "{{ '' }}"
    assert token_ids(silent, [{"role": "user", "content": "x"}]) == []
    model = Backbone(models["chat, plain"].model, silent, Template(instruction=""), weights_digest="0" * 64)
    with pytest.raises(ModelError, match="makes no tokens of the problem 'x'"):
        model.encode("x")
    with pytest.raises(Refused, match="the prompt has no tokens"):
        asked(model, [("user", "x")])


def test_only_a_plain_model_is_stopped_where_it_would_go_on_with_a_problem(
    models: dict[str, Backbone],
) -> None:
    for name, backbone in models.items():
        plain = name.startswith("bare")
        assert (backbone.stop == ("\nProblem:",)) == plain and bool(backbone.stop) == plain
        stopped = backbone.asked(replace(backbone.template, stop=("\n\n",)))
        assert stopped.stop == ("\n\n", *backbone.stop) and stopped.fingerprint == backbone.fingerprint
        engine, problem = LocalEngine(stopped), Problem("p", "1 + 1 = ?")
        sampling = Sampling(samples=1, max_tokens=2)
        asked = Responder(engine, sampling, 0).requests(problem, backbone.encode(problem.text), "zero-shot")
        assert {one.stop for one in asked} == {stopped.stop}
        learner = Learner(stopped, engine, LearnConfig(rollouts=2, tokens=2), sampling, seed=0)
        request = learner._request(learner._begin(Target(problem, MATHS.vote(["2"]))))
        assert request.stop == stopped.stop
