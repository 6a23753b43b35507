"""``userlens-instrument check``: each line says ok, or what to do."""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from helpers import WRITE_CODE, Reply, ScriptedServer, closed_port

from userlens_instrument import Client, Settings
from userlens_instrument.cli import main
from userlens_instrument.cli.check import TEST_USER, Line, _shown


CODE_SHOWN = f"{len(WRITE_CODE)} characters, not shown (from USERLENS_WRITE_CODE)"


@pytest.fixture
def environ(monkeypatch, server):
    """Settings with which all is well, and how to change them."""

    def change(**settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"USERLENS_{name.upper()}", value)

    change(write_code=WRITE_CODE, events_url=server.url)
    server.script = by_the_contract
    return change


def by_the_contract(request):
    """Answer as Userlens does: to a wrong code 401, to an empty body 400."""
    return Reply(status=400 if request.body == b"{}" else 200)


@pytest.fixture
def checked(capsys):
    """Run the command; return its exit code, and a dict of what it says by topic."""

    def run(*arguments):
        code = main(["check", "--json", *arguments])
        document = json.loads(capsys.readouterr().out)
        assert (code == 0) == document["ok"]
        assert WRITE_CODE not in json.dumps(document)
        found = {}
        for line in document["lines"]:
            found.setdefault(line["topic"], []).append((line["state"], line["text"], line["fix"]))
        return code, found

    return run


def test_all_is_well(environ, server, capsys):
    """
    A line for each thing, exit code 0; one request, with an empty body; the write code is not
    shown.
    """
    assert 0 == main(["check"])

    out = capsys.readouterr().out
    port = server.url.rpartition(":")[2]
    assert [
        f"ok   settings: write_code = {CODE_SHOWN}",
        f"ok   settings: events_url = {server.url!r} (from USERLENS_EVENTS_URL)",
        "ok   settings: all others are at their defaults",
        f"ok   events_url: {server.url}, without a proxy",
        "ok   DNS: 127.0.0.1 is 127.0.0.1",
        f"ok   connection: 127.0.0.1:{port} is there",
        "ok   write code: it is not refused (400 to an empty body); --send sends an identify",
        "skip spool: none: events are in memory alone",
        "skip rules: none: tagged lines alone are events",
    ] == out.splitlines()[1:]
    assert out.startswith("ok   versions: userlens-instrument ")
    assert [b"{}"] == [request.body for request in server.requests]
    assert WRITE_CODE not in out


def test_send(environ, server, checked):
    """
    With --send one identify goes out, clearly marked as a test.
    """
    code, found = checked("--send")

    assert (0, [("ok", f"an identify of {TEST_USER} was taken (200)", "")]) == (
        code,
        found["write code"],
    )
    (body,) = [request.json for request in server.requests]
    assert ("identify", TEST_USER, True) == (body["type"], body["userId"], body["traits"]["test"])


@pytest.mark.parametrize("send", [False, True])
@pytest.mark.parametrize(
    ("status", "text", "fix"),
    [
        (401, "Userlens refuses it (401)", "copy it again"),
        (302, "the URL redirects (302)", "give the URL that it redirects to"),
        (404, "not tried: Userlens answered 404", "look at the URL"),
        (429, "not tried: Userlens answered 429", "try again later"),
        (503, "not tried: Userlens answered 503", "try again later"),
    ],
)
def test_other_answers(environ, server, checked, send, status, text, fix):
    """
    What the answer means, and what to do; exit code 1.
    """
    server.script = lambda request: Reply(status=status)

    code, found = checked(*["--send"] * send)

    ((state, said, todo),) = found["write code"]
    assert (1, "FAIL") == (code, state)
    assert said.startswith(text)
    assert todo.startswith(fix)


def test_a_refused_identify(environ, server, checked):
    """
    A 400 to the test identify is no success.
    """
    server.script = lambda request: Reply(status=400)

    code, found = checked("--send")

    assert (1, "not tried: Userlens answered 400") == (code, found["write code"][0][1])


def test_no_answer(environ, server, checked):
    """
    A connection that breaks before the answer.
    """
    server.script = lambda request: Reply(act="reset")

    code, found = checked()

    assert 1 == code
    assert found["write code"][0][1].startswith("not tried: the connection broke")


NO_TLS = [("skip", "not looked at: there is no connection", "")]
NO_WAY = "not tried: the way to events_url has to be right first"


