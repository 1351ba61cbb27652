import json
import os
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeasr.devices.doctor import checkup as checkup_module
from edgeasr.devices.doctor import installation, machine, services, sound
from edgeasr.devices.doctor.checkup import checkup
from edgeasr.devices.doctor.clock import judged_clock
from edgeasr.devices.doctor.examination import Check, Circumstances, Finding, Result, examine
from edgeasr.devices.doctor.recognition import checks as recognition_checks
from edgeasr.devices.doctor.recognition import judged_run
from edgeasr.errors import BundleError, ConfigError, DeviceError
from edgeasr.profile.run import StreamRun

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]
NOW_S = 4e9  # a time after every installation


def files(root, **texts):
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class TestExamination:
    def test_gives_what_was_found(self):
        (result,) = examine([Check("a", "b", lambda: Finding("warn", "found", "fix"))])
        assert (result.group, result.name, result.status, result.found, result.fix) == (
            "a",
            "b",
            "warn",
            "found",
            "fix",
        )
        assert not result.timed_out

    @pytest.mark.parametrize(
        ("error", "found", "fix"),
        [
            (
                BundleError("bundle x: step.onnx is missing: fetch it again"),
                "bundle x: step.onnx is missing",
                "fetch it again",
            ),
            (ConfigError("no hint"), "no hint", ""),
            (
                DeviceError("no input matches 'x', want one", fix="choose from 0: pulse; 1: default"),
                "no input matches 'x', want one",
                "choose from 0: pulse; 1: default",
            ),
            (
                ConfigError("a.toml: got 'x', wanted a or b: choose one, such as a: b"),
                "a.toml: got 'x', wanted a or b",
                "choose one, such as a: b",
            ),
            (ConfigError("a.toml: 0 is not in the range x>=1", fix=""), "a.toml: 0 is not in the range x>=1", ""),
            (ZeroDivisionError("division"), "the check broke: ZeroDivisionError: division", "please report this"),
        ],
    )
    def test_an_error_is_a_finding_and_the_others_go_on(self, error, found, fix):
        def fail():
            raise error

        results = list(examine([Check("a", "b", fail), Check("a", "c", lambda: Finding("ok", "fine"))]))
        assert [(one.status, one.found, one.fix) for one in results] == [("fail", found, fix), ("ok", "fine", "")]

    def test_a_check_that_hangs_is_given_up(self):
        never = threading.Event()
        checks = [
            Check("a", "b", lambda: Finding("ok", str(never.wait())), 0.05),
            Check("a", "c", lambda: Finding("ok", "")),
        ]
        hung, other = examine(checks)
        assert (hung.status, hung.found, hung.timed_out) == ("fail", "no answer within 0.05 s", True)
        assert other.status == "ok"
        never.set()

    def test_a_section_that_cannot_be_imported_is_a_finding(self, monkeypatch):
        def broken(name):
            raise ImportError("libfoo.so: wrong ELF class")

        monkeypatch.setattr(checkup_module, "import_module", broken)
        results = list(checkup(Circumstances()))
        assert {one.status for one in results} == {"fail"}
        assert results[0].found == "cannot be looked at (libfoo.so: wrong ELF class)"


