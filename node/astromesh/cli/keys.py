"""The keys that seal the gossip: which there are, and a rotation in three steps. A key itself is never an argument and never shown."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import printable, table, warn
from astromesh.cli.verbs import Verbs, help_unless_verb
from astromesh.cli.waiting import waiting
from astromesh.errors import AstromeshError, InvalidRequest
from astromesh.service.addresses import HostPort

KEY_FILE_BYTES_MAX = 16_384  # a whole keyring file, as a node takes it
NAMES_SHOWN = 5
ASKING = "asking every member, which takes some seconds where one is silent"
# Two questions to the whole mesh after two of somebody else's, each over in 40 s at the latest; mostly it is a moment.
ANSWER_S = 180.0
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{8,64}")


class NotAllDone(AstromeshError):
    """Some members did what was asked of all."""

    code = "keys_incomplete"


class UnsafeKeyFile(AstromeshError):
    """A key that others could read, or would overhear."""

    code = "key_exposed"
    definite = True


@click.group(
    cls=Verbs,
    epilog="\b\nA rotation, in this order, each for the whole mesh from any node:\n"
    "  astromesh-node keys install --generate    everybody can open what the new key seals\n"
    "  astromesh-node keys use FINGERPRINT       everybody seals with it\n"
    "  astromesh-node keys remove OLD            nobody can open what the old one seals",
)
@click.pass_context
def keys(context: click.Context) -> None:
    """The keys that seal the gossip of the mesh."""
    help_unless_verb(context)


def which_key(function: Any) -> Any:
    """Gives the verb `fingerprint` and `key_file`."""
    function = click.option("--key-file", metavar="FILE", help="A file (mode 0600) with the key in base64, or a keyring file; - is stdin.")(
        function
    )
    return click.argument("fingerprint", required=False)(function)


def force_option(function: Any) -> Any:
    return click.option(
        "--force", is_flag=True, help="Do it all the same: cuts off the members that a refusal names, until they are mended by hand."
    )(function)


@keys.command("list", epilog=examples("keys list", "keys list --json"))
@url_option
@json_option
def list_keys(*, node: Chosen, as_json: bool) -> None:
    """The keys, and who holds them.

    Each by its fingerprint, the start of its SHA-256: on how many nodes it is, who seals with it, who lacks it, and who did not answer.
    """
    with waiting(ASKING, shown=not as_json):
        answer = node.client.get("/v1/mesh/keys", silence_s=ANSWER_S).body
    if as_json:
        print_json(answer)
        return
    if not answer["sealed"]:
        click.echo(answer["hint"])
        return
    everybody = len(answer["nodes"])
    rows = (
        (
            key["fingerprint"],
            f"{len(key['held_by'])} of {everybody}",
            _names(key["primary_of"], of=everybody),
            _names(key["lacked_by"], of=everybody),
        )
        for key in answer["keys"]
    )
    click.echo(table(("KEY", "NODES", "PRIMARY ON", "LACKED BY"), rows, sys.stdout))
    warn(_unheard(one) for one in answer["nodes"] if not one["ok"] or one["message"])


@keys.command(
    epilog=examples("keys install --generate", "keys install 1f3a9c0e", "keys install --key-file key.txt", "keys install --key-file -")
)
@which_key
@click.option("--generate", is_flag=True, help="Make a new key of 32 random bytes; its fingerprint is printed, the key is not.")
@url_option
@json_option
def install(*, fingerprint: str | None, key_file: str | None, generate: bool, node: Chosen, as_json: bool) -> None:
    """Give every node a key that opens, the first step.

    FINGERPRINT is one that some node holds and others lack. To say it again does no harm.
    """
    if generate:
        if fingerprint is not None or key_file is not None:
            raise click.UsageError("--generate makes a new key: leave the other one out")
        body: dict[str, Any] = {"generate": True}
    else:
        body = _which(fingerprint, key_file, node)
    _change(node, "install", body, as_json=as_json)


@keys.command(epilog=examples("keys use 1f3a9c0e", "keys use 1f3a9c0e --force"))
@which_key
@force_option
@url_option
@json_option
def use(*, fingerprint: str | None, key_file: str | None, force: bool, node: Chosen, as_json: bool) -> None:
    """Have every node seal with a key, the second step.

    Refused until every living node has said that it holds the key: the others would hear nothing more.
    """
    _change(node, "use", _which(fingerprint, key_file, node) | {"force": force}, as_json=as_json)


@keys.command(epilog=examples("keys remove 8c41d7b2", "keys remove 8c41d7b2 --force"))
@which_key
@force_option
@url_option
@json_option
def remove(*, fingerprint: str | None, key_file: str | None, force: bool, node: Chosen, as_json: bool) -> None:
    """Have every node forget a key, the last step.

    Refused while any living node seals with it. A node that is away meanwhile needs the new key by hand.
    """
    _change(node, "remove", _which(fingerprint, key_file, node) | {"force": force}, as_json=as_json)


def _change(node: Chosen, operation: str, body: dict[str, Any], *, as_json: bool) -> None:
    with waiting(ASKING, shown=not as_json):
        answer = node.client.post(f"/v1/mesh/keys/{operation}", body, silence_s=ANSWER_S).body
    name, done = answer["fingerprint"], len(answer["confirmed"])
    everybody = done + len(answer["failed"]) + len(answer["unanswered"])
    if as_json:
        print_json(answer)
    elif body.get("generate"):
        click.echo(name)  # alone, so that a script can have it
    if not as_json:
        said, following = _SAID[operation]
        click.echo(f"{name} {said} on {done} of {everybody} node{'' if everybody == 1 else 's'}", err=bool(body.get("generate")))
        if answer["complete"] and following:
            click.echo(following.format(name), err=True)
        if operation != "install":
            warn(_away(node))
    if not answer["complete"]:
        troubles = [f"{one['node']} could not: {one['message'] or 'it did not say why'}" for one in answer["failed"]]
        troubles += [f"{name} did not answer" for name in answer["unanswered"]]
        raise NotAllDone(
            printable("; ".join(troubles)),
            hint=f"'keys {operation} {name}' may be said again; 'astromesh-node keys list' shows how far it has come",
        )


_SAID = {
    "install": ("is installed", "Next: astromesh-node keys use {}"),
    "use": ("is the primary", "Next, once nodes that are away have come back: astromesh-node keys remove OLD ('keys list' shows it)"),
    "remove": ("is removed", ""),
}


def _which(fingerprint: str | None, key_file: str | None, node: Chosen) -> dict[str, Any]:
    if key_file is None:
        if fingerprint is None:
            raise click.UsageError("which key? Say its fingerprint ('keys list' shows it), or --key-file")
        return {"fingerprint": fingerprint}
    url = urlsplit(node.url)
    if url.scheme != "https" and not HostPort(url.hostname or "", 0).is_loopback:
        raise UnsafeKeyFile(
            f"a key would travel to {node.url} in the clear",
            hint="run this on the node's own machine, or install it where it is and go by its fingerprint",
        )
    return {"key": _only_key(_read(key_file), fingerprint, key_file)}


def _read(key_file: str) -> str:
    """Raises `UnsafeKeyFile` where others can read it, `InvalidRequest` where it cannot be read."""
    if key_file == "-":
        if sys.stdin.isatty():
            return str(click.prompt("Key", hide_input=True, err=True))
        return sys.stdin.read(KEY_FILE_BYTES_MAX + 1)
    try:
        with Path(key_file).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UnsafeKeyFile(
                    f"{key_file} is open to others (mode {stat.S_IMODE(mode):04o})", hint=f"make it its owner's alone: chmod 600 {key_file}"
                )
            return file.read(KEY_FILE_BYTES_MAX + 1).decode(errors="replace")
    except OSError as failure:
        raise InvalidRequest(f"{key_file} cannot be read: {failure.strerror}", hint="name a file with a key in base64") from None


def _only_key(text: str, fingerprint: str | None, key_file: str) -> str:
    """The key in it, in base64; of a keyring file the one with that fingerprint. Nothing that is said here quotes it."""
    import hashlib

    from maia.errors import MisuseError
    from maia.keyring import fingerprint_of, key_of, parse_keyring, text_of

    where = "stdin" if key_file == "-" else key_file
    try:
        if len(text) > KEY_FILE_BYTES_MAX:
            raise MisuseError(f"over {KEY_FILE_BYTES_MAX} bytes")
        found = parse_keyring(text).keys if text.lstrip().startswith("[") else (key_of(text.strip()),)
    except MisuseError as mistake:
        raise InvalidRequest(f"{where}: {mistake}", hint="it must hold one key in base64, or be a keyring file") from None
    if fingerprint is not None:
        if _HEXADECIMAL.fullmatch(fingerprint) is None:
            raise InvalidRequest(
                "that is no fingerprint of a key: it has 8 to 64 hexadecimal digits", hint="'keys list' shows those in use"
            )
        found = tuple(key for key in found if hashlib.sha256(key).hexdigest().startswith(fingerprint.lower()))
        if not found:
            raise InvalidRequest(f"{where} holds no key {fingerprint}", hint="leave the fingerprint out to see which it holds")
    if len(found) > 1:
        names = ", ".join(fingerprint_of(key) for key in found)
        raise InvalidRequest(f"{where} holds {len(found)} keys: {names}", hint="say which, before --key-file; the first one seals")
    return text_of(found[0])


def _names(names: list[str], *, of: int) -> str:
    if not names:
        return ""
    if len(names) == of:
        return "all" if of > 1 else names[0]
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _away(node: Chosen) -> Iterator[str]:
    """Who may come back with keys of before. That it cannot be told is no failure of what was done."""
    try:
        state = node.client.get("/v1/mesh/state").body
    except AstromeshError:
        return
    names = [printable(one["name"]) for one in state["nodes"] if one["status"] in ("dead", "left")]
    if names:
        yield (
            f"away and not asked: {_names(names, of=0)}. Whoever comes back with keys that the others have removed is not heard: "
            "'A node that was away' in docs/keys.md"
        )


def _unheard(one: dict[str, Any]) -> str:
    name = printable(one["name"])
    if not one["answered"]:
        return f"{name} did not answer: which keys it holds is not known"
    return f"{name} says: {printable(one['message']) or 'it cannot tell which keys it holds'}"
