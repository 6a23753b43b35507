"""
Two programs from PyPI, as docs/unmodified.md runs them: by the wrapper, with rules alone.

Run by ``tox -e hosts``, as the matrix is.
"""

from __future__ import annotations

import base64
import ftplib
import io
import re
import shlex
import signal

import pytest
from helpers import PATIENCE
from host_matrix import Host, arrived, lacks, start, variables
from host_pages import ROOT, RUN, unwrapped
from schema import assert_valid


PAGE = ROOT / "docs" / "unmodified.md"
MARK = "report\n"
LAST = 1_000  # in the table


def by_ftp(running):
    """Log in, wrongly and rightly, and fetch a file."""
    running.until_console_has("starting FTP server")
    with ftplib.FTP(timeout=PATIENCE) as ftp:
        ftp.connect("127.0.0.1", running.port)
        with pytest.raises(ftplib.error_perm):
            ftp.login("ada", "wrong")
        ftp.login("ada", "pw")
        fetched = io.BytesIO()
        ftp.retrbinary("RETR report.txt", fetched.write)
        assert MARK == fetched.getvalue().decode()
    running.until_console_has("FTP session closed")
    return 1


def by_basic_authentication(running):
    """Fetch as three users, one of them nobody."""

    def answered(path, user):
        connection = running.at_port()
        given = base64.b64encode(f"{user}:pw".encode()).decode()
        headers = {"Authorization": f"Basic {given}"} if user else {}
        try:
            connection.request("GET", path, headers=headers)
            connection.getresponse().read()
        except ConnectionError:
            return False
        finally:
            connection.close()
        return True

    for path, user in (("/basic-auth/ada/pw", "ada"), ("/uuid", "bob"), ("/status/404", "")):
        running.until(lambda path=path, user=user: answered(path, user))
    running.until_console_has("/status/404")
    return 1


PROGRAMS = {
    "pyftpdlib": Host(
        name="pyftpdlib, unmodified",
        page="",
        drive=by_ftp,
        swapped={"2199": "{port}"},
        stop=signal.SIGINT,
        in_turn=True,
        needs=("pyftpdlib",),
    ),
    "gunicorn": Host(
        name="gunicorn's access log, unmodified",
        page="",
        drive=by_basic_authentication,
        options=("--no-control-socket",),
        swapped={"127.0.0.1:8777": "127.0.0.1:{port}"},
        needs=("gunicorn", "httpbin"),
    ),
}
EXPECTED = {
    "pyftpdlib": {
        "ada": [
            ("Logged In", {"host": "127.0.0.1"}),
            ("File Downloaded", {"file": "FOLDER/share/report.txt", "bytes": 7, "seconds": 0}),
        ],
    },
    "gunicorn": {
        "ada": [("Page Viewed", {"path": "/basic-auth/ada/pw", "status": 200, "ms": 0})],
        "bob": [("Page Viewed", {"path": "/uuid", "status": 200, "ms": 0})],
    },
}


def command_of(program):
    """Return the command that the page runs *program* by."""
    text = PAGE.read_text("utf-8").replace("\\\n", " ")
    typed = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    (found,) = (each for each in typed if each.startswith(RUN) and program in each.split(" -- ")[1])
    words = shlex.split(found)
    return [str(ROOT / word) if word.startswith("examples/") else word for word in words]


def settled(events, folder):
    """Return *events* without what differs from run to run by its nature."""
    for of_user in events.values():
        for _, properties in of_user:
            for name in {"ms", "seconds"} & set(properties):
                assert properties[name] >= 0
                properties[name] = 0
            if "file" in properties:
                properties["file"] = properties["file"].replace(str(folder), "FOLDER")
    return events


@pytest.mark.parametrize("program", PROGRAMS)
def test_unmodified_program(server, tmp_path, record_property, program):
    """Exactly the events that the page shows, and the console as without the wrapper."""
    host = PROGRAMS[program]
    record_property("cell", (LAST, host.name, "wrapper"))
    if lacks(host):
        pytest.skip(f"there is no {lacks(host)} here")
    command = command_of(program)
    outcomes = []
    for words, to in ((unwrapped(command), None), (command, server)):
        folder = tmp_path / ("plain" if to is None else "wrapped")
        (folder / "share").mkdir(parents=True)
        (folder / "share" / "report.txt").write_text(MARK, "utf-8")
        outcomes.append(start(host, folder, to, [*words, *host.options], variables(to, {})))
    plain, outcome = outcomes
    for body in server.events:
        assert_valid(body)

    assert EXPECTED[program] == settled(arrived(server, host), folder), outcome.text
    assert "" == plain.difference(outcome)
