"""What a client of a cloud is told to get in: Triton's variables and its file of credentials. Pure.

With `TRITON_CLOUD_CREDENTIAL_PATH` the file decides alone, by the longest prefix of the URL; without it Triton's
variables do, and where they are silent the cloud's own library looks around (profiles, instance roles, ...).
"""

import json
from collections.abc import Mapping
from typing import Any

from configs.remote import Remote

PATH_VARIABLE = "TRITON_CLOUD_CREDENTIAL_PATH"
_S3_CONFIG = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}


class NoCredentials(Exception):
    """The file of credentials is none, or says nothing about a repository."""


def options(remote: Remote, environ: Mapping[str, str], file: str | None) -> dict[str, Any]:
    """Arguments for the file system's class. `file` is the text of the file of credentials. Raises NoCredentials."""
    given = _matching(remote, file) if file is not None else None
    match remote.scheme:
        case "s3":
            return _s3(remote, given)
        case "gs":
            return {"token": given} if given else {}
        case "as":
            return _azure(remote, environ, given)
        case _:
            return {}


def _matching(remote: Remote, file: str) -> Any:
    """The entry with the longest prefix of the URL."""
    try:
        found = json.loads(file)
        entries = found.get(remote.scheme, {})
        prefixes = [prefix for prefix in entries if remote.url.startswith(prefix)]
    except (ValueError, AttributeError, TypeError) as error:
        raise NoCredentials(f"the file of {PATH_VARIABLE} cannot be understood: {error}") from None
    if remote.scheme in {"s3", "gs", "as"} and not prefixes:
        raise NoCredentials(f"Cannot match credential for path  {remote}")
    entry = entries[max(prefixes, key=len)] if prefixes else None
    if entry is not None and not isinstance(entry, str if remote.scheme == "gs" else dict):
        raise NoCredentials(f"the file of {PATH_VARIABLE} has no credentials for {remote}, but {type(entry).__name__}")
    return entry


def _s3(remote: Remote, given: Mapping[str, str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"config_kwargs": dict(_S3_CONFIG)}
    if remote.place:
        found["endpoint_url"] = remote.place
        found["config_kwargs"]["s3"] = {"addressing_style": "path"}
    if given is None:
        return found
    names = {"key_id": "key", "secret_key": "secret", "session_token": "token", "profile": "profile"}
    found |= {ours: given[theirs] for theirs, ours in names.items() if given.get(theirs)}
    if given.get("region"):
        found["client_kwargs"] = {"region_name": given["region"]}
    return found


def _azure(remote: Remote, environ: Mapping[str, str], given: Mapping[str, str] | None) -> dict[str, Any]:
    if given is not None:
        account, key, kind, client = (
            given.get(n, "") for n in ("account_str", "account_key", "auth_type", "client_id")
        )
    else:
        names = ("ACCOUNT", "KEY", "AUTH_TYPE", "CLIENT_ID")
        account, key, kind, client = (environ.get(f"AZURE_STORAGE_{name}", "") for name in names)
    found: dict[str, Any] = {"account_name": remote.place or account}
    if kind in {"managed_identity", "default"}:
        return {**found, "anon": False, **({"managed_identity": client} if kind == "managed_identity" else {})}
    return {**found, "account_key": key} if key else {**found, "anon": True}
