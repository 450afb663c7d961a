"""``tacit run``, ``tacit demo`` and ``tacit ask``: the commands that load a model.

Builds on config at import, so that ``--help`` shows the true defaults, and on runner, agent and report when called.
Options only fill in the dataclasses of config; what they mean, and which values are allowed, is said there.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tacit.cli.common import (
    BankOption,
    Interrupted,
    JsonOption,
    NamespaceOption,
    emit,
    emit_json,
    one_line,
    opened_bank,
    show_summary,
)
from tacit.cli.progress import Progress
from tacit.config import LearnConfig, RecallConfig, RunConfig, Sampling, addresses_of
from tacit.errors import ConfigError

if TYPE_CHECKING:
    from tacit.bank import Bank
    from tacit.responses import Responses

RUN, SAMPLING, LEARN, RECALL = RunConfig(), Sampling(), LearnConfig(), RecallConfig()
"""The defaults, as config has them."""

DEMO = RunConfig(out="runs/demo", limit=216, window=12, baselines=("icl", "random", "verified", "majority"))
"""The demonstration: enough problems for intervals, in minutes on two cores."""

MODEL = "Model"
LEARNING = "Learning"
RECALLING = "Recall and routing"
SCALE = "Past one machine"

ModelOption = Annotated[
    str, typer.Option("--model", metavar="testbed|PATH|HUBID", help="A causal language model.", rich_help_panel=MODEL)
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="S", help="Same seed, same run.")]
VerifierOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Who decides where the answers differ: reward-model, vote, logprob, none (the memory's). Default: the "
        "best there is for the model.",
        rich_help_panel=RECALLING,
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 ...", rich_help_panel=MODEL)]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="URL",
        help="A vLLM server that samples, http://HOST:PORT/v1; several by commas or repeated. Default: this process.",
        rich_help_panel=MODEL,
    ),
]
DtypeOption = Annotated[str, typer.Option(metavar="TYPE", help="float32, bfloat16, float16.", rich_help_panel=MODEL)]


def run(
    *,
    model: ModelOption = RUN.model,
    data: Annotated[
        str, typer.Option(metavar="testbed|testbed:A|testbed:B|FILE.jsonl", help="Where the problems come from.")
    ] = RUN.data,
    bank: Annotated[
        str | None,
        typer.Option("--bank", metavar="URL", envvar="TACIT_BANK", help="Memory bank; default: a file in --out."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run folder; an interrupted run continues.")] = Path(RUN.out),
    seed: SeedOption = RUN.seed,
    limit: Annotated[int | None, typer.Option(metavar="N", help="How many problems; default: all.")] = RUN.limit,
    window: Annotated[
        int, typer.Option(metavar="W", help="Problems answered before their memories are learned together.")
    ] = RUN.window,
    namespace: NamespaceOption = RUN.namespace,
    baselines: Annotated[
        str, typer.Option(metavar="LIST", help="Run beside: icl, majority, random, verified, by commas; or none.")
    ] = ",".join(RUN.baselines),
    samples: Annotated[int, typer.Option(metavar="N", help="Answers sampled per arm and problem.")] = SAMPLING.samples,
    temperature: Annotated[float, typer.Option(metavar="T", help="Of those samples.")] = SAMPLING.temperature,
    top_p: Annotated[float, typer.Option(metavar="P", help="Nucleus mass.")] = SAMPLING.top_p,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens per answer.")] = SAMPLING.max_tokens,
    tokens: Annotated[
        int, typer.Option(metavar="K", help="Vectors of a soft prompt.", rich_help_panel=LEARNING)
    ] = LEARN.tokens,
    steps: Annotated[int, typer.Option(metavar="N", help="Learning steps.", rich_help_panel=LEARNING)] = LEARN.steps,
    rollouts: Annotated[
        int, typer.Option(metavar="G", help="Rollouts per step.", rich_help_panel=LEARNING)
    ] = LEARN.rollouts,
    lr: Annotated[float, typer.Option(metavar="X", help="Learning rate of Adam.", rich_help_panel=LEARNING)] = LEARN.lr,
    init: Annotated[
        str,
        typer.Option(metavar="NAME", help="gaussian, vocabulary, nearest.", rich_help_panel=LEARNING),
    ] = LEARN.init,
    label: Annotated[
        str,
        typer.Option(metavar="NAME", help="verified, confident, zero-shot, routed, renewed.", rich_help_panel=LEARNING),
    ] = LEARN.label,
    reward: Annotated[
        str, typer.Option(metavar="NAME", help="majority, or a control: random, format.", rich_help_panel=LEARNING)
    ] = LEARN.reward,
    admit: Annotated[
        float, typer.Option(metavar="X", help="Least mean reward of an active memory.", rich_help_panel=LEARNING)
    ] = LEARN.admit,
    admit_belief: Annotated[
        float,
        typer.Option(metavar="X", help="Least belief of a reward model in the label.", rich_help_panel=LEARNING),
    ] = LEARN.admit_belief,
    enough: Annotated[
        float,
        typer.Option(
            metavar="X", help="Share right by the recalled memory from which none is learned.", rich_help_panel=LEARNING
        ),
    ] = LEARN.enough,
    settled: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Finished after N steps in a row with full rewards; 0: all steps.",
            rich_help_panel=LEARNING,
        ),
    ] = LEARN.settled,
    batch: Annotated[
        int, typer.Option(metavar="B", help="Problems learned at once; speed only.", rich_help_panel=LEARNING)
    ] = LEARN.batch,
    row_tokens: Annotated[
        int,
        typer.Option(
            metavar="T", help="Most tokens in a gradient pass; fewer need less room.", rich_help_panel=LEARNING
        ),
    ] = LEARN.row_tokens,
    key: Annotated[
        str, typer.Option(metavar="KIND", help="last, last:L, input, hidden, hidden:L, kv.", rich_help_panel=RECALLING)
    ] = RECALL.key,
    floor: Annotated[
        float, typer.Option(metavar="X", help="Least similarity of a recall.", rich_help_panel=RECALLING)
    ] = RECALL.floor,
    verifier: VerifierOption = RUN.verifier,
    reward_model: Annotated[
        str | None,
        typer.Option(metavar="PATH|HUBID", help="For the verifier reward-model.", rich_help_panel=RECALLING),
    ] = RUN.reward_model,
    device: DeviceOption = RUN.device,
    dtype: DtypeOption = RUN.dtype,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads.", rich_help_panel=MODEL)] = RUN.threads,
    ray: Annotated[
        str | None,
        typer.Option(metavar="local|ADDRESS", help="Learn and generate in Ray actors there.", rich_help_panel=SCALE),
    ] = RUN.ray,
    learners: Annotated[
        int, typer.Option(metavar="N", help="Actors that learn, and generate.", rich_help_panel=SCALE)
    ] = RUN.learners,
    engines: Annotated[
        int, typer.Option(metavar="N", help="Actors that only generate.", rich_help_panel=SCALE)
    ] = RUN.engines,
    engine: EngineOption = None,
) -> None:
    """Answer a stream of problems one after the other, learn a memory from each, and report."""
    config = RunConfig(
        model=model,
        data=data,
        out=str(out),
        bank=bank,
        seed=seed,
        limit=limit,
        window=window,
        namespace=namespace,
        verifier=verifier,
        reward_model=reward_model,
        engine=addresses_of(engine),
        baselines=_names(baselines),
        device=device,
        dtype=dtype,
        threads=threads,
        ray=ray,
        learners=learners,
        engines=engines,
        sampling=Sampling(samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens),
        learn=LearnConfig(
            tokens=tokens,
            steps=steps,
            rollouts=rollouts,
            lr=lr,
            init=init,
            label=label,
            reward=reward,
            admit=admit,
            admit_belief=admit_belief,
            enough=enough,
            settled=settled,
            batch=batch,
            row_tokens=row_tokens,
        ),
        recall=RecallConfig(key=key, floor=floor),
    )
    _run(config, f"{model} on {data}, seed {seed}")


def demo(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run folder; an interrupted demo continues.")] = Path(
        DEMO.out
    ),
    seed: SeedOption = DEMO.seed,
    limit: Annotated[int, typer.Option(metavar="N", help="How many problems.")] = DEMO.limit or 0,
    window: Annotated[
        int, typer.Option(metavar="W", help="Problems answered before their memories are learned together.")
    ] = DEMO.window,
) -> None:
    """See it work: the testbed model on fresh problems, beside in-context learning and controls."""
    _run(replace(DEMO, out=str(out), seed=seed, limit=limit, window=window), f"demo, seed {seed}")


def ask(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="The problem's text, or - to read it from stdin.")],
    *,
    bank: BankOption,
    model: ModelOption = RUN.model,
    namespace: NamespaceOption = RUN.namespace,
    learn: Annotated[bool, typer.Option("--learn", help="Learn a memory from it, and store it.")] = False,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Recall a memory, or do without.")] = True,
    samples: Annotated[int, typer.Option(metavar="N", help="Answers sampled per arm.")] = SAMPLING.samples,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens per answer.")] = SAMPLING.max_tokens,
    key: Annotated[str, typer.Option(metavar="KIND", help="last, input, hidden, kv: as in the run.")] = RECALL.key,
    floor: Annotated[float, typer.Option(metavar="X", help="Least similarity of a recall.")] = RECALL.floor,
    verifier: VerifierOption = RUN.verifier,
    reward_model: Annotated[
        str | None, typer.Option(metavar="PATH|HUBID", help="For the verifier reward-model.")
    ] = RUN.reward_model,
    seed: SeedOption = RUN.seed,
    device: DeviceOption = RUN.device,
    dtype: DtypeOption = RUN.dtype,
    json: JsonOption = False,
) -> None:
    """Answer one problem with what a bank remembers, and say which memory was used and why."""
    config = RunConfig(
        model=model,
        bank=bank,
        seed=seed,
        namespace=namespace,
        verifier=verifier,
        reward_model=reward_model,
        device=device,
        dtype=dtype,
        sampling=Sampling(samples=samples, max_tokens=max_tokens),
        recall=RecallConfig(key=key, floor=floor),
    )
    text = (sys.stdin.read() if problem == "-" else problem).strip()
    if not text:
        raise ConfigError("The problem is empty; give its text.")
    with opened_bank(bank, create=learn) as opened:
        facts = _ask(config, opened, text, use_memory=memory, learn=learn)
    if json:
        emit_json(facts)
    else:
        _show_answer(facts)


def _ask(config: RunConfig, bank: Bank, text: str, *, use_memory: bool, learn: bool) -> dict[str, Any]:
    """What ``tacit ask --json`` prints: the greedy answer that was returned, why, and both ways of answering."""
    from tacit.experiments.run import build_agent, set_threads
    from tacit.memory import State
    from tacit.problem import Problem

    kinds = sorted({info.key_kind for info in bank.find(config.namespace, states=[State.ACTIVE])})
    if use_memory and kinds and config.recall.key not in kinds:
        raise ConfigError(f"The memories of this bank have keys of kind {', '.join(kinds)}; give --key {kinds[0]}.")
    _quiet()
    set_threads(config)
    agent = build_agent(config, bank)
    problem = Problem(f"ask/{hashlib.sha256(text.encode()).hexdigest()[:16]}", text)
    [answered] = agent.answer([problem], use_memory=use_memory)

    def arm(responses: Responses) -> dict[str, Any]:
        vote = responses.vote
        return {
            "greedy_answer": responses.greedy_answer,
            "answer": vote.answer,
            "share": vote.share,
            "why": vote.why,
            "answers": list(responses.answers),
            "text": responses.greedy.text,
        }

    learned = None
    if learn:
        [remembered] = agent.learn([answered])
        agent.remember([answered], [remembered])
        kept = remembered.memory
        reason = remembered.learned.reason if kept is None else kept.reason
        learned = {"memory_id": kept and kept.id, "state": kept and str(kept.state), "reason": reason}
    hit = answered.hit
    return {
        "answer": answered.greedy_answer,
        "route": answered.greedy_route.name,
        "why": answered.greedy_route.why,
        "text": answered.greedy.text,
        "recalled": hit and {"id": hit.memory_id, "problem_id": hit.problem_id, "similarity": hit.similarity},
        "zero_shot": arm(answered.zero_shot),
        "memory": answered.memory and arm(answered.memory),
        "learned": learned,
        "tokens": answered.tokens,
    }


def _show_answer(facts: dict[str, Any]) -> None:
    lines = [("answer", facts["answer"] or "none was given"), ("route", f"{facts['route']}: {facts['why']}")]
    if facts["recalled"]:
        recalled = facts["recalled"]
        source = f"similarity {recalled['similarity']:.3f}, learned on {recalled['problem_id']}"
        lines.append(("memory", f"{recalled['id']}, {source}"))
    lines.append(("zero-shot", "{greedy_answer} greedy; {why}".format(**facts["zero_shot"])))
    if facts["memory"]:
        lines.append(("with memory", "{greedy_answer} greedy; {why}".format(**facts["memory"])))
    lines.append(("response", facts["text"]))
    if facts["learned"]:
        learned = facts["learned"]
        what = f"{learned['memory_id']} ({learned['state']})" if learned["memory_id"] else "nothing"
        lines.append(("learned", f"{what}: {learned['reason']}"))
    for name, value in lines:
        emit(f"{name:<12} {one_line(str(value))}")


def _run(config: RunConfig, title: str) -> None:
    """Run with live progress, then show the figures and where the report is."""
    from tacit.experiments import run as runner

    _quiet()
    results = Path(config.out) / "results.jsonl"
    try:
        earlier = results.read_bytes().count(b"\n") if results.exists() else 0
    except OSError:
        earlier = 0  # the run will say what is wrong with its folder
    try:
        with Progress(title, config.limit or 0, earlier=earlier, window=config.window) as progress:
            summary = runner.run(config, progress)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues the run") from None
    show_summary(summary)
    emit("")
    emit(f"report    {Path(config.out) / 'report.html'}")
    from tacit.bank import shown_address

    bank = shown_address(config.bank) if config.bank else Path(config.out) / "bank.sqlite"
    emit(f"memories  tacit memories list --bank {bank}")


def _quiet() -> None:
    """No bars for reading weights from the disk: they would tear the live display."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _names(text: str) -> tuple[str, ...]:
    """The names in a list by commas; "none" or "" for no names."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if "none" in names and len(names) > 1:
        raise ConfigError("--baselines is either none or a list of names.")
    return () if names == ("none",) else names