class TestMachine:
    @pytest.mark.parametrize(("version", "status"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 14, 1), "ok")])
    def test_python(self, version, status):
        assert machine.python(version).status == status

    @pytest.mark.parametrize(
        ("architecture", "bits", "runtimes", "status", "fix"),
        [
            ("aarch64", 64, [], "ok", ""),
            ("aarch64", 32, [], "fail", "install a 64-bit system, or pip install 'edgeasr[tflite]'"),
            ("armv7l", 32, ["tflite_runtime"], "ok", ""),
            ("riscv64", 64, [], "warn", "aarch64 and x86_64"),
        ],
    )
    def test_system(self, tmp_path, architecture, bits, runtimes, status, fix):
        files(tmp_path, **{"etc__os-release": 'NAME="x"\nPRETTY_NAME="Raspberry Pi OS 12"\n'})
        found = machine.system(tmp_path, architecture, bits, runtimes)
        assert (found.status, fix in found.fix) == (status, True)
        assert found.found.startswith("Raspberry Pi OS 12, kernel ")
        assert f"{architecture}, {bits}-bit" in found.found

    def test_board(self, tmp_path):
        model = {"proc__device-tree__model": "Raspberry Pi 4 Model B Rev 1.4\0"}
        files(tmp_path, proc__cpuinfo="processor : 0\nFeatures : fp asimd\nCPU part : 0xd08\n", **model)
        found = machine.board(tmp_path)
        assert (found.status, found.found) == ("ok", "Raspberry Pi 4 Model B, 4 x Cortex-A72")
        unknown = machine.board(tmp_path / "empty")
        assert "no board that is known" in unknown.found

    @pytest.mark.parametrize(("mb", "status"), [(60, "fail"), (200, "warn"), (900, "ok")])
    def test_memory(self, tmp_path, mb, status):
        files(tmp_path, proc__meminfo=f"MemTotal: 1000000 kB\nMemAvailable: {mb * 1024} kB\n")
        found = machine.memory(tmp_path)
        assert (found.status, found.found) == (status, f"{mb} MB are free")
        assert bool(found.fix) == (status != "ok")

    def test_memory_that_nobody_tells_of(self, tmp_path):
        assert machine.memory(tmp_path).status == "skipped"

    @pytest.mark.parametrize(("free_mb", "status"), [(10, "fail"), (100, "warn"), (5_000, "ok")])
    def test_disk(self, tmp_path, monkeypatch, free_mb, status):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=free_mb << 20))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        found = machine.disk(tmp_path / "new" / "memory.db")
        assert (found.status, f"{free_mb} MB free for the store" in found.found) == (status, True)

    def test_disk_that_cannot_be_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
        found = machine.disk(tmp_path / "memory.db")
        assert (found.status, "cannot be written" in found.found) == ("warn", True)

    @pytest.mark.parametrize(
        ("bits", "heat", "status", "found", "fix"),
        [
            ("0", "45000", "ok", "45 C, not throttled", ""),
            ("1", "45000", "warn", "supply voltage too low; 45 C", "power supply"),
            ("50000", "45000", "warn", "supply voltage too low, earlier, throttled, earlier; 45 C", "power supply"),
            ("4", "82000", "warn", "throttled; 82 C", "heat sink"),
            ("0", "85000", "warn", "85 C", "heat sink"),
        ],
    )
    def test_throttling_of_a_raspberry_pi(self, tmp_path, bits, heat, status, found, fix):
        zone = "sys__class__thermal__thermal_zone0__"
        files(
            tmp_path, sys__devices__platform__soc__x__get_throttled=bits, **{f"{zone}temp": heat, f"{zone}type": "cpu"}
        )
        result = machine.throttling(tmp_path)
        assert (result.status, result.found) == (status, found)
        assert fix in result.fix

    def test_throttling_of_x86_counts_since_the_start(self, tmp_path):
        count = "sys__devices__system__cpu__cpu0__thermal_throttle__core_throttle_count"
        assert machine.throttling(files(tmp_path, **{count: "0"})).found == "no sensor of temperature, not throttled"
        found = machine.throttling(files(tmp_path, **{count: "3"}))
        assert (found.status, found.found) == ("warn", "throttled 3 times, earlier; no sensor of temperature")

    def test_throttling_that_nobody_tells_of(self, tmp_path):
        assert machine.throttling(tmp_path).status == "skipped"

    @pytest.mark.parametrize(
        ("wall_s", "stepped_s", "synchronised", "status", "found"),
        [
            (NOW_S, 0.01, True, "ok", "synchronised"),
            (NOW_S, 0.01, False, "warn", "not synchronised"),
            (NOW_S, 0.01, None, "skipped", "does not say"),
            (NOW_S, -3_600.0, True, "warn", "the clock was set by -3600.0 s while this ran"),
            (86_400.0, 0.0, True, "warn", "it is 1970-01-02 by the clock: impossible"),
        ],
    )
    def test_clock(self, wall_s, stepped_s, synchronised, status, found):
        result = judged_clock(wall_s, stepped_s, synchronised)
        assert (result.status, found in result.found) == (status, True)
        assert ("set-ntp" in result.fix) == (status == "warn")


