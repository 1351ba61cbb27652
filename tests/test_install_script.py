"""What install.sh does on systems that it is not run on here, with programs that write down what they are asked."""

import subprocess

import pytest

WORDS = """it was the first time that she had seen the old house
there was a man in the house and he had a great deal of money"""
PYTHON = """
case $* in
    *version_info*) echo "{version}" ;;
    *"-m venv"*)
        for folder; do :; done
        mkdir -p "$folder/bin"
        cp "$0" "$folder/bin/python"
        printf '%s\\n' '#!/bin/sh' 'echo "{heard}"' > "$folder/bin/edgeasr"
        chmod +x "$folder/bin/edgeasr" ;;
esac
"""


@pytest.fixture
def system(tmp_path, repository):
    """Runs the script on a system of this architecture: what became of it, and what its programs were asked."""
    log = tmp_path / "log"
    log.touch()

    def program(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{text}\n')
        path.chmod(0o755)

    def run(architecture, kernel, version="3.11", heard=WORDS, **environment):
        program("dpkg", f"echo {architecture}")
        program("dpkg-query", "exit 1")
        program("apt-get", "")
        program("sudo", 'exec "$@"')
        program("uname", f"echo {kernel}")
        program("setarch", 'shift; exec "$@"')
        program("python3", PYTHON.format(version=version, heard=heard))
        path = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
        command = ("sh", repository / "devices" / "install.sh", tmp_path / "e", "--no-index")
        done = subprocess.run(command, env=path | environment, capture_output=True, text=True, check=False)
        return done, log.read_text().splitlines()

    return run


def installed(asked):
    """What ran pip first, and the package that it was asked for."""
    by, *_, package = next(line for line in asked if "-m pip" in line).split()
    return by, package


@pytest.mark.parametrize("kernel", ["aarch64", "armv7l"])
def test_32_bits_get_tflite_runtime_and_debians_packages(system, kernel):
    done, asked = system("armhf", kernel, INSTALL_MODEL="/", INSTALL_PACKAGE="e.whl")
    assert done.returncode == 0, done.stderr
    assert any("-m venv --system-site-packages" in line for line in asked)
    packages = next(line for line in asked if line.startswith("apt-get")).split()
    assert {"python3-numpy", "python3-cffi", "libsndfile1", "libsoxr0"} <= set(packages)
    by, package = installed(asked)
    assert package == "e.whl[tflite]"
    assert (by == "setarch") == (kernel == "aarch64")


def test_32_bits_of_trixie_get_debians_onnx_runtime_and_need_no_model(system):
    done, asked = system("armhf", "aarch64", "3.13", INSTALL_PACKAGE="e.whl")
    assert done.returncode == 0, done.stderr
    packages = next(line for line in asked if line.startswith("apt-get")).split()
    assert {"python3-onnxruntime", "python3-numpy", "libsoxr0"} <= set(packages)
    assert installed(asked) == ("setarch", "e.whl")


def test_64_bits_get_what_they_got(system):
    done, asked = system("arm64", "aarch64", INSTALL_PACKAGE="e.whl")
    assert done.returncode == 0, done.stderr
    assert next(line for line in asked if line.startswith("apt-get")).split()[-4:] == [
        "python3-venv",
        "libportaudio2",
        "gcc",
        "libc6-dev",
    ]
    by, package = installed(asked)
    assert (by, package) == ("python3", "e.whl")
    assert not any("system-site-packages" in line for line in asked)


def test_extras_that_are_named_stay(system):
    _, asked = system("armhf", "armv7l", INSTALL_MODEL="/", INSTALL_PACKAGE="e.whl[tflite,mqtt]")
    assert installed(asked)[1] == "e.whl[tflite,mqtt]"


@pytest.mark.parametrize(
    ("architecture", "version", "said"),
    [
        ("armhf", "3.11", "got no INSTALL_MODEL on 32 bits with Python 3.11"),
        ("arm64", "3.10", "got Python 3.10, wanted 3.11 or newer"),
        ("riscv64", "3.11", "got a system of riscv64, wanted arm64, amd64 or armhf"),
    ],
)
def test_what_cannot_be_installed_on_is_refused_in_one_line(system, architecture, version, said):
    done, asked = system(architecture, "x", version)
    assert done.returncode == 2
    assert done.stderr.startswith(f"install.sh: {said}")
    assert done.stderr.count("\n") == 1
    assert not any(line.startswith("apt-get") for line in asked)


@pytest.mark.parametrize(("model", "heard", "status"), [({}, "a word", 2), ({"INSTALL_MODEL": "/"}, "a word", 0)])
def test_the_words_are_those_of_the_model_that_comes_along(system, model, heard, status):
    assert system("arm64", "aarch64", heard=heard, **model)[0].returncode == status


@pytest.mark.parametrize("model", [{}, {"INSTALL_MODEL": "/"}])
def test_no_words_are_wrong_of_any_model(system, model):
    done, _ = system("arm64", "aarch64", heard="", **model)
    assert done.returncode == 2
    assert "heard ''" in done.stderr


def test_several_folders_are_refused_before_anything_is_made(tmp_path, repository):
    command = ("sh", repository / "devices" / "install.sh", tmp_path / "e", "w", "--no-index")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"got the words {tmp_path / 'e'} and w, wanted one folder" in done.stderr
    assert not (tmp_path / "e").exists()


def test_a_model_that_is_not_there_is_named_before_anything_is_made(system):
    done, asked = system("arm64", "aarch64", INSTALL_MODEL="/none")
    assert (done.returncode, done.stdout, asked) == (2, "", [])
    assert "there is no bundle /none" in done.stderr
