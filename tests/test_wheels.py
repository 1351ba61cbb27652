"""The base install is wheels alone on a Raspberry Pi: pip on a board has no compiler to ask."""

import subprocess
import sys
import tomllib

import pytest

# Bookworm has glibc 2.36 and Python 3.11, Trixie 2.41 and 3.13. pip takes a tag literally, so older ones are named too.
GLIBC_MINORS = (17, 24, 26, 27, 28, 31, 34, 35, 36)


@pytest.fixture(scope="module")
def dependencies(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Skips where no index of packages answers."""
    folder = tmp_path_factory.mktemp("index")
    if reason := problem(["typing-extensions"], "3.11", folder):
        pytest.skip(f"no index of packages: {reason.splitlines()[-1]}")


def problem(packages, python, folder):
    """What pip says where it finds no wheels for aarch64; nothing where it does."""
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in GLIBC_MINORS]
    options = ["--platform=manylinux2014_aarch64", *tags, "--implementation=cp", f"--python-version={python}"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run", "--ignore-installed"]
    command = [*pip, "--quiet", "--only-binary=:all:", f"--target={folder}", *options, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_everything_has_a_wheel_for_aarch64(dependencies, index, python, tmp_path):
    assert not problem(dependencies, python, tmp_path)


def test_what_has_none_is_found(index, tmp_path):
    assert "No matching distribution" in problem(["pocketsphinx==0.1.15"], "3.11", tmp_path)
