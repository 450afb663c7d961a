"""``tacit memories``: look at, move, save and judge what a bank holds.

Builds on bank and memory. Ids may be shortened to a beginning that only one memory of the namespace has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tacit.cli.common import (
    DEFAULT_NAMESPACE,
    BankOption,
    JsonOption,
    NamespaceOption,
    console,
    counted,
    emit,
    emit_json,
    one_line,
    opened_bank,
    show,
    table,
    when,
)
from tacit.errors import BankError, ConfigError, MemoryNotFound

if TYPE_CHECKING:
    from tacit.bank import Bank
    from tacit.memory import Memory

app = typer.Typer(no_args_is_help=True, help="List, show, move, save and judge memories.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A memory's id, or an unambiguous beginning of it.")]


@app.command("list")
def list_(
    bank: BankOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only this state: candidate, active, quarantined, retired.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the memories of a namespace in the order in which they were stored."""
    from dataclasses import asdict

    from rich.text import Text

    from tacit.memory import State

    try:
        states = [State(name) for name in state] if state else None
    except ValueError:
        raise ConfigError(f"There is no such state; known: {', '.join(State)}.") from None
    with opened_bank(bank) as opened:
        infos = opened.find(namespace, states=states)
    if json:
        emit_json([asdict(info) for info in infos])
        return
    numbers = ("uses", "agreed", "helped", "hurt")
    titles = ("id", "state", *numbers, "label", "share", "created", "problem")
    kept = [
        title for title in titles if console(sys.stdout).width >= 150 or title not in ("agreed", "share", "created")
    ]
    listed = table(kept, (*numbers, "share"), no_wrap=True)
    for info in infos:
        counters = (str(getattr(info, name)) for name in numbers)
        share, label = "-" if info.share is None else f"{info.share:.2f}", Text(one_line(info.label or "-")[:24])
        problem = Text(one_line(info.problem)[:60], no_wrap=True, overflow="ellipsis")
        cells = (info.id, info.state.value, *counters, label, share, when(info.created), problem)
        listed.add_row(*(cell for title, cell in zip(titles, cells, strict=True) if title in kept))
    show(*([listed] if infos else []), f"{counted(len(infos), 'memory', 'memories')} in namespace {namespace!r}")


@app.command("show")
def show_(
    id: IdArgument, bank: BankOption, namespace: NamespaceOption = DEFAULT_NAMESPACE, json: JsonOption = False
) -> None:
    """Show one memory: where it came from, what it learned from, how it fared."""
    from tacit.memory import record

    with opened_bank(bank) as opened:
        memory = opened.get(_resolve(opened, id, namespace), namespace)
        steps = opened.history(memory.id, namespace)
    history = [{"time": step.time, "old": step.old, "new": step.new, "reason": step.reason} for step in steps]
    facts = {**record(memory), "sha256": memory.sha256, "prompt": _prompt_facts(memory), "history": history}
    if json:
        emit_json(facts)
        return
    lines = [
        ("id", memory.id),
        ("namespace", memory.namespace),
        ("problem", f"{memory.problem_id}: {one_line(memory.problem)}"),
        ("state", f"{memory.state.value}: {memory.reason}"),
        ("counters", ", ".join(f"{name} {facts[name]}" for name in ("uses", "agreed", "helped", "hurt"))),
        ("soft prompt", "{tokens} x {width}, row norms {norm_low:.3g} to {norm_high:.3g}".format(**facts["prompt"])),
        ("sha256", memory.sha256),
        ("key", f"{memory.key_kind}, {len(memory.key)} dimensions"),
        ("backbone", memory.fingerprint),
        ("created", when(memory.created)),
    ]
    for name, value in memory.provenance.items():
        plain = value if isinstance(value, str) else _short(value)
        lines.append(("rewards", _rewards(value)) if name == "steps" else (name, one_line(plain)))
    lines += [("history", f"{when(step.time)} {step.old or 'new'} -> {step.new}: {step.reason}") for step in steps]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        emit(f"{name:<{width}}  {value}")


