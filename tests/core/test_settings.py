"""Settings: every field, from either side, right and wrong."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from values import VALUES

from userlens_instrument.exceptions import SettingsError
from userlens_instrument.settings import Settings, load_what_is_right, misspelled_variables


FIELDS = [field.name for field in dataclasses.fields(Settings)]


def on_error(loss):
    pass


DEFAULTS = {
    "write_code": None,
    "events_url": "https://events.userlens.io",
    "raw_url": "https://raw.userlens.io",
    "delivery": "event",
    "batch_max_events": 100,
    "batch_max_bytes": 500_000,
    "batch_linger": 1.0,
    "max_workers": 8,
    "max_queue_events": 10_000,
    "max_queue_bytes": 33_554_432,
    "overflow": "drop_newest",
    "connect_timeout": 5.0,
    "read_timeout": 10.0,
    "max_attempts": 10,
    "retry_for": 86_400.0,
    "backoff_base": 0.5,
    "backoff_cap": 30.0,
    "retry_after_cap": 600.0,
    "probe_interval": 60.0,
    "shutdown_timeout": 5.0,
    "max_events_per_minute": None,
    "send_timestamp": True,
    "redact": (),
    "allow": None,
    "max_string": 4096,
    "max_properties": 128,
    "max_depth": 6,
    "max_body_bytes": 65_536,
    "user_id_keys": ("user_id", "userId", "userlens_user_id"),
    "group_id_keys": ("group_id", "groupId", "userlens_group_id"),
    "spool": None,
    "spool_sync": "process",
    "spool_max_bytes": 1_073_741_824,
    "spool_max_age": 604_800.0,
    "rules": None,
    "rules_reload": False,
    "trace_context": False,
    "flush_on_sigterm": False,
    "dry_run": False,
    "debug": False,
    "disabled": False,
    "on_error": None,
}

# Smallest and largest of each number.
BOUNDS = {
    "batch_max_events": (1, 10_000),
    "batch_max_bytes": (1024, 2**30),
    "batch_linger": (0.0, 600.0),
    "max_workers": (1, 256),
    "max_queue_events": (1, 10_000_000),
    "max_queue_bytes": (1024, 2**40),
    "max_attempts": (1, 1_000_000),
    "max_events_per_minute": (1, 10_000_000),
    "max_string": (16, 10_000_000),
    "max_properties": (1, 100_000),
    "max_depth": (1, 64),
    "max_body_bytes": (8192, 2**30),
    "connect_timeout": (0.01, 600.0),
    "read_timeout": (0.01, 600.0),
    "retry_for": (0.0, 2_592_000.0),
    "backoff_base": (0.001, 600.0),
    "backoff_cap": (0.001, 86_400.0),
    "retry_after_cap": (0.0, 86_400.0),
    "probe_interval": (0.01, 86_400.0),
    "shutdown_timeout": (0.0, 600.0),
    "spool_max_bytes": (1_048_576, 2**40),
    "spool_max_age": (1.0, 31_536_000.0),
}
WHOLE = [name for name, (least, _) in BOUNDS.items() if isinstance(least, int)]
SECONDS = [name for name in BOUNDS if name not in WHOLE]
FLAGS = [name for name, value in DEFAULTS.items() if isinstance(value, bool)]
LISTS = ["redact", "allow", "user_id_keys", "group_id_keys"]
URLS = ["events_url", "raw_url"]

# What a bound needs beside it to be consistent.
BESIDE = {
    ("backoff_base", 600.0): {"backoff_cap": 600.0},
    ("backoff_cap", 0.001): {"backoff_base": 0.001},
}


def refused(name, value):
    """Return the error that *value* makes, which names setting and fix."""
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: value})
    assert name == caught.value.setting
    assert caught.value.fix
    assert "argument" == caught.value.origin
    return caught.value


# ---------------------------------------------------------------- defaults and bounds


def test_defaults():
    """
    The defaults are what a careful operator would pick, and the list is complete.
    """
    assert DEFAULTS == dataclasses.asdict(Settings())
    assert DEFAULTS == dataclasses.asdict(Settings.load({}, environ={}))


def test_every_number_has_bounds():
    """
    Each number has a smallest and a largest value.
    """
    numbers = [name for name, value in DEFAULTS.items() if type(value) in (int, float)] + [
        "max_events_per_minute"
    ]

    assert sorted(numbers) == sorted(BOUNDS)


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, both in BOUNDS.items() for v in both])
def test_good_bounds(name, value):
    """
    The smallest and the largest value are taken.
    """
    settings = Settings(**{name: value}, **BESIDE.get((name, value), {}))

    assert value == getattr(settings, name)


@pytest.mark.parametrize("name", BOUNDS)
def test_out_of_bounds(name):
    """
    A number below the smallest or above the largest is refused, with both in the fix.
    """
    least, most = BOUNDS[name]

    for value in (least - 1, -least - 1, most + 1, 10**400):
        error = refused(name, value)
        assert "is out of range" == error.problem
        assert f"give {least:g} to {most:g}" in error.fix or f"give {least} to {most}" in error.fix


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [True, 1.5, 8192.0, "16", b"16", [16], object()])
def test_no_whole_number(name, value):
    """
    A whole number is not a flag, a fraction or a text.
    """
    assert "is not a whole number" == refused(name, value).problem


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [None, True, "5", b"5", [5], 5j, object()])
def test_no_seconds(name, value):
    """
    A number of seconds is not a flag or a text.
    """
    assert "is not a number of seconds" == refused(name, value).problem


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_finite_seconds(name, value):
    """
    A number of seconds is finite.
    """
    assert "is out of range" == refused(name, value).problem


def test_seconds_become_floats():
    """
    Whole seconds are seconds, and equal settings stay equal.
    """
    assert Settings(read_timeout=5) == Settings(read_timeout=5.0)
    assert float is type(Settings(read_timeout=5).read_timeout)


def test_cap_below_base():
    """
    A cap that is smaller than what it caps is refused.
    """
    with pytest.raises(SettingsError, match="backoff_cap is smaller than backoff_base"):
        Settings(backoff_base=2.0, backoff_cap=1.0)


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name):
    """
    A flag is True or False, and nothing that is merely as good as that.
    """
    assert {True, False} == {getattr(Settings(**{name: value}), name) for value in (True, False)}
    for value in (None, 0, 1, "true", "", [], object()):
        assert "is neither true nor false" == refused(name, value).problem


@pytest.mark.parametrize("value", ["drop_newest", "drop_oldest"])
def test_overflow(value):
    """
    There are two overflow policies.
    """
    assert value == Settings(overflow=value).overflow


@pytest.mark.parametrize("value", ["block", "DROP_OLDEST", "", None, True, ["drop_oldest"], {}])
def test_no_overflow(value):
    """
    Anything else is no overflow policy.
    """
    assert "'drop_newest' or 'drop_oldest'" in refused("overflow", value).fix


@pytest.mark.parametrize("value", ["bulk", "EVENT", "", None, True, ["batch"], {}])
def test_no_delivery(value):
    """
    Events go by themselves or in batches; there is no third way.
    """
    assert "'event' or 'batch'" in refused("delivery", value).fix


@pytest.mark.parametrize("name", LISTS)
def test_lists(name):
    """
    A list of names may be a list or a tuple; equal ones make equal settings.
    """
    given = ["name", "Другое имя"]

    assert tuple(given) == getattr(Settings(**{name: given}), name)
    assert Settings(**{name: given}) == Settings(**{name: tuple(given)})
    assert Settings(**{name: given}) == Settings(**{name: iter(given)})


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("name", "is not a list of names"),
        (b"name", "is not a list of names"),
        (5, "is not a list of names"),
        (True, "is not a list of names"),
        ([""], "has an entry that is no name"),
        ([5], "has an entry that is no name"),
        (["name", None], "has an entry that is no name"),
        ([["name"]], "has an entry that is no name"),
    ],
)
def test_no_list(name, value, problem):
    """
    A text alone is no list of names, and what is no text is no name.
    """
    assert problem == refused(name, value).problem


@pytest.mark.parametrize("name", ["redact", "allow"])
def test_sets(name):
    """
    A set makes the same settings in each process, whatever order it has there.
    """
    assert ("a", "b", "c") == getattr(Settings(**{name: {"c", "a", "b"}}), name)


@pytest.mark.parametrize("name", ["user_id_keys", "group_id_keys"])
def test_keys(name):
    """
    Names of an id have an order, and there is at least one.
    """
    assert "is empty" == refused(name, []).problem
    assert "has no order" == refused(name, {"a", "b"}).problem


@pytest.mark.parametrize("name", ["$", "-", "--", "***", "_"])
def test_redact_nothing(name):
    """
    A name to hide that has no letter would hide nothing, and is refused.
    """
    assert "has an entry without a letter" == refused("redact", ["plan", name]).problem


def test_redact():
    """
    A name with a minus, and -* for all, take built-in names away.
    """
    assert ("-*", "-session", "p1") == Settings(redact=["-*", "-session", "p1"]).redact


def test_allow_nothing():
    """
    An empty allow-list is not the same as none.
    """
    assert () == Settings(allow=[]).allow


def test_on_error():
    """
    What is called for each loss can be called.
    """
    assert on_error is Settings(on_error=on_error).on_error
    assert "cannot be called" == refused("on_error", 7).problem
    assert "cannot be called" == refused("on_error", "sys:path").problem


@pytest.mark.parametrize("place", ["print", "sys:", ":exit", "no.such.module:f", "sys:nothing", ""])
def test_on_error_by_its_place(place):
    """
    A variable or a YAML file names the function by its place; one that is not there is an error.
    """
    assert print is Settings(on_error="builtins:print").on_error
    assert dataclasses.replace is Settings(on_error="dataclasses:replace").on_error
    error = refused("on_error", place)
    assert "names nothing that can be imported" in error.problem
    assert "give package.module:function" == error.fix


# ---------------------------------------------------------------- the write code


@pytest.mark.parametrize("value", ["wc", " wc ", "wc\n", "\twc\r\n"])
def test_write_code(value):
    """
    White space around a write code, such as a file's last line break, is no part of it.
    """
    assert "wc" == Settings(write_code=value).write_code


@pytest.mark.parametrize("value", [None, "", "  ", "\n"])
def test_no_write_code(value):
    """
    An empty write code is none.
    """
    assert Settings(write_code=value).write_code is None


@pytest.mark.parametrize(
    "value",
    [
        "wc\r\nX-Injected: 1",
        "wc\nwc",
        "w\rc",
        "wc:password",
        "w c",
        "w\tc",
        "w\x00c",
        "w\x7fc",
        "wé",
        "\u200bwc",
        "\ud800",
    ],
)
def test_characters_that_no_write_code_has(value):
    """
    A write code cannot smuggle a header or a password in.
    """
    error = refused("write_code", value)

    assert "has a character that no write code has" == error.problem
    assert value not in str(error)


@pytest.mark.parametrize("value", [5, b"wc", True, ["wc"], object()])
def test_write_code_is_text(value):
    """
    A write code is text.
    """
    assert "is not text" == refused("write_code", value).problem


CODES = st.text("abcdefghijkxyz0123456789+/=-_", min_size=12, max_size=40).map("zq7".__add__)


def _error(make):
    """Return the SettingsError that *make* raises, or None."""
    try:
        make()
    except SettingsError as error:
        return error
    return None


def _leaks(code, error):
    """Return what shows *code*: of the error, its traceback, and whatever it came from."""
    shown = [] if error is None else traceback.format_exception(error)
    while error is not None:
        shown += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return [text for text in shown if code in text]


@given(CODES)
def test_repr_hides_the_write_code(code):
    """
    The write code is in no repr or text of the settings.
    """
    settings = Settings(write_code=code)

    assert code == settings.write_code
    assert code not in repr(settings) + str(settings) + f"{settings}"
    assert code not in repr([settings]) + repr({"settings": settings})


@given(CODES, st.sampled_from(FIELDS))
def test_no_error_echoes_an_argument(code, name):
    """
    A write code that was put where it does not belong is in no error, nor in what caused it.
    """
    for value in (
        code,
        code + "\n" + code,
        [code, ""],
        {code: ""},
        f"https://{code}@h",
        f"//{code}",
    ):
        error = _error(lambda value=value: Settings(**{name: value}))

        assert [] == _leaks(code, error)


@given(CODES, st.sampled_from([name for name in FIELDS if name not in ("on_error", "spool")]))
def test_no_error_echoes_the_environment(code, name):
    """
    A write code in the wrong variable is in no error, nor in what caused it.
    """
    for value in (
        code,
        f"w c {code}",
        f"https://{code}@h",
        f"https://h:{code}",
        f"https://[{code}",
    ):
        environ = {f"USERLENS_{name.upper()}": value}
        error = _error(lambda environ=environ: Settings.load({}, environ=environ))

        assert [] == _leaks(code, error)


@given(CODES, CODES)
def test_no_error_echoes_an_unknown_name(code, value):
    """
    A write code that was put where a setting's name belongs is in no error.
    """
    with pytest.raises(SettingsError) as caught:
        Settings.load({code: value}, environ={})

    assert [] == _leaks(code, caught.value) + _leaks(value, caught.value)


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "value",
    [
        "https://events.userlens.io",
        "https://events.userlens.io:8443/prefix",
        "HTTPS://events.userlens.io",
        "https://[2001:4860:4860::8888]/x",
        "http://localhost",
        "http://localhost:8899",
        "http://127.0.0.1:8899",
        "http://127.9.9.9",
        "http://[::1]:8899",
        "http://[::ffff:127.0.0.1]",
        "http://10.1.2.3",
        "http://172.16.0.1",
        "http://192.168.1.1",
        "http://userlens",
        "http://user-lens_2:80",
        "http://inspector.localhost",
        "http://userlens.internal",
        "http://printer.local",
    ],
)
def test_urls(name, value):
    """
    An https URL may be anywhere; an http one only where the write code stays in the house.
    """
    assert value == getattr(Settings(**{name: value}), name)


@pytest.mark.parametrize("value", ["https://h/", "https://h//", "https://h"])
def test_last_slash(value):
    """
    A slash at the end makes no difference.
    """
    assert "https://h" == Settings(events_url=value).events_url


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "value",
    [
        "http://events.userlens.io",
        "http://8.8.8.8",
        "http://134744072",  # 8.8.8.8 in one number
        "http://0x08080808",
        "http://010.8.8.8",
        "http://[2001:4860:4860::8888]",
        "http://[::ffff:8.8.8.8]",
        "http://localhost.example.com",
        "http://100.64.0.1",
        "http://172.32.0.1",
        "http://8.8.8.8.",
        "http://localhost.",
    ],
)
def test_no_clear_text_over_the_internet(name, value):
    """
    An http URL outside of the house would show the write code to everyone on the way.
    """
    assert "in clear over the internet" in refused(name, value).problem


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        b"https://h",
        "",
        "events.userlens.io",
        "//events.userlens.io",
        "ftp://events.userlens.io",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://:443",
        "https://h:0",
        "https://h:99999",
        "https://h:port",
        "https://[::1",
        "https://h\r\nX-Injected: 1",
        "https://h/\nx",
        "https://h\t",
        "https://h\x00",
        " https://h",
        "https://h h",
        "https://hé",
        "https://h/%0d%0a",
        "https://h\\@evil.example",
        "https://h<>",
        "https://user@h",
        "https://user:password@h",
        "https://@h",
        "https://h?",
        "https://h?a=1",
        "https://h#",
        "https://h/#x",
    ],
)
def test_no_urls(name, value):
    """
    What is no URL, cannot be reached, or holds more than a place, is refused.
    """
    refused(name, value)


# ---------------------------------------------------------------- the environment


ENVIRONMENT = {
    "write_code": (" wc\n", "wc"),
    "events_url": (" http://localhost:8899/ ", "http://localhost:8899"),
    "raw_url": ("https://raw.example.com", "https://raw.example.com"),
    "delivery": ("batch", "batch"),
    "batch_max_events": ("50", 50),
    "batch_max_bytes": ("100000", 100_000),
    "batch_linger": ("0.5", 0.5),
    "max_workers": ("3", 3),
    "max_queue_events": (" 5 ", 5),
    "max_queue_bytes": ("1_024", 1024),
    "overflow": ("drop_oldest", "drop_oldest"),
    "connect_timeout": ("2", 2.0),
    "read_timeout": ("2.5", 2.5),
    "max_attempts": ("4", 4),
    "retry_for": ("0", 0.0),
    "backoff_base": (".25", 0.25),
    "backoff_cap": ("1e1", 10.0),
    "retry_after_cap": ("60", 60.0),
    "probe_interval": ("5", 5.0),
    "shutdown_timeout": ("1", 1.0),
    "max_events_per_minute": ("600", 600),
    "send_timestamp": ("false", False),
    "redact": ("plan, seats ,,-token", ("plan", "seats", "-token")),
    "allow": ("plan", ("plan",)),
    "max_string": ("100", 100),
    "max_properties": ("10", 10),
    "max_depth": ("2", 2),
    "max_body_bytes": ("9000", 9000),
    "user_id_keys": ("uid,customer", ("uid", "customer")),
    "group_id_keys": ("gid", ("gid",)),
    "spool": (" /var/spool/userlens.db\n", "/var/spool/userlens.db"),
    "spool_sync": ("power", "power"),
    "spool_max_bytes": ("2000000", 2_000_000),
    "spool_max_age": ("3600", 3_600.0),
    "rules": (" /etc/userlens.toml\n", "/etc/userlens.toml"),
    "rules_reload": ("yes", True),
    "trace_context": ("true", True),
    "flush_on_sigterm": ("1", True),
    "dry_run": ("Yes", True),
    "debug": ("ON", True),
    "disabled": ("true", True),
    "on_error": (" builtins:print ", print),
}


def test_every_field_has_a_variable():
    """
    Each field can come from the environment.
    """
    assert set(FIELDS) == set(ENVIRONMENT)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_environment(name):
    """
    USERLENS_ and the name in capitals fills in for a setting that was not given.
    """
    text, expected = ENVIRONMENT[name]

    settings = Settings.load({}, environ={f"USERLENS_{name.upper()}": text})

    assert Settings(**{name: expected}) == settings
    assert expected == getattr(settings, name)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_argument_beats_environment(name, monkeypatch):
    """
    An argument wins over the environment, be it the default or None or the variable nonsense.
    """
    variable = f"USERLENS_{name.upper()}"
    default = DEFAULTS[name]
    monkeypatch.setenv(variable, ENVIRONMENT[name][0])

    assert ENVIRONMENT[name][1] == getattr(Settings.load({}), name)
    assert default == getattr(Settings.load({name: default}), name)
    assert default == getattr(Settings.load({name: default}, environ={variable: "\x00"}), name)


@pytest.mark.parametrize("text", ["", " ", "\n"])
@pytest.mark.parametrize("name", ENVIRONMENT)
def test_empty_variable(name, text):
    """
    An empty variable is how a deployment says that a setting is not set.
    """
    assert Settings() == Settings.load({}, environ={f"USERLENS_{name.upper()}": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[(name, text) for name in WHOLE for text in ("many", "1.5", "0x10", "9" * 5000, "-1")],
        *[(name, text) for name in SECONDS for text in ("soon", "5s", "nan", "inf", "-1", "1e999")],
        *[(name, text) for name in FLAGS for text in ("maybe", "2", "none")],
        *[(name, text) for name in URLS for text in ("here", "http://example.com")],
        ("overflow", "block"),
        ("write_code", "w c"),
        ("redact", "$"),
        ("user_id_keys", ","),
        ("backoff_cap", "0.1"),
    ],
)
def test_wrong_variable(name, text):
    """
    A wrong value out of the environment is an error that names the variable.
    """
    variable = f"USERLENS_{name.upper()}"

    with pytest.raises(SettingsError, match=f"from {variable}") as caught:
        Settings.load({}, environ={variable: text})

    assert (name, variable) == (caught.value.setting, caught.value.origin)


def test_everything_that_is_wrong():
    """
    Who reports on settings gets an error for each wrong one, and those that are right.
    """
    environ = {
        "USERLENS_READ_TIMEOUT": "-1",
        "USERLENS_MAX_WORKERS": "abc",
        "USERLENS_OVERFLOW": "x",
        "USERLENS_MAX_DEPTH": "2",
        "USERLENS_SPOOL": "/",
    }

    settings, wrong = load_what_is_right({"max_attempts": 0, "debug": True}, environ)

    assert Settings(max_depth=2, debug=True) == settings
    assert {
        "max_attempts": "argument",
        "max_workers": "USERLENS_MAX_WORKERS",
        "overflow": "USERLENS_OVERFLOW",
        "read_timeout": "USERLENS_READ_TIMEOUT",
        "spool": "USERLENS_SPOOL",
    } == {error.setting: error.origin for error in wrong}
    assert 5 == len(wrong)


def test_every_setting_wrong_at_once():
    """
    One error for each.
    """
    names = [name for name in FIELDS if name not in ("rules", "allow")]
    environ = {f"USERLENS_{name.upper()}": "w c[" for name in names}
    environ["USERLENS_SPOOL"] = "/"

    _, wrong = load_what_is_right({"allow": "x", "rules": 3}, environ)

    assert sorted(FIELDS) == sorted(error.setting for error in wrong)


@pytest.mark.parametrize(
    ("base", "cap", "expected"),
    [
        ("60", None, ["backoff_cap"]),
        ("60", "40", ["backoff_cap"]),
        ("x", "0.1", ["backoff_base"]),
        ("600", "x", ["backoff_cap"]),
        ("x", "x", ["backoff_base", "backoff_cap"]),
        ("60", "600", []),
    ],
)
def test_no_error_comes_of_what_was_put_in_the_place_of_a_wrong_setting(base, cap, expected):
    """
    Of two settings that have to fit, the one that is wrong is not an error of the other's.
    """
    given = {"USERLENS_BACKOFF_BASE": base, "USERLENS_BACKOFF_CAP": cap}

    _, wrong = load_what_is_right({}, {name: text for name, text in given.items() if text})

    assert expected == [error.setting for error in wrong]


def test_everything_that_is_wrong_knows_its_names():
    """
    A name that is no setting's is an error as ever.
    """
    with pytest.raises(SettingsError, match="did you mean max_workers"):
        load_what_is_right({"max_worker": 5}, {})


def test_wrong_argument_beside_a_variable():
    """
    A wrong argument is not blamed on the environment.
    """
    with pytest.raises(SettingsError) as caught:
        Settings.load({"max_workers": 0}, environ={"USERLENS_MAX_WORKERS": "5"})

    assert "argument" == caught.value.origin


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "meant"),
    [("max_worker", "max_workers"), ("writecode", "write_code"), ("event_url", "events_url")],
)
def test_slip_of_the_pen(name, meant):
    """
    A name that is nearly a setting's is answered with that one.
    """
    with pytest.raises(SettingsError, match=f"^{name} is not a setting; did you mean {meant}"):
        Settings.load({name: 5}, environ={})


@pytest.mark.parametrize("name", ["colour", "x" * 10_000_000, "", 5, None, ("max_workers",) * 2])
def test_unknown_name(name):
    """
    A name that is nothing like a setting's is answered with the list of them, and not echoed.
    """
    with pytest.raises(SettingsError, match="the settings are write_code, events_url") as caught:
        Settings.load({name: 5}, environ={})

    assert len(str(caught.value)) < 1000


# ---------------------------------------------------------------- as a value


def test_dict_key():
    """
    Equal settings find the same client.
    """
    settings = Settings(write_code="wc", redact=["a"], on_error=on_error)

    assert (
        "found" == {settings: "found"}[Settings(write_code=" wc", redact=("a",), on_error=on_error)]
    )
    assert settings != Settings(write_code="other", redact=["a"], on_error=on_error)


def test_frozen():
    """
    Settings do not change under those who share them.
    """
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().max_workers = 5


def test_evolve():
    """
    Settings that differ are new ones, and are checked like the first.
    """
    settings = Settings(write_code="wc", max_workers=2)

    assert Settings(write_code="wc", max_workers=3) == settings.evolve(max_workers=3)
    assert 2 == settings.max_workers
    with pytest.raises(SettingsError):
        settings.evolve(max_workers=0)


def test_pickle():
    """
    Settings survive the way to another process.
    """
    settings = Settings(write_code="wc", redact=["a"], on_error=on_error)

    assert settings == pickle.loads(pickle.dumps(settings))


@given(st.sampled_from(FIELDS), VALUES)
@example("redact", {1: 2})
def test_any_value(name, value):
    """
    Any value of any setting is taken, checked and hashable; or is a SettingsError in one line.
    """
    error = _error(lambda: Settings(**{name: value}))

    if error is not None:
        assert (name, 1) == (error.setting, len(str(error).splitlines()))
    elif name != "on_error":
        settings = Settings(**{name: value})
        assert {settings} == {settings.evolve()}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("USERLENS_WRITECODE", "USERLENS_WRITE_CODE"),
        ("USERLENS_MAX_WORKER", "USERLENS_MAX_WORKERS"),
        ("userlens_write_code", "USERLENS_WRITE_CODE"),
        ("USERLENS_EVENT_URL", "USERLENS_EVENTS_URL"),
    ],
)
def test_a_misspelled_variable_is_found(name, near):
    """
    The setting that may have been meant is named.
    """
    assert [(name, near)] == misspelled_variables({name: "secret", "HOME": "/"})


@pytest.mark.parametrize("name", ["USERLENS_TEAM_CHANNEL", "USERLENS_", "WRITE_CODE", "USERLENSX"])
def test_a_variable_that_is_somebody_elses_is_let_be(name):
    """
    What is near to no setting is not ours to complain of.
    """
    assert [] == misspelled_variables({name: "x"})


def test_no_setting_is_another_misspelled():
    """
    A right variable is never taken for a wrong one.
    """
    known = {f"USERLENS_{item.name.upper()}": "x" for item in dataclasses.fields(Settings)}

    assert [] == misspelled_variables(known)


def _cycle():
    rules = []
    rules.append(rules)
    return rules


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (" ", None),
        ("/etc/userlens.toml", "/etc/userlens.toml"),
        (Path("/etc/userlens.toml"), "/etc/userlens.toml"),
        ("userlens.toml", str(Path.cwd() / "userlens.toml")),
        ("~/userlens.toml", str(Path.home() / "userlens.toml")),
    ],
)
def test_rules_are_a_path(value, expected):
    """
    The path of a file, made absolute at once: a service may change its directory.
    """
    assert expected == Settings(rules=value).rules


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], []),
        ([{"message": "A"}], [{"message": "A"}]),
        (({"message": "A"},), [{"message": "A"}]),
        ({"message": "A"}, [{"message": "A"}]),
        ({"rule": [{"message": "A"}], "x": 1}, {"rule": [{"message": "A"}], "x": 1}),
        ([MappingProxyType({"where": MappingProxyType({"a": 1})})], [{"where": {"a": 1}}]),
    ],
)
def test_rules_are_a_list(value, expected):
    """
    A list of dicts, as YAML and dictConfig make it, or a whole document; checked when it is used.
    """
    rules = Settings(rules=value).rules

    assert expected == rules.document
    assert rules == Settings(rules=rules).rules
    assert hash(rules) == hash(Settings(rules=value).rules)


@pytest.mark.parametrize(
    "value", ["a\0b", b"a", 3, [object()], [{1, 2}], {"rule": object()}, _cycle()]
)
def test_rules_are_nothing_else(value):
    """
    What is neither is refused, without an echo.
    """
    with pytest.raises(SettingsError) as caught:
        Settings(rules=value)

    assert "rules" == caught.value.setting
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["rules", "spool"])
def test_a_relative_path_where_there_is_no_directory(name, tmp_path, monkeypatch):
    """
    A working directory that was deleted is one clear error.
    """
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(SettingsError, match="is relative to a directory that is gone"):
        Settings(**{name: "file"})
