"""``tacit keys``: who may use a server.

Builds on the bank and server.keys, when called. A secret is printed once, when its key is made.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tacit.cli.common import (
    DEFAULT_NAMESPACE,
    BankOption,
    JsonOption,
    NamespaceOption,
    emit,
    emit_json,
    one_line,
    opened_bank,
    show,
    table,
    when,
)

if TYPE_CHECKING:
    from tacit.server.keys import ApiKey

MINUTES = "%Y-%m-%d %H:%M UTC"

app = typer.Typer(no_args_is_help=True, help="Make, list, change and revoke the API keys of a server.")


@app.command()
def create(
    *,
    bank: BankOption,
    name: Annotated[str, typer.Option(help="What the key is for; people read it.")],
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    rights: Annotated[
        str, typer.Option(metavar="LIST", help="Of ask, learn, trust and admin, with commas.")
    ] = "ask,learn",
    learn_per_day: Annotated[int, typer.Option(metavar="N", help="Problems it may have learned per UTC day.")] = 100,
    json: JsonOption = False,
) -> None:
    """Make a key and print its secret, this one time: only its hash is kept."""
    from tacit.server.keys import KeyStore

    with opened_bank(bank, create=True) as opened:
        key, secret = KeyStore(opened).create(name, namespace, _listed(rights), learn_per_day)
    if json:
        emit_json({**_facts(key), "secret": secret})
        return
    emit(f"key {key.id} for namespace {one_line(key.namespace)!r}; its secret, which is not shown again:")
    emit(secret)


@app.command("list")
def list_(bank: BankOption, json: JsonOption = False) -> None:
    """List all keys, revoked ones too."""
    from rich.text import Text

    from tacit.server.keys import KeyStore

    with opened_bank(bank) as opened:
        keys = KeyStore(opened).all()
    if json:
        emit_json([_facts(key) for key in keys])
        return
    titles = ("id", "name", "namespace", "rights", "learn/day", "created", "revoked")
    listed = table(titles, ("learn/day",), no_wrap=True)
    for key in keys:
        facts = _facts(key)
        names = Text(one_line(key.name)[:40]), Text(one_line(key.namespace)[:40])
        times = when(key.created, MINUTES), "-" if key.revoked is None else when(key.revoked, MINUTES)
        listed.add_row(key.id, *names, ",".join(facts["rights"]), str(key.learn_per_day), *times)
    show(*([listed] if keys else []), f"{len(keys)} keys")


@app.command()
def allow(
    id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, not its secret.")],
    rights: Annotated[str, typer.Argument(metavar="LIST", help="Of ask, learn, trust and admin, with commas.")],
    bank: BankOption,
) -> None:
    """Give a key these rights in place of those it has, from its next request on."""
    from tacit.server.keys import KeyStore

    with opened_bank(bank) as opened:
        key = KeyStore(opened).allow(id, _listed(rights))
    emit(f"{id} may {', '.join(sorted(key.rights))}")


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, not its secret.")], bank: BankOption
) -> None:
    """Shut a key out, at once and for good. What was learned from its traffic stays."""
    from tacit.server.keys import KeyStore

    with opened_bank(bank) as opened:
        KeyStore(opened).revoke(id)
    emit(f"revoked {id}")


def _listed(rights: str) -> list[str]:
    return [right.strip() for right in rights.split(",") if right.strip()]


def _facts(key: ApiKey) -> dict[str, Any]:
    return {**asdict(key), "rights": sorted(key.rights)}
