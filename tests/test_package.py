import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import edgeasr
from edgeasr.bundle import Bundle

TOP_LEVEL = {
    *("pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md"),
    *("edgeasr", "converters", "firmware_bridge", "devices", "tests"),
}
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "edgeasr", "converters", "firmware_bridge", "devices")
CLIP = Path("edgeasr", "models", "demo.flac")
CLIP_WORDS = {"first", "time", "seen", "old", "house", "there", "man", "great", "deal", "money"}


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints on standard output; it sees no Python path but its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, check=False, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def settings(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    """A wheel of a copy of the tree, in which a checkpoint lies beside the models."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (repository / name).is_dir():
            shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(repository / name, source / name)
    (source / "edgeasr" / "models" / "checkpoint.safetensors").write_bytes(b"weights")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, source, cwd=source)
    return next(target.glob("edgeasr-*.whl"))


def test_the_top_level_holds_what_it_should_and_no_more(repository):
    if not (repository / ".git").exists():
        pytest.skip("no git checkout: what belongs to the tree is not known")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=repository)
    names = {Path(line).parts[0] for line in listed.splitlines()}
    assert {name for name in names if not name.startswith(".")} - {"docs"} == TOP_LEVEL


def test_every_folder_of_modules_is_a_listed_package(repository, settings):
    packages = settings["tool"]["setuptools"]["packages"]
    found = set()
    for package, folder in settings["tool"]["setuptools"]["package-dir"].items():
        for module in (repository / folder).rglob("__init__.py"):
            inner = module.parent.relative_to(repository / folder).parts
            found.add(".".join([package, *inner]))
    assert sorted(found) == packages


def test_top_level_folders_are_imported_as_subpackages(repository, tmp_path):
    names = ("converters", "devices", "firmware_bridge")
    code = f"import edgeasr.{', edgeasr.'.join(names)}; " + "; ".join(
        f"print(edgeasr.{name}.__file__)" for name in names
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).split() == [
        str(repository / name / "__init__.py") for name in names
    ]


def test_importing_edgeasr_imports_nothing_heavy(tmp_path):
    heavy = {"librosa", "numpy", "onnxruntime", "sounddevice", "soundfile", "soxr", "torch", "typer"}
    code = f"import sys, edgeasr; print(*sorted({heavy} & set(sys.modules)))"
    assert run(sys.executable, "-c", code, cwd=tmp_path).strip() == ""


def test_public_names_are_imported_when_they_are_used():
    assert edgeasr.Bundle is Bundle
    assert {"Bundle", "Recognizer", "__version__"} <= set(dir(edgeasr))
    with pytest.raises(AttributeError, match="module 'edgeasr' has no attribute 'Recogniser'"):
        edgeasr.Recogniser  # noqa: B018


def test_the_wheel_holds_the_packages_the_models_and_no_checkpoint(repository, wheel, settings):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    for package in settings["tool"]["setuptools"]["packages"]:
        assert f"{package.replace('.', '/')}/__init__.py" in names
    shipped = [
        path.relative_to(repository).as_posix()
        for folder in ("dictionaries", "grammars", "models", "recipes")
        for path in (repository / "edgeasr" / folder).rglob("*")
        if path.is_file() and path.suffix != ".safetensors"
    ]
    firmware = repository / "firmware_bridge"
    for pattern in ("c/include/*.h", "c/src/*.c", "vectors/*.txt"):
        shipped += [
            f"edgeasr/firmware_bridge/{path.relative_to(firmware).as_posix()}" for path in firmware.glob(pattern)
        ]
    assert {"edgeasr/py.typed", "edgeasr/firmware_bridge/c/include/edgeasr_messages.h", *shipped} <= names
    assert not [name for name in names if name.endswith(".safetensors") or "tests/" in name]
    assert {name.split("/")[0] for name in names} == {"edgeasr", f"edgeasr-{edgeasr.__version__}.dist-info"}
    assert "License-Expression: Apache-2.0" in metadata


def test_the_wheel_transcribes_in_an_empty_environment_without_torch(repository, wheel, tmp_path):
    wheelhouse = Path(sys.prefix, "wheelhouse")
    if not wheelhouse.is_dir():
        pytest.skip("no wheels of what edgeasr needs: run `make setup`")
    run(sys.executable, "-m", "venv", "--without-pip", "empty", cwd=tmp_path)
    binaries = tmp_path / "empty" / "bin"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", binaries / "python")
    run(*pip, "install", "--no-index", "--no-compile", "--find-links", wheelhouse, wheel, cwd=tmp_path)
    code = "from importlib.util import find_spec as f; print([n for n in ('torch', 'librosa', 'onnx') if f(n)])"
    assert run(binaries / "python", "-c", code, cwd=tmp_path).strip() == "[]"
    heard = run(binaries / "edgeasr", "transcribe", repository / CLIP, cwd=tmp_path)
    assert set(heard.lower().split()) >= CLIP_WORDS
