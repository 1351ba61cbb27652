import os

import pytest

from edgeasr.cli.terminal import print_error, print_note, write_out
from edgeasr.service.notify import ServiceManager
from edgeasr.wording import visible

NASTY = "a\n\x1b[2Jb\r\t\x7f\u202egnp.wav"
SHOWN = "a\\n\\u001b[2Jb\\r\\t\\u007f\\u202egnp.wav"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (NASTY, SHOWN),
        ("Größe 語 \u3000é.wav", "Größe 語 \u3000é.wav"),
        (os.fsdecode(b"\xff.wav"), "\\udcff.wav"),
        ("\U000e0041", "\\U000e0041"),
        (3, "3"),
    ],
)
def test_what_would_not_be_seen_of_a_name_is_escaped(name, shown):
    assert visible(name) == shown


def test_results_keep_their_lines_and_rule_no_terminal(capsys):
    write_out("a\tb\n\x1b[2J\x9b1m\r\udcff\u200d\n")
    assert capsys.readouterr().out == "a\tb\n\\u001b[2J\\u009b1m\\r\\udcff\u200d\n"


def test_results_may_be_styled(capsys):
    write_out("\x1b[1mbold\n", styled=True)
    assert capsys.readouterr().out == "\x1b[1mbold\n"


def test_errors_and_notes_are_a_line_that_rules_no_terminal(capsys):
    print_error(f"cannot open {NASTY}")
    print_note(f"cannot open {NASTY}")
    shown = "cannot open a \\u001b[2Jb \\t\\u007f\\u202egnp.wav\n"
    assert capsys.readouterr().err == f"edgeasr: error: {shown}edgeasr: {shown}"


def test_a_service_manager_is_told_a_line(monkeypatch):
    sent = []
    monkeypatch.setattr(ServiceManager, "_send", lambda self, *lines: sent.append(lines))
    ServiceManager().ready(f"listening to {NASTY}\udcff")
    assert sent == [("READY=1", "STATUS=listening to a \\u001b[2Jb \\u007f\\u202egnp.wav\\udcff")]