class TestInstallation:
    def versions(self, monkeypatch, wanted, there):
        def version(name):
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(installation.metadata, "requires", lambda name: wanted)
        monkeypatch.setattr(installation.metadata, "version", version)
        return installation.packages()

    WANTED = ("numpy>=2.1", "typer<0.29,>=0.16", 'apsw>=3.54; extra == "memory"', 'pyserial>=3.5; extra == "bridge"')

    def test_what_is_wanted_is_there(self, monkeypatch):
        found = self.versions(monkeypatch, self.WANTED, {"numpy": "2.4", "typer": "0.28.0", "apsw": "3.54.1"})
        assert (found.status, found.found) == ("ok", "numpy 2.4, typer 0.28.0; extras: memory")

    @pytest.mark.parametrize(
        ("there", "found"),
        [
            ({"numpy": "2.4"}, "typer is not there"),
            ({"numpy": "1.26", "typer": "0.28"}, "numpy is 1.26, wanted >=2.1"),
            ({"numpy": "2.4", "typer": "0.28", "pyserial": "3.0"}, "pyserial is 3.0, wanted >=3.5"),
        ],
    )
    def test_what_is_missing_or_of_another_version(self, monkeypatch, there, found):
        result = self.versions(monkeypatch, self.WANTED, there)
        assert (result.status, result.found) == ("fail", found)
        assert result.fix.startswith("pip install --upgrade edgeasr")

    @pytest.mark.parametrize(("architecture", "status"), [("armv8l", "ok"), ("aarch64", "fail")])
    def test_what_is_not_made_for_32_bits_is_not_missed_there(self, monkeypatch, architecture, status):
        monkeypatch.setattr(installation, "program_architecture", lambda: architecture)
        wanted = ("numpy>=1.24", "onnxruntime>=1.20; 'armv' not in platform_machine")
        assert self.versions(monkeypatch, wanted, {"numpy": "1.24.2"}).status == status

    def test_compiled_packages_of_32_bits(self, monkeypatch):
        monkeypatch.setattr(installation, "installed_runtimes", lambda: ("tflite_runtime",))
        assert installation._compiled(32) == ("numpy", "soundfile", "tflite_runtime")
        assert installation._compiled(64) == ("numpy", "onnxruntime", "soundfile", "soxr")

    def test_without_metadata_nothing_is_said(self):
        assert installation.packages("no-such-package-at-all").status == "skipped"

    def test_wheels_are_imported_by_a_program_of_its_own(self, tmp_path, monkeypatch):
        assert installation.wheels(("json",)).status == "ok"
        missing = installation.wheels(("no_such_module",))
        assert (missing.status, "No module named 'no_such_module'" in missing.found) == ("fail", True)
        (tmp_path / "crashing.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        crashed = installation.wheels(("crashing",))
        assert (crashed.status, "ends with SIGILL" in crashed.found) == ("fail", True)
        assert "of another processor" in crashed.fix

    def test_model(self, tmp_path):
        found = installation.model(None)
        assert (found.status, "all hashes right" in found.found) == ("ok", True)
        check = Check("installation", "model", lambda: installation.model(str(tmp_path / "none")))
        (missing,) = examine([check])
        assert (missing.status, missing.fix) == ("fail", "check the path")

    def test_configuration(self):
        def wrong():
            raise ConfigError("config.toml: unknown key a in [listen]: did you mean b?")

        (result,) = examine([Check("i", "c", lambda: installation.configuration(Circumstances(configuration=wrong)))])
        assert (result.status, result.fix) == ("fail", "did you mean b?")
        assert installation.configuration(Circumstances()).status == "ok"

    def test_a_token_that_others_can_read(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        path = files(tmp_path, edgeasr__config='[serve]\ntoken = "x"\n') / "edgeasr" / "config"
        path = path.rename(path.with_suffix(".toml"))
        path.chmod(0o640)
        found = installation.configuration(Circumstances())
        assert (found.status, found.fix) == ("warn", f"chmod 600 {path}")
        path.chmod(0o600)
        assert installation.configuration(Circumstances()).status == "ok"


class Stream:
    """An input of a sound system: calls back with blocks of what the test wants, then with nothing."""

    def __init__(self, waveform, callback, blocksize, channels, **others):
        self._blocks = [waveform[i : i + blocksize] for i in range(0, len(waveform), blocksize)]
        self._callback, self._channels = callback, channels

    def start(self):
        clock = SimpleNamespace(inputBufferAdcTime=0.0)
        for block in self._blocks:
            if len(block):
                frames = np.repeat(block[:, None], self._channels, axis=1).astype(np.float32)
                self._callback(frames, len(frames), clock, SimpleNamespace(input_overflow=False))

    def close(self):
        pass


def sound_system(waveform=None, *, rates=(16_000, 48_000), devices=1, opens=True):
    """Stands in for the module sounddevice, with microphones at 48 kHz."""
    inputs = [
        {"index": i, "name": f"USB {i}", "max_input_channels": 1, "default_samplerate": 48_000.0}
        for i in range(devices)
    ]

    class PortAudioError(Exception):
        pass

    def query_devices(kind=None):
        return inputs if kind is None else inputs[0]

    def check_input_settings(device, channels, samplerate, **others):
        if samplerate not in rates:
            raise PortAudioError("Invalid sample rate")

    def input_stream(**settings):
        if not opens:
            raise PortAudioError("Device unavailable")
        return Stream(np.zeros(0) if waveform is None else waveform, **settings)

    return SimpleNamespace(
        PortAudioError=PortAudioError,
        query_devices=query_devices,
        check_input_settings=check_input_settings,
        InputStream=input_stream,
        get_portaudio_version=lambda: (1_246_720, "PortAudio V19.7.0-devel, revision 1234"),
    )


def heard(stand_in, **given):
    """Results of the sound checks by name."""
    checks = [check for check in sound.checks(Circumstances(**given), stand_in) if check.name != "rights"]
    return {result.name: result for result in examine(checks)}


class TestSound:
    def test_a_microphone_that_works(self):
        speech = 0.1 * np.sin(np.arange(96_000))
        results = heard(sound_system(speech, rates=(8_000, 48_000)), level_s=1.0)
        assert {result.status for result in results.values()} == {"ok"}
        assert results["portaudio"].found == "PortAudio V19.7.0-devel"
        assert results["devices"].found == "0: USB 0 (1 ch, 48000 Hz); heard is 0"
        assert results["rates"].found.startswith("its own is 48000 Hz, taken are 8000, 48000 Hz")
        assert results["microphone"].found == "USB 0 opens at 48000 Hz and gives sound"
        assert results["level"].found == "USB 0: loudest -20 dB, mean -23 dB of full scale"

    def test_without_a_microphone(self):
        results = heard(sound_system(devices=0), level_s=1.0)
        assert (results["devices"].status, results["devices"].found) == ("fail", "no microphone")
        assert "arecord -l" in results["devices"].fix
        assert {results[name].status for name in ("rates", "microphone", "level")} == {"skipped"}

    def test_a_device_that_is_not_there(self):
        result = heard(sound_system(devices=2), device="nosuch")["devices"]
        assert (result.status, result.found) == ("fail", "no input device matches 'nosuch', want exactly one")
        assert result.fix == "choose from 0: USB 0 (1 ch, 48000 Hz); 1: USB 1 (1 ch, 48000 Hz)"

    def test_without_portaudio(self, monkeypatch):
        def missing(name):
            raise OSError("PortAudio library not found")

        monkeypatch.setattr("edgeasr.capture.sound_system.import_module", missing)
        results = heard(None)
        assert (results["portaudio"].status, results["portaudio"].fix) == ("fail", "sudo apt install libportaudio2")
        assert {results[name].status for name in ("devices", "rates", "microphone", "level")} == {"skipped"}

    def test_a_microphone_that_is_in_use(self):
        result = heard(sound_system(opens=False))["microphone"]
        assert (result.status, "Device unavailable" in result.found) == ("fail", True)

    def test_a_microphone_that_gives_nothing(self, monkeypatch):
        monkeypatch.setattr(sound, "_FIRST_SOUND_S", 0.1)
        result = heard(sound_system())["microphone"]
        assert (result.status, "no sound comes within 0.1 s" in result.found) == ("fail", True)

    def test_a_rate_that_its_own_device_refuses(self):
        result = heard(sound_system(rates=(16_000,)))["rates"]
        assert (result.status, result.found) == ("warn", "the device's own rate of 48000 Hz is refused")

    def test_nothing_is_heard_without_being_asked_for(self):
        result = heard(sound_system(np.zeros(48_000)))["level"]
        assert (result.status, "`edgeasr doctor --level 3`" in result.found) == ("skipped", True)

    @pytest.mark.parametrize(
        ("amplitude", "offset", "status", "word"),
        [
            (0.0, 0.0, "fail", "silence"),
            (1e-4, 0.0, "warn", "faint"),
            (0.1, 0.0, "ok", "loudest -20 dB, mean -23 dB"),
            (3.0, 0.0, "warn", "clipped"),
            (0.1, 0.2, "warn", "off its zero by +0.20"),
            (0.0, 0.2, "fail", "silence"),
        ],
    )
    def test_levels(self, amplitude, offset, status, word):
        samples = np.clip(amplitude * np.sin(np.arange(48_000)) + offset, -1, 1).astype(np.float32)
        result = sound.judged_level(samples, "USB")
        assert (result.status, word in result.found) == (status, True)
        assert bool(result.fix) == (status != "ok")

    def test_no_samples_are_no_level(self):
        assert sound.judged_level(np.zeros(0, np.float32), "USB").status == "fail"

    def test_rights(self, tmp_path, monkeypatch):
        for name in ("PULSE_SERVER", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(name, raising=False)
        assert sound.rights(tmp_path).status == "warn"
        files(tmp_path, dev__snd__pcmC1D0c="", dev__snd__pcmC1D0p="")
        assert sound.rights(tmp_path).found == "1 sound cards may be opened"
        monkeypatch.setattr(sound.os, "access", lambda path, mode: False)
        refused = sound.rights(tmp_path)
        assert (refused.status, "may not open" in refused.found) == ("fail", True)
        assert refused.fix.startswith("sudo usermod -aG audio ")
        files(tmp_path, **{"run__pipewire-0": ""})
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        assert sound.rights(tmp_path).found == "a sound server is there: pipewire-0"


@pytest.mark.parametrize(
    ("wall_s", "words", "status", "end"),
    [
        (0.8, 20, "ok", "real time is met"),
        (6.0, 20, "warn", "with little to spare"),
        (9.0, 20, "fail", "real time is not met"),
        (0.8, 0, "fail", "the bundled clip holds some"),
    ],
)
def test_a_run_is_judged_by_the_time_that_passed(wall_s, words, status, end):
    run = StreamRun(False, audio_s=8.0, wall_s=wall_s, cpu_s=0.4, chunk_ms=[2.0, 3.0], words=words)
    result = judged_run(run, 160)
    assert (result.status, result.found.endswith(end)) == (status, True)
    assert f"{wall_s / 8:.3f} s for a second of speech (0.050 s of the processor)" in result.found
    assert "within 3.0 of 160 ms" in result.found


def test_nothing_is_predicted_of_a_model_that_cannot_be_loaded(tmp_path):
    measured, predicted = examine(recognition_checks(Circumstances(model=str(tmp_path / "nope"))))
    assert (measured.status, "nope" in measured.found) == ("fail", True)
    assert (predicted.status, predicted.found) == ("skipped", "there is no model that was loaded")


class TestStore:
    def test_that_is_not_there(self, tmp_path):
        assert services.store(tmp_path / "memory.db").status == "skipped"

    def test_that_is_whole_and_one_that_is_damaged(self, tmp_path):
        pytest.importorskip("apsw", reason="the store needs the extra `memory`")
        from edgeasr.store.memory_store import MemoryStore

        path = tmp_path / "memory.db"
        MemoryStore.open(path, create=True).close()
        assert services.store(path).found.startswith(f"{path} is whole: 0 vectors")
        path.write_bytes(b"nonsense" * 1_000)
        (result,) = examine([Check("service", "store", lambda: services.store(path))])
        assert (result.status, str(path) in result.found) == ("fail", True)

    def test_services_without_systemd(self, monkeypatch, tmp_path):
        monkeypatch.setattr("edgeasr.service.systemd._BOOTED", tmp_path / "none")
        assert services.services("user").status == "skipped"


class TestCommand:
    @pytest.fixture
    def found(self, monkeypatch):
        """The results that the command gets; and what it asked for."""
        results, asked = [], []

        def stand_in(given):
            asked.append(given)
            return iter(results)

        monkeypatch.setattr(checkup_module, "checkup", stand_in)
        return results, asked

    def test_prints_findings_with_their_fixes(self, found):
        results, asked = found
        results += [
            Result("machine", "python", "ok", "Python 3.13.0", "", 0.1),
            Result("sound", "devices", "warn", "word " * 30, "plug one in", 0.1),
        ]
        code, out, err = edgeasr("doctor", "--level", "2", "--device", "USB")
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == "ok      machine       python           Python 3.13.0"
        assert out.splitlines()[1].startswith("warn    sound         devices          word word")
        assert out.splitlines()[3] == " " * 39 + "-> plug one in"
        assert out.splitlines()[-1] == "1 right, 1 to look at, 0 wrong, 0 left out"
        assert (asked[0].level_s, asked[0].device) == (2.0, "USB")

    def test_a_failure_is_an_exit_code(self, found):
        results, _ = found
        results.append(Result("sound", "devices", "fail", "no microphone", "plug one in", 0.1234567))
        code, out, _ = edgeasr("doctor", "--json")
        assert code == 1
        told = json.loads(out)
        assert told["ok"] is False
        (finding,) = told["findings"]
        assert (finding["status"], finding["found"], finding["fix"]) == ("fail", "no microphone", "plug one in")
        assert (finding["took_s"], finding["timed_out"]) == (0.123, False)

    def test_a_broken_configuration_is_a_finding(self, found, tmp_path, monkeypatch):
        _, asked = found
        (tmp_path / "edgeasr").mkdir()
        (tmp_path / "edgeasr" / "config.toml").write_text("[lisen]\n")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert edgeasr("doctor").code == 0
        with pytest.raises(ConfigError, match=r"unknown section \[lisen\]"):
            asked[0].configuration()

    @pytest.mark.parametrize(
        ("text", "said", "fix"),
        [
            ("[listen]\nthreads = 0\n", "{path}: [listen] threads: 0 is not in the range x>=1", "correct it there"),
            ("[listen]\nthreds = 1\n", "{path}: unknown key threds in [listen]", "did you mean threads?"),
            ("[listen]\nzzzzzz = 1\n", "{path}: unknown key zzzzzz in [listen]", ""),
        ],
    )
    def test_what_is_wrong_in_the_configuration_is_told_apart_from_its_fix(
        self, found, tmp_path, monkeypatch, text, said, fix
    ):
        path = tmp_path / "edgeasr" / "config.toml"
        path.parent.mkdir()
        path.write_text(text)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert edgeasr("doctor").code == 0
        (result,) = examine([Check("a", "b", lambda: installation.configuration(found[1][0]))])
        assert result.status == "fail"
        assert result.found == said.format(path=path)
        assert fix in result.fix

    def test_on_this_machine_every_check_ends(self, tmp_path):
        """Whatever it finds here: with a root of its own nothing is there, and nothing breaks."""
        code = (
            "from pathlib import Path; import json, dataclasses\n"
            "from edgeasr.devices.doctor.checkup import checkup\n"
            "from edgeasr.devices.doctor.examination import Circumstances\n"
            f"given = Circumstances(root=Path({str(tmp_path)!r}), store=Path({str(tmp_path / 'memory.db')!r}))\n"
            "print(json.dumps([one.to_dict() for one in checkup(given)]))\n"
        )
        environment = {**os.environ, "XDG_RUNTIME_DIR": "", "PULSE_SERVER": "unix:/nowhere"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
        results = {(one["group"], one["name"]): one for one in json.loads(done.stdout)}
        assert [group for group, _ in results] == [
            *["machine"] * 6,
            *["installation"] * 5,
            *["sound"] * 6,
            *["recognition"] * 2,
            *["service"] * 3,
            "machine",
        ]
        assert not [one for one in results.values() if "the check broke" in one["found"]]
        assert all(one["fix"] for one in results.values() if one["status"] in ("warn", "fail"))
        assert results["installation", "model"]["status"] == "ok"
        assert "27 words" in results["recognition", "measured"]["found"]
        assert "ms for the encoder's 160 ms" in results["recognition", "predicted"]["found"]