def test_nobody_there(environ, checked):
    """
    Nothing listens: the connection is what fails, and no write code is tried.
    """
    port = closed_port()
    environ(events_url=f"http://127.0.0.1:{port}")

    code, found = checked()

    assert 1 == code
    assert "FAIL" == found["connection"][0][0]
    assert f"127.0.0.1:{port} cannot be reached (Connection refused)" == found["connection"][0][1]
    assert [("skip", NO_WAY, "")] == found["write code"]
    assert "TLS" not in found


def test_nobody_there_to_show_a_certificate(environ, checked):
    """
    Nor is there one of a machine that cannot be reached; the line says so.
    """
    environ(events_url=f"https://127.0.0.1:{closed_port()}")

    found = checked()[1]

    assert ("FAIL", NO_TLS) == (found["connection"][0][0], found["TLS"])


def test_no_connection_in_time(environ, monkeypatch, checked):
    """
    An address that does not answer costs the connect timeout.
    """

    def create_connection(address, timeout):
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", create_connection)

    assert "no answer in time" in checked()[1]["connection"][0][1]


def test_a_name_that_does_not_resolve(environ, checked):
    """
    RFC 6761: no name below .invalid ever resolves.
    """
    environ(events_url="https://userlens.invalid")

    code, found = checked()

    assert 1 == code
    assert found["DNS"][0][1].startswith("userlens.invalid does not resolve (")
    assert [("skip", "not tried: there is no address", "")] == found["connection"]
    assert NO_TLS == found["TLS"]
    assert [("skip", NO_WAY, "")] == found["write code"]


def test_a_proxy(environ, server, checked, monkeypatch):
    """
    Where a proxy is set it is the proxy that is looked for.
    """
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    environ(events_url="http://userlens.internal")

    code, found = checked()

    assert 0 == code
    where = server.url.removeprefix("http://")
    assert f"http://userlens.internal by way of the proxy {where}" == found["events_url"][0][1]
    assert ["http://userlens.internal/event"] == [request.path for request in server.requests]


def test_batches_go_elsewhere(environ, server, checked):
    """
    With delivery="batch" the way to raw_url is looked at as well.
    """
    environ(delivery="batch", raw_url=server.url)

    code, found = checked("--send")

    assert 0 == code
    assert {"events_url", "raw_url"} <= set(found)
    assert ["/event", "/raw/event"] == [request.path for request in server.requests]
    assert b"{}" == server.requests[1].body


