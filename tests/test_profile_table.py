import re
import sys
from pathlib import Path
from runpy import run_path

import pytest

from edgeasr.cli.profile_table import fitted, profile_table
from edgeasr.profile.tables import Section, sections

PROFILED = run_path(str(Path(__file__).with_name("profiled.py")))
BOARDS = ("rpi4", "rpi5", "rpi-zero2w", "jetson-orin-nano", "generic-aarch64")
SECTION = Section(
    "operators",
    "Operators",
    (),
    ("operator", "µs", "weights KB", "of roof"),
    (
        ("MultiHeadAttention node_MultiHeadAttention_109", "1234.5", "0.0", "14%"),
        ("Sub node_sub", "5.8", "115.2", "100%"),
    ),
    dispensable=("µs",),
)


def test_names_give_way_before_columns_do():
    narrow, left_out = fitted(SECTION, 50)
    assert (narrow.header, left_out) == (SECTION.header, ())
    # 50 letters less 8 of µs, 9 of weights and 6 of the roof, each with a gap of 2.
    assert narrow.rows[0] == ("MultiHeadAtte…Attention_109", "1234.5", "0.0", "14%")
    assert narrow.rows[1] == SECTION.rows[1]


@pytest.mark.parametrize(
    ("width", "kept", "left_out"),
    [
        (46, ("operator", "weights KB", "of roof"), ("µs",)),
        (38, ("operator", "weights KB"), ("µs", "of roof")),
        (10, ("operator", "weights KB"), ("µs", "of roof")),
    ],
)
def test_columns_go_in_their_order_and_then_from_the_right_and_one_stays(width, kept, left_out):
    narrow, gone = fitted(SECTION, width)
    assert (narrow.header, gone) == (kept, left_out)


@pytest.fixture
def shown(monkeypatch):
    """What a terminal of a width shows, without its colours."""

    def show(width: int) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        return re.sub(r"\x1b\[[0-9;]*m", "", profile_table(sections(PROFILED["report"]()))).splitlines()

    return show


@pytest.mark.parametrize("width", [40, 80, 200])
def test_an_operator_or_a_board_is_a_line_with_its_whole_name(shown, width):
    lines = shown(width)
    assert max(map(len, lines)) <= width
    for name in (*BOARDS, "MatMul second", "Reshape third", "lstm, 4 x 40 ms a step"):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert len(line.removeprefix(name).split()) >= 2


def test_what_is_left_out_is_named(shown):
    said = " ".join(shown(40))
    assert "Left out on a terminal as narrow as this: RTF of steps" in " ".join(said.split())
    assert "Left out" not in " ".join(shown(200))


def test_a_pipe_gets_all_columns_and_unbroken_lines():
    text = profile_table(sections(PROFILED["report"]()))
    header = next(line for line in text.splitlines() if line.startswith("operator "))
    assert header.split("  ")[-1].strip() == "bound by"
    assert "k multiply-adds" in header
    assert "Left out" not in text
    assert all(line in text.splitlines() for section in sections(PROFILED["report"]()) for line in section.lines)
