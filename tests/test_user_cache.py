from pathlib import Path

import pytest

from edgeasr.user_cache import cache_folder


def test_it_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgeasr"


@pytest.mark.parametrize("given", ["", "relative"])
def test_without_a_place_named_for_them_it_lies_in_the_home_of_the_user(monkeypatch, given):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/edgeasr")


def test_a_user_without_a_home_has_none_that_could_be_made(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.raises(NotADirectoryError):
        cache_folder().mkdir(parents=True)
