"""What may never leave the process: properties whose names look like secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator


REDACTED = "[redacted]"

# Written as words; a name matches when its own words contain these in a row,
# written together or apart: api_key, apiKey, API-Key, x.api.key, apikey.
BUILT_IN: tuple[str, ...] = (
    "password",
    "passwords",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "apisecret",
    "clientsecret",
    # Not "tokens": what a language model counts is a property worth having.
    "token",
    "accesstoken",
    "accesstokens",
    "api_tokens",
    "auth_tokens",
    "authtoken",
    "csrftoken",
    "idtoken",
    "refreshtoken",
    "refreshtokens",
    "jwt",
    "bearer",
    "api_key",
    "api_keys",
    "access_key",
    "auth_key",
    "encryption_key",
    "private_key",
    "secret_key",
    "signing_key",
    "write_code",
    "authorization",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "session",
    "sessionid",
    "sessiontoken",
    "jsessionid",
    "phpsessid",
    "csrf",
    "xsrf",
    "otp",
    "credit_card",
    "card_number",
    "cc_number",
    "cvc",
    "cvv",
    "iban",
    "ssn",
    "social_security",
)
# These are secrets in the middle of a word as well (userpassword, dbpasswd2).
_ANYWHERE = ("password", "passwd")

# Names come from the application's source, so there are few; a program that
# makes them up by the million gets no cache rather than all the memory.
_MOST_REMEMBERED = 4_096
_LONGEST_REMEMBERED = 256
# A name longer than this is not looked at, on the caller's thread; what was
# not looked at is hidden.
_LONGEST_NAME = 16_384

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")


def _squash(name: str) -> str:
    return "".join(_words(name))


def _words(name: str) -> list[str]:
    if not name.isascii():
        # Letters of another width or style are the same letters to whoever reads them.
        from unicodedata import normalize  # noqa: PLC0415 - such names are rare

        name = normalize("NFKC", name)
    return [word.lower() for word in _WORDS.findall(name)]


def compile_redactor(names: Collection[str]) -> Callable[[str], bool]:
    """
    Return a function that says whether a property of a given name is a secret.

    Args:
        names: Names beside the built-in ones; ``-name`` takes a built-in one
            away, ``-*`` all of them.

    .. versionadded:: 0.1.0
    """
    added = {_squash(name) for name in names if not name.startswith("-")}
    removed = {_squash(name) for name in names if name.startswith("-")}
    built_in = () if "-*" in names else BUILT_IN
    secrets = frozenset({_squash(name) for name in built_in} - removed | added) - {""}
    anywhere = tuple(word for word in _ANYWHERE if word in secrets)
    longest = max(map(len, secrets), default=0)
    known: dict[str, bool] = {}

    def is_secret(name: str) -> bool:
        verdict = known.get(name)
        if verdict is None:
            words = _words(name[:_LONGEST_NAME])
            verdict = (
                (len(name) > _LONGEST_NAME and bool(secrets))
                or any(stem in word for stem in anywhere for word in words)
                or any(span in secrets for span in _spans(words, longest))
            )
            if len(known) < _MOST_REMEMBERED and len(name) <= _LONGEST_REMEMBERED:
                known[name] = verdict
        return verdict

    return is_secret


def _spans(words: list[str], longest: int) -> Iterator[str]:
    """Yield every run of *words*, written together, while it has at most *longest* letters."""
    for start in range(len(words)):
        span = ""
        for word in words[start : start + longest]:
            span += word
            if len(span) > longest:
                break
            yield span