@app.command()
def explain(
    id: IdArgument, bank: BankOption, namespace: NamespaceOption = DEFAULT_NAMESPACE, json: JsonOption = False
) -> None:
    """Say why a memory is there, who it came from, what it did, and what was made of it since."""
    from tacit.bank.tending.stats import explained

    with opened_bank(bank) as opened:
        facts = explained(opened, _resolve(opened, id, namespace), namespace)
    if json:
        emit_json(facts)
        return
    for number, (title, lines) in enumerate(facts.items()):
        emit(("\n" if number else "") + title)
        for line in lines:
            emit(f"  {one_line(line)}")


@app.command()
def diff(
    first: IdArgument,
    second: IdArgument,
    bank: BankOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    json: JsonOption = False,
) -> None:
    """Say what two memories of a bank differ in.

    Two memories and not two banks: whether one may go for another, or why two of one kind fare differently, is asked of
    a pair; two banks are compared by what `tacit bank stats` shows of each.
    """
    import numpy as np

    from tacit.memory import record

    with opened_bank(bank) as opened:
        both = [opened.get(_resolve(opened, id, namespace), namespace) for id in (first, second)]
    one, other = (_flat(record(memory)) for memory in both)
    told = {name: [one.get(name), other.get(name)] for name in {**one, **other} if one.get(name) != other.get(name)}
    near = {}
    for part in ("key", "prompt"):
        a, b = (getattr(memory, part).astype(np.float64) for memory in both)
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        near[f"cosine of {part}s"] = float((a * b).sum()) / size if a.shape == b.shape and size else None
    if json:
        emit_json({**near, "differs": told})
        return
    listed = table(("what", *(memory.id for memory in both)), overflow="fold")
    for name, values in told.items():
        listed.add_row(name, *(one_line(value if isinstance(value, str) else _short(value)) for value in values))
    show(listed)
    for name, value in near.items():
        emit(f"{name}: {'not of one shape' if value is None else f'{value:.4f}'}")


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of a memory with those of its provenance beside them, learning's steps as their rewards."""
    provenance = {**facts.pop("provenance")}
    if "steps" in provenance:
        provenance["rewards"] = _rewards(provenance.pop("steps"))
    settings = provenance.pop("learning", {})
    return {**facts, **provenance, **(settings if isinstance(settings, dict) else {})}


@app.command()
def rm(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the memories to delete for good.")],
    bank: BankOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
) -> None:
    """Delete memories for good, all of them or none (`quarantine` takes one out of use and can be undone)."""
    with opened_bank(bank) as opened:
        with opened.transaction():
            found = list(dict.fromkeys(_resolve(opened, id, namespace) for id in ids))
            for id in found:
                opened.delete(id, namespace)
        for id in found:
            emit(f"deleted {id}")


@app.command()
def quarantine(
    id: IdArgument,
    bank: BankOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    reason: Annotated[str, typer.Option(help="Kept in the memory's history.")] = "quarantined by hand",
) -> None:
    """Take a memory out of use; `activate` undoes it."""
    _set_state(id, bank, namespace, "quarantined", reason)


@app.command()
def activate(
    id: IdArgument,
    bank: BankOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    reason: Annotated[str, typer.Option(help="Kept in the memory's history.")] = "activated by hand",
) -> None:
    """Let a memory be recalled, whatever state it is in now."""
    _set_state(id, bank, namespace, "active", reason)


