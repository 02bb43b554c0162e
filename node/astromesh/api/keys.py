"""The keys that seal the gossip: who holds which, and changing them for everybody. No answer has a key in it."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from astromesh.api.bodies import read
from astromesh.api.house import HOUSE, KeyControl
from astromesh.api.mesh import off
from astromesh.api.replies import reply
from astromesh.errors import InvalidRequest
from astromesh.fleet.keyrings import HOW_TO_GET_KEYS, GivenKey, KeyCensus, KeyChange, NamedKey, NewKey, named_key
from maia.errors import MisuseError
from maia.keyring import key_of

KEY_CHARACTERS_MAX = 64  # base64 of 32 bytes has 44


class KeyBody(BaseModel):
    """One key: by its fingerprint where a member holds it, or itself."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    fingerprint: str | None = Field(None, description="8 to 64 hexadecimal digits of the key's SHA-256.")
    key: SecretStr | None = Field(None, max_length=KEY_CHARACTERS_MAX, description="16, 24 or 32 bytes in base64.")


class InstallBody(KeyBody):
    """A key that everybody is to hold. `generate` instead of both has a new one made."""

    generate: bool = Field(False, description="Make a new key of 32 random bytes. It is in the keyring files, and in no answer.")


class ForceBody(KeyBody):
    """A key that everybody is to seal with, or to forget."""

    force: bool = Field(False, description="Do it all the same, though members are cut off until they are mended by hand.")


class KeyRow(BaseModel):
    fingerprint: str = Field(description="The first 8 hexadecimal digits of the key's SHA-256.")
    held_by: list[str]
    lacked_by: list[str] = Field(description="Members that answered and do not have it.")
    primary_of: list[str] = Field(description="Members that seal with it.")


class HolderRow(BaseModel):
    name: str
    answered: bool
    ok: bool = Field(description="Whether it said which keys it has.")
    message: str = Field(description="Why not, in its own words.")
    keys: list[str] = Field(description="Fingerprints.")
    primary: str | None


class KeyList(BaseModel):
    sealed: bool = Field(description="Whether this mesh has keys at all.")
    keys: list[KeyRow]
    nodes: list[HolderRow]
    hint: str


class Failure(BaseModel):
    node: str
    message: str = Field(description="Why not, in its own words.")


class KeyChanged(BaseModel):
    """What became of it, member by member. `complete`: every living member confirmed it."""

    operation: str
    fingerprint: str
    complete: bool
    confirmed: list[str]
    failed: list[Failure]
    unanswered: list[str]


async def listing(request: web.Request) -> web.Response:
    return reply(_list(await _control(request).list()).model_dump())


async def install(request: web.Request) -> web.Response:
    body = await read(request, InstallBody)
    return _changed(await _control(request).install(NewKey() if _makes_one(body) else _existing(body)))


async def use(request: web.Request) -> web.Response:
    body = await read(request, ForceBody)
    return _changed(await _control(request).use(_existing(body), force=body.force))


async def remove(request: web.Request) -> web.Response:
    body = await read(request, ForceBody)
    return _changed(await _control(request).remove(_existing(body), force=body.force))


def _control(request: web.Request) -> KeyControl:
    mesh = request.app[HOUSE].mesh
    if mesh is None:
        raise off()
    return mesh.keys


def _makes_one(body: InstallBody) -> bool:
    if body.generate and (body.fingerprint is not None or body.key is not None):
        raise InvalidRequest("generate makes a new key, and one is named as well", hint="leave one of them out", param="generate")
    return body.generate


def _existing(body: KeyBody) -> NamedKey | GivenKey:
    match body.fingerprint, body.key:
        case str(fingerprint), None:
            return named_key(fingerprint)
        case None, SecretStr() as secret:
            try:
                return GivenKey(key_of(secret.get_secret_value().strip()))
            except MisuseError as mistake:
                raise InvalidRequest(f"key: {mistake}", hint="send 16, 24 or 32 random bytes in base64", param="key") from None
        case _:
            raise InvalidRequest("the body must say which key: its fingerprint, or the key", hint="say one of them", param="fingerprint")


def _list(census: KeyCensus | None) -> KeyList:
    if census is None:
        return KeyList(
            sealed=False,
            keys=[],
            nodes=[],
            hint=f"this mesh gossips in the clear, which belongs on loopback. To have it sealed, {HOW_TO_GET_KEYS}",
        )
    keys = [
        KeyRow(fingerprint=key.fingerprint, held_by=[*key.held_by], lacked_by=[*key.lacked_by], primary_of=[*key.primary_of])
        for key in census.keys
    ]
    nodes = [
        HolderRow(name=one.name, answered=one.answered, ok=one.ok, message=one.message, keys=[*one.keys], primary=one.primary or None)
        for one in census.holders
    ]
    return KeyList(sealed=True, keys=keys, nodes=nodes, hint="")


def _changed(change: KeyChange) -> web.Response:
    return reply(
        KeyChanged(
            operation=change.operation,
            fingerprint=change.fingerprint,
            complete=change.complete,
            confirmed=[*change.confirmed],
            failed=[Failure(node=node, message=message) for node, message in change.failed],
            unanswered=[*change.unanswered],
        ).model_dump()
    )
