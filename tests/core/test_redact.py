"""What may never leave the process."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from userlens_instrument._core.redact import BUILT_IN, compile_redactor


is_secret = compile_redactor(())

# Each name of design.md, as the words that it is made of.
PROMISED = [
    ("password",),
    ("passwd",),
    ("secret",),
    ("token",),
    ("api", "key"),
    ("authorization",),
    ("cookie",),
    ("session",),
    ("credit", "card"),
    ("ssn",),
    ("private", "key"),
]
SPELLINGS = {
    "snake": "_".join,
    "kebab": "-".join,
    "dotted": ".".join,
    "spaced": " ".join,
    "joined": "".join,
    "camel": lambda words: words[0] + "".join(map(str.title, words[1:])),
    "pascal": lambda words: "".join(map(str.title, words)),
    "screaming": lambda words: "_".join(words).upper(),
    "upper": lambda words: "".join(words).upper(),
    "header": lambda words: "-".join(map(str.title, words)),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("words", PROMISED, ids=" ".join)
def test_every_spelling(words, spelling):
    """
    A secret's name is known in every way to write a name.
    """
    assert is_secret(spelling(words))


STYLES = {
    "fullwidth": 0xFF41,
    "bold": 0x1D41A,
    "sans-serif": 0x1D5BA,
    "circled": 0x24D0,
}


@pytest.mark.parametrize("first", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("words", PROMISED, ids=" ".join)
def test_letters_of_another_style(words, first):
    """A secret's name is known by its letters, of whatever width and style."""
    styled = "_".join(words).translate({ord("a") + n: first + n for n in range(26)})

    assert not styled.isascii()
    assert is_secret(styled)


@pytest.mark.parametrize("spelling", ["snake", "kebab", "dotted", "camel", "pascal", "screaming"])
@pytest.mark.parametrize("words", PROMISED, ids=" ".join)
def test_among_other_words(words, spelling):
    """
    A secret's name is known before, after and between other words, and beside numbers.
    """
    write = SPELLINGS[spelling]

    assert is_secret(write(("user", *words)))
    assert is_secret(write((*words, "hash")))
    assert is_secret(write(("old", *words, "2")))


@pytest.mark.parametrize(
    "name",
    [
        "APIKey",
        "xAPIKey",
        "X-API-Key",
        "x_api_key_2",
        "userpassword",
        "dbpasswd2",
        "PGPASSWORD",
        "Set-Cookie",
        "set_cookie",
        "JSESSIONID",
        "sessionid",
        "clientsecret",
        "aws_secret_access_key",
        "AWSSecretAccessKey",
        "accessToken",
        "accesstoken",
        "refresh_tokens",
        "http.request.header.authorization",
        "config[password]",
        "user/password",
        "password?",
        "pass_word",
        "pAsSwOrD",
        "naïve_password",
        "パスワードpassword",
        "session_count",
        "otp",
        "card_number",
        "bearer",
    ],
)
def test_secrets(name):
    """
    These, from the wild, are secrets.
    """
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "_",
        "plan",
        "tokenizer",
        "tokenized",
        "tokens_used",
        "total_tokens",
        "secretary",
        "secretariat",
        "author",
        "authority",
        "oauth_provider",
        "compass_word",
        "compassWord",
        "sessions_count",
        "obsession",
        "possession",
        "key",
        "keyboard",
        "monkey_key",
        "card",
        "credit",
        "credit_score",
        "business_name",
        "lessness",
        "hotpot",
        "capital_city",
        "apikeyboard",
        "$ul_lib",
        "пароль",
        "\ud800",
    ],
)
def test_no_secrets(name):
    """
    A secret's name in the middle of another word is none: there would be no end of it.
    """
    assert not is_secret(name)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in(name):
    """
    Each built-in name is known as it stands in the list.
    """
    assert is_secret(name)


def test_extend():
    """
    A name that is given is known in every way to write it, beside the built-in ones.
    """
    is_secret = compile_redactor(["Home_Address", "пароль"])

    assert is_secret("home_address")
    assert is_secret("userHomeAddress2")
    assert is_secret("HOMEADDRESS")
    assert is_secret("Старый_Пароль")
    assert is_secret("password")
    assert not is_secret("address")


def test_remove():
    """
    A built-in name with a minus before it, however it is written, is none any more; the others are.
    """
    is_secret = compile_redactor(["-session", "-API-Key", "-password"])

    assert not is_secret("session")
    assert not is_secret("session_count")
    assert not is_secret("apiKey")
    assert not is_secret("userpassword")
    assert is_secret("dbpasswd")
    assert is_secret("session_id")


def test_remove_all():
    """
    With -* nothing is a secret but what is named beside it.
    """
    is_secret = compile_redactor(["-*", "plan"])

    assert is_secret("current_plan")
    assert not any(map(is_secret, BUILT_IN))


def test_added_beats_removed():
    """
    A name that is both given and taken away is a secret: the doubt is decided for safety.
    """
    assert compile_redactor(["-token", "token"])("token")


def test_nothing_is_secret():
    """
    With -* alone there is no secret, however long a name is.
    """
    assert not compile_redactor(["-*"])("password" * 10_000)


@pytest.mark.parametrize("name", ["x" * 20_000, "x_" * 20_000 + "password"])
def test_too_long_to_look_at(name):
    """
    A name too long to be looked at on the caller's thread hides its value.
    """
    assert is_secret(name)


def test_long_name():
    """
    The words of a long name are all looked at, the last ones too.
    """
    assert is_secret("x_" * 8_000 + "password")
    assert not is_secret("x_" * 8_000)


def test_more_names_than_are_remembered():
    """
    Names made up by the thousand are judged as rightly as the first ones.
    """
    assert not any(is_secret(f"plan_{n}") for n in range(5_000))
    assert all(is_secret(f"password_{n}") for n in range(5_000))


@st.composite
def secret_names(draw):
    """Draw the name of a secret in any casing and any punctuation, among any words."""
    name = draw(st.sampled_from(BUILT_IN))
    letters = [draw(st.sampled_from([c.lower(), c.upper()])) for c in name]
    mark = draw(st.sampled_from(["_", "-", ".", " ", "__", "/", ""]))
    core = mark.join("".join(letters).split("_"))
    before = draw(st.sampled_from(["", "user_", "x-", "9.", "§"]))
    after = draw(st.sampled_from(["", "_hash", "-2", "2", ".x", "§"]))
    return before + core + after


@given(secret_names())
@example("user_pAsSwOrD2")
def test_any_casing(name):
    """
    Any casing of the name of a secret is known.
    """
    assert is_secret(name)


@given(st.text())
@example("PASSWORDs")
def test_any_name(name):
    """
    Any text is judged, and the same way each time.
    """
    first = is_secret(name)

    assert first == is_secret(name)
    assert first or not re.search("password|passwd", name)