@app.command()
def export(
    id: IdArgument,
    path: Annotated[Path, typer.Argument(help="File to write, or with --peft the folder.")],
    *,
    bank: BankOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    peft: Annotated[bool, typer.Option("--peft", help="Write a PEFT prompt-tuning adapter.")] = False,
    base_model: Annotated[
        str | None, typer.Option(help="With --peft: path or Hub id of the model that the memory was learned with.")
    ] = None,
    gguf: Annotated[
        bool, typer.Option("--gguf", help="Write a control vector for llama.cpp (carrier layers).")
    ] = False,
) -> None:
    """Write one memory to a file (safetensors), or to what others load.

    With --peft it is a folder for PeftModel.from_pretrained, with --gguf a file for llama.cpp's --control-vector.
    """
    from tacit.bank import export_gguf, export_peft
    from tacit.bank.portable import to_safetensors

    with opened_bank(bank) as opened:
        memory = opened.get(_resolve(opened, id, namespace), namespace)
    if peft and gguf:
        raise ConfigError("--peft and --gguf are given; a memory is one of the two.")
    if gguf:
        export_gguf(memory, path)
    elif peft:
        model = base_model or memory.provenance.get("model")
        if not isinstance(model, str) or not model:
            raise ConfigError("The memory does not say which model it was learned with; give --base-model.")
        export_peft(memory, path, _model_path(model))
    else:
        _write_new(path, to_safetensors(memory))
    emit(f"exported {memory.id} to {path}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="File or PEFT folder that `export` wrote.")],
    bank: BankOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Keep the recorded state and counters instead of making it a candidate.")
    ] = False,
) -> None:
    """Read one memory into a namespace. It enters as a candidate: not recalled until you activate it."""
    from tacit.bank import import_peft
    from tacit.bank.portable import from_safetensors, read_file

    if path.is_dir():
        memory = import_peft(path, trusted=trusted, namespace=namespace)
    else:
        memory = from_safetensors(read_file(path), trusted=trusted, namespace=namespace)
    with opened_bank(bank, create=True) as opened:
        stored = opened.add(memory)
    emit(f"imported {memory.id} ({memory.state})" if stored else f"{memory.id} is already there; nothing was changed")


@app.command()
def snapshot(path: Annotated[Path, typer.Argument(help="File to make.")], bank: BankOption) -> None:
    """Write a consistent, verified copy of the whole bank while it stays in use."""
    from tacit.bank import shown_address

    with opened_bank(bank) as opened:
        opened.snapshot(path)
    emit(f"snapshot of {shown_address(bank)} at {path}")


@app.command()
def restore(
    path: Annotated[Path, typer.Argument(help="A file that `snapshot` made.")],
    bank: BankOption,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bank; it is kept beside.")] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Leave damaged memories out, and say which, rather than refuse.")
    ] = False,
) -> None:
    """Make a bank hold what a snapshot holds, but for API keys: those of the bank stay, and no others come in."""
    from tacit.bank import restore as restore_bank

    left_out: list[str] = []
    kept = restore_bank(path, bank, force=force, left_out=left_out if salvage else None)
    for said in left_out:
        emit(f"left out {one_line(said)}")
    emit(f"restored {bank} from {path}" + (f"; what was there is kept at {kept}" if kept else ""))


def _resolve(bank: Bank, id: str, namespace: str) -> str:
    """The full id; MemoryNotFound for none, ConfigError for an ambiguous beginning."""
    ids = [info.id for info in bank.find(namespace)]
    if id in ids:
        return id
    found = [full for full in ids if id and full.startswith(id)]
    if not found:
        raise MemoryNotFound(f"There is no memory {id!r} in namespace {namespace!r}.")
    if len(found) > 1:
        raise ConfigError(
            f"{id!r} begins the ids of {len(found)} memories in namespace {namespace!r}; give more of it."
        )
    return found[0]


def _set_state(id: str, url: str, namespace: str, name: str, reason: str) -> None:
    from tacit.memory import State

    with opened_bank(url) as bank:
        full = _resolve(bank, id, namespace)
        bank.set_state(full, namespace, State(name), reason)
    emit(f"{full} is {name}")


def _prompt_facts(memory: Memory) -> dict[str, Any]:
    import numpy as np

    norms = np.linalg.norm(memory.prompt.astype(np.float64), axis=1)
    tokens, width = memory.prompt.shape
    return {"tokens": tokens, "width": width, "norm_low": float(norms.min()), "norm_high": float(norms.max())}


def _model_path(model: str) -> str:
    """What holds a model that is known by a name of ours, or the name itself."""
    from tacit.testbed import real, shipped

    return str(shipped(model) or (real.smollm2() if model == real.NAME else model))


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise BankError(f"{path} exists; give the path of a new file.") from None
    except OSError as error:
        raise BankError(f"{path} cannot be written ({error.strerror}).") from None


def _rewards(steps: Any) -> str:
    """The mean reward of each learning step, in short; provenance from elsewhere may hold anything."""
    try:
        return " ".join(f"{step['reward']:.2f}" for step in steps)
    except (TypeError, KeyError, ValueError):
        return _short(steps)


def _short(value: Any) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + " ... (all of it with --json)"