# ---------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path, monkeypatch):
    made = trustme.CA(organization_name="Test Authority")
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def secured(authority, name="127.0.0.1", **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return ScriptedServer(by_the_contract, tls=context)


def test_a_good_certificate(environ, checked, authority):
    """
    Who issued it, and how long it is good for.
    """
    with secured(authority) as server:
        environ(events_url=server.url)
        code, found = checked()

    ((state, text, _),) = found["TLS"]
    assert (0, "ok") == (code, state)
    assert "certificate of Test Authority, good for " in text


def test_a_certificate_that_ends_soon(environ, checked, authority):
    """
    A fortnight before the end it is said.
    """
    soon = datetime.now(timezone.utc) + timedelta(days=5)
    with secured(authority, not_after=soon) as server:
        environ(events_url=server.url)
        code, found = checked()

    assert (0, "warn") == (code, found["TLS"][0][0])


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_certificate_that_is_not_trusted(environ, checked, authority, wrong):
    """
    Of an authority that nobody knows, or of another name; no write code is sent there.
    """
    issuer = trustme.CA() if wrong == "authority" else authority
    name = "127.0.0.1" if wrong == "authority" else "elsewhere.example"
    with secured(issuer, name) as server:
        environ(events_url=server.url)
        code, found = checked()

    assert 1 == code
    assert found["TLS"][0][1].startswith("the certificate is not trusted: ")
    assert [("skip", NO_WAY, "")] == found["write code"]
    assert [] == server.requests


def test_no_tls_there(environ, server, checked):
    """
    https to a port that speaks http.
    """
    environ(events_url=server.url.replace("http:", "https:"))

    code, found = checked()

    assert (1, True) == (code, found["TLS"][0][1].startswith("no secure connection ("))


# ---------------------------------------------------------------- settings, spool, rules


def test_wrong_settings(environ, checked, server, tmp_path):
    """
    A line for each, with where it comes from and its fix; what they have no part in is looked at.
    """
    environ(max_workers="many", overflow="x", read_timeout="-1", spool=str(tmp_path / "spool.db"))

    code, found = checked()

    assert 1 == code
    assert [
        ("max_workers (from USERLENS_MAX_WORKERS) is not a whole number", "give digits only"),
        (
            "overflow (from USERLENS_OVERFLOW) is no policy",
            "give 'drop_newest' or 'drop_oldest'",
        ),
        (
            "read_timeout (from USERLENS_READ_TIMEOUT) is out of range",
            "give 0.01 to 600 seconds",
        ),
    ] == [(text, fix) for state, text, fix in found["settings"] if state == "FAIL"]
    told = [text for state, text, _ in found["settings"] if state == "ok"]
    assert not [text for text in told if text.startswith(("max_workers", "overflow", "read_"))]
    assert ("ok", "ok", "skip") == (
        found["write code"][0][0],
        found["spool"][0][0],
        found["rules"][0][0],
    )
    assert 1 == len(server.requests)


@pytest.mark.parametrize("name", ["events_url", "spool", "rules"])
def test_what_a_wrong_setting_hides_is_skipped(environ, checked, server, tmp_path, name):
    """
    And says so; the others' lines are there.
    """
    environ(spool=str(tmp_path / "spool.db"))
    wrong = {"events_url": "here", "spool": str(tmp_path), "rules": str(tmp_path / "gone" / "x")}
    environ(**{name: wrong[name]})
    options = ["--rules", "x\0"] if name == "rules" else []

    code, found = checked(*options)

    assert 1 == code
    assert [("skip", f"not looked at: the setting {name} is wrong", "")] == found[name]
    assert {"events_url", "write code", "spool", "rules"} <= set(found)
    assert (name == "events_url") == (found["write code"] == [("skip", NO_WAY, "")])
    assert (name != "events_url") == bool(server.requests)
    if name == "rules":
        assert found["settings"][0][1].startswith("rules (from --rules) ")


def test_a_wrong_delivery(environ, checked, server):
    """
    Whether the second URL is used nobody knows then; the first one is looked at.
    """
    environ(delivery="pigeon")

    code, found = checked()

    assert 1 == code
    skipped = [("skip", "not looked at: the setting delivery is wrong", "")]
    assert ("ok", skipped) == (found["events_url"][0][0], found["raw_url"])
    assert ["ok", "skip"] == [state for state, _, _ in found["write code"]]
    assert ["/event"] == [request.path for request in server.requests]


def test_a_wrong_write_code(environ, checked, monkeypatch):
    """
    One FAIL; it is not said to be missing, and not tried.
    """
    monkeypatch.setenv("USERLENS_WRITE_CODE", "w c")

    code, found = checked()

    assert 1 == code
    assert [("skip", "not tried: the setting write_code is wrong", "")] == found["write code"]


@pytest.mark.parametrize("send", [False, True])
@pytest.mark.parametrize("name", ["dry_run", "disabled"])
@pytest.mark.parametrize(("value", "how"), [("yes", "{} is set"), ("y", "the setting {} is wrong")])
def test_nothing_is_sent_where_nothing_may_be(environ, checked, server, send, name, value, how):
    """
    Neither an identify nor an empty body, whatever --send says.
    """
    environ(**{name: value})

    code, found = checked(*["--send"] * send)

    text = f"not tried: {how.format(name)}, so nothing is sent"
    assert (1, [("skip", text, "")]) == (code, found["write code"])
    assert [] == server.requests


def test_settings_that_send_nothing(environ, checked, monkeypatch):
    """
    No write code, disabled, dry_run, and a variable that is nearly one.
    """
    environ(disabled="1", dry_run="1", max_worker="3", on_error="builtins:print")
    monkeypatch.delenv("USERLENS_WRITE_CODE")

    code, found = checked()

    assert 1 == code
    settings = [text for state, text, _ in found["settings"] if state in ("FAIL", "warn")]
    assert [
        "the variable USERLENS_MAX_WORKER is no setting, and ignored",
        "disabled is set: every event is dropped",
        "dry_run is set: nothing is sent",
    ] == settings
    assert "on_error = builtins:print (from USERLENS_ON_ERROR)" in [
        text for _, text, _ in found["settings"]
    ]
    assert [
        ("FAIL", "there is none: no event is sent"),
        ("skip", "not tried: dry_run is set, so nothing is sent"),
    ] == [line[:2] for line in found["write code"]]


def test_no_write_code(environ, checked, server, monkeypatch):
    """
    One FAIL, and nothing to try; the way is looked at all the same.
    """
    monkeypatch.delenv("USERLENS_WRITE_CODE")

    code, found = checked()

    assert 1 == code
    assert [
        ("FAIL", "there is none: no event is sent"),
        ("skip", "not tried: there is none"),
    ] == [line[:2] for line in found["write code"]]
    assert "ok" == found["connection"][0][0]
    assert [] == server.requests


def test_a_spool(environ, checked, tmp_path):
    """
    Not there yet; then with an event in it.
    """
    path = str(tmp_path / "new" / "spool.db")
    environ(spool=path)
    assert ("ok", f"{path} is made with the first event; not there yet", "") == checked()[1][
        "spool"
    ][0]
    assert not Path(path).exists()
    settings = Settings(write_code=WRITE_CODE, events_url=f"http://127.0.0.1:{closed_port()}")
    with Client(settings.evolve(spool=path, shutdown_timeout=0)) as client:
        client.track("u1", "Event")
        state, text, _ = checked()[1]["spool"][0]
        client.close(0)

    assert "ok" == state
    assert ", 1 events, 0 dead letters, " in text
    assert text.endswith(f"process {os.getpid()} delivers it")
    assert checked()[1]["spool"][0][1].endswith("nobody delivers it at present")


def test_a_spool_of_no_bytes(environ, checked, tmp_path):
    """
    An empty file, as `touch` or a container's mount makes one, is made a spool, and stays for now.
    """
    path = tmp_path / "spool.db"
    path.touch()
    environ(spool=str(path))

    assert "ok" == checked()[1]["spool"][0][0]

    assert [(path, 0)] == [(each, each.stat().st_size) for each in tmp_path.iterdir()]


def test_a_spool_with_dead_letters(environ, server, checked, tmp_path):
    """
    What was refused is worth a look.
    """
    path = str(tmp_path / "spool.db")
    server.script = lambda request: Reply(status=400)
    settings = Settings(write_code=WRITE_CODE, events_url=server.url, spool=path)
    with Client(settings) as client:
        client.track("u1", "Event")
        assert client.flush(20)
    environ(spool=path)

    state, text, fix = checked()[1]["spool"][0]

    assert ("warn", True) == (state, "0 events, 1 dead letter, " in text)
    assert f"userlens-instrument spool {path} dead-letters" == fix


def test_a_spool_that_is_none(environ, checked, tmp_path):
    """
    Another file in its place.
    """
    path = tmp_path / "spool.db"
    path.write_text("not a database, and long enough to be seen as none" * 20)
    environ(spool=str(path))

    code, found = checked()

    assert (1, "FAIL") == (code, found["spool"][0][0])


ELSEWHERE = "give a path on a local disk, in a folder that the user of the service may write"


@pytest.mark.parametrize("rest", ["spool.db", "new/spool.db"])
def test_a_spool_in_a_file(environ, checked, tmp_path, rest):
    """
    What should be a folder is a file: it is named, with what the system says.
    """
    folder = tmp_path / "file"
    folder.write_text("")
    environ(spool=f"{folder}/{rest}")

    code, found = checked()

    text = f"{folder}/{rest} cannot be made in {folder} (Not a directory)"
    assert (1, [("FAIL", text, ELSEWHERE)]) == (code, found["spool"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has it")
@pytest.mark.parametrize("path", ["/proc/x/spool.db", "/proc/spool.db"])
def test_a_spool_where_root_may_and_nobody_can(environ, checked, path):
    """
    It is tried, not asked: access() says yes to root, for /proc too.
    """
    environ(spool=path)

    code, found = checked()

    ((state, text, fix),) = found["spool"]
    assert (1, "FAIL", ELSEWHERE) == (code, state, fix)
    assert text.startswith(f"{path} cannot be made in /proc (")


@pytest.mark.parametrize(
    ("number", "said", "fix"),
    [
        (errno.EROFS, "Read-only file system", ELSEWHERE),
        (errno.ENOSPC, "No space left on device", "make room there"),
    ],
)
def test_a_spool_on_a_file_system_that_takes_nothing(
    environ, checked, tmp_path, monkeypatch, number, said, fix
):
    """
    Mounted to be read, or full: what the system says, and what to do about that.
    """

    def mkdir(*_, **__):
        raise OSError(number, os.strerror(number))

    environ(spool=str(tmp_path / "new" / "spool.db"))
    monkeypatch.setattr(os, "mkdir", mkdir)

    code, found = checked()

    text = f"{tmp_path}/new/spool.db cannot be made in {tmp_path} ({said})"
    assert (1, [("FAIL", text, fix)]) == (code, found["spool"])


def test_a_spool_in_a_folder_that_is_a_dangling_link(environ, checked, tmp_path):
    """
    A link to a volume that is not mounted: no folder can be made in its place.
    """
    (tmp_path / "volume").symlink_to(tmp_path / "gone")
    environ(spool=str(tmp_path / "volume" / "spool.db"))

    code, found = checked()

    assert (1, "FAIL") == (code, found["spool"][0][0])
    assert f"cannot be made in {tmp_path}/volume (No such file" in found["spool"][0][1]


def test_a_spool_that_only_opening_fails(environ, checked, tmp_path):
    """
    A name that leaves no room for SQLite's own beside it: folders can be made, a spool cannot.
    """
    path = tmp_path / ("s" * 250)
    environ(spool=str(path))

    code, found = checked()

    text = f"{path} cannot be made in {tmp_path} (File name too long)"
    assert (1, [("FAIL", text, ELSEWHERE)]) == (code, found["spool"])
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("rest", ["spool.db", "a/b/spool.db"])
def test_the_trial_of_a_spool_leaves_nothing_behind(environ, checked, tmp_path, rest):
    """
    Neither file nor folder, in a folder that there is or below one that is made later.
    """
    environ(spool=str(tmp_path / rest))

    assert "ok" == checked()[1]["spool"][0][0]

    assert [] == list(tmp_path.iterdir())


def test_rules(environ, checked, tmp_path):
    """
    How many, or what is wrong with the first; --rules wins over the environment.
    """
    path = tmp_path / "userlens.toml"
    path.write_text('[[rule]]\nmessage = "A"\n')
    environ(rules=str(path))
    assert ("ok", f"{path}: 1 rule", "") == checked()[1]["rules"][0]
    other = tmp_path / "other.toml"
    other.write_text('[[rule]]\nmessage = "A"\nlevl = 3\nstop = 1\n')

    code, found = checked("--rules", str(other))

    state, text, fix = found["rules"][0]
    assert (1, "FAIL") == (code, state)
    assert text.startswith(f'{other}: line 3, rule 1 "A": levl is no key')
    assert text.endswith(" (and 1 more)")
    assert f"userlens-instrument rules check {other}" == fix
    path.write_text('[[rule]]\nmessage = "A"\n[[rule]]\nmessage = "B"\n')
    assert f"{path}: 2 rules" == checked()[1]["rules"][0][1]
    assert ("ok", f"rules = '{path}' (from --rules)", "") in checked("--rules", str(path))[1][
        "settings"
    ]


# ---------------------------------------------------------------- how it is printed


@pytest.mark.parametrize(("colours", "no_color"), [(True, False), (True, True), (False, False)])
def test_colours(monkeypatch, colours, no_color):
    """
    On a terminal, unless NO_COLOR says otherwise (no-color.org); what comes from outside is text.
    """
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    line = Line(state="FAIL", topic="DNS", text="a\x1b[31m", fix="b")

    shown = _shown(line, colours=colours)

    expected = "\033[31mFAIL\033[0m" if colours and not no_color else "FAIL"
    assert f"{expected} DNS: a\\x1b[31m; fix: b" == shown


def test_a_version_that_is_not_there(environ, checked, monkeypatch):
    """
    orjson is optional; without it the line says so.
    """
    import importlib.metadata

    def version(name):
        if name == "orjson":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)

    assert checked()[1]["versions"][0][1].endswith("structlog 1, urllib3 1, no orjson, regex 1")


def test_bad_arguments(capsys):
    """
    One line, exit code 2.
    """
    with pytest.raises(SystemExit) as caught:
        main(["check", "--sent"])

    assert (2, 1) == (caught.value.code, len(capsys.readouterr().err.splitlines()))
