from pathlib import Path

import pytest
import typer

from edgeasr.cli.destinations import require_file, require_folder


def test_a_file_that_is_there_stays_and_none_is_left_behind(tmp_path):
    old, new = tmp_path / "old.html", tmp_path / "new.html"
    old.write_text("before")
    require_file(old, "--html")
    require_file(new, "--html")
    assert (old.read_text(), new.exists()) == ("before", False)


def test_a_folder_is_made_and_left_empty(tmp_path):
    require_folder(tmp_path / "a" / "b", "--plot")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc, where root may not write either")
@pytest.mark.parametrize(("require", "place"), [(require_file, "/proc/x"), (require_folder, "/proc/x/y")])
def test_what_the_system_refuses_is_told_by_its_option(require, place):
    with pytest.raises(typer.BadParameter, match=f"cannot write {place}"):
        require(Path(place), "--html")
