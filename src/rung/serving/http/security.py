"""Who may ask: keys, and the names under which a server on loopback answers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rung.errors import RungError, ServingError
from rung.serving.http.errors import HttpRefusal

ADMIN_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""They need the admin key."""

_SHORTEST = 8  # characters of a key


@dataclass(frozen=True)
class ServerKeys:
    """api: needed to ask; None: nobody needs a key. admin: needed to load and unload adapters, and good for everything
    else; None: nobody may."""

    api: str | None = None
    admin: str | None = None

    def check(self, authorization: str | None) -> None:
        """Raises HttpRefusal unless a client may ask."""
        if self.api is None:
            return
        if not (_same(authorization, self.api) or _same(authorization, self.admin)):
            raise _unknown(authorization)

    def check_admin(self, authorization: str | None) -> None:
        """Raises HttpRefusal unless a client may load and unload adapters."""
        if self.admin is None:
            message = "this server has no admin key, so that no adapters can be loaded. Start it with --admin-key-env."
            raise HttpRefusal(403, message, code="no_admin_key")
        if _same(authorization, self.admin):
            return
        if _same(authorization, self.api):
            raise HttpRefusal(403, "this needs the server's admin key.", code="admin_key_needed")
        raise _unknown(authorization)


def read_key(variable: str | None, file: Path | None, what: str) -> str | None:
    """A key from the environment or from a file. what: the option's stem, for messages. Raises ServingError."""
    if variable is not None and file is not None:
        raise ServingError(f"--{what}-env and --{what}-file both name a key. Leave one of them out.")
    if variable is not None:
        if variable not in os.environ:
            raise ServingError(
                f"--{what}-env {variable}: the variable is not set. Export it, with the key as its value."
            )
        key = os.environ[variable].strip()
        place = f"the environment variable {variable}"
    elif file is not None:
        try:
            key = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ServingError(f"--{what}-file {file}: cannot be read ({error}).") from None
        place = str(file)
    else:
        return None
    if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        fact = f"{place} holds no key: one has {_SHORTEST} or more letters, digits and signs, without spaces"
        raise ServingError(f"{fact}. Make one: python -c 'import secrets; print(secrets.token_urlsafe())'")
    return key


def is_loopback(host: str) -> bool:
    """Whether an address, or all that a name stands for, is this machine alone. Raises RungError for an unknown one."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise RungError(f"--host {host}: there is no such address here ({error}).") from None
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def check_host(header: str | None) -> None:
    """Raises HttpRefusal unless the Host header names this machine: a page of another site can give its own name the
    address of loopback, and would read answers here."""
    name = (header or "").strip()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name.lower().rstrip(".") == "localhost":
        return
    try:
        if ipaddress.ip_address(name).is_loopback:
            return
    except ValueError:
        pass
    raise HttpRefusal(403, "this server answers on loopback only, by the names localhost and 127.0.0.1.", code="host")


def _same(authorization: str | None, key: str | None) -> bool:
    """Compares digests, so that its time says nothing about the key."""
    if authorization is None or key is None:
        return False
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(_digest(given.strip()), _digest(key))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _unknown(authorization: str | None) -> HttpRefusal:
    message = "this key is not known here." if authorization else "a key is needed: Authorization: Bearer KEY."
    return HttpRefusal(401, message, code="invalid_api_key", headers=_CHALLENGE)


_CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}
