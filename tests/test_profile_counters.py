import errno

import pytest

from edgeasr.profile import counters
from edgeasr.profile.counters import ARM_EVENTS, EVENTS, count


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel that gives the counters of `values`, as (value, enabled, running), and errors for all others."""

    class Kernel:
        values, error, opened, controls = {}, errno.ENOENT, [], []

        def open(self, machine, kind, config):
            if (kind, config) not in self.values:
                return -1, self.error
            path = tmp_path / f"{kind}-{config}"
            path.write_bytes(counters._READ.pack(*self.values[kind, config]))
            self.opened.append(path.open("rb"))
            return counters.os.dup(self.opened[-1].fileno()), 0

    made = Kernel()
    monkeypatch.setattr(counters, "_open", made.open)
    monkeypatch.setattr(counters, "_control", lambda descriptor, request: made.controls.append(request))
    yield made
    for file in made.opened:
        file.close()


def test_counted_is_what_happens_in_the_call(kernel):
    kernel.values = {EVENTS["cycles"]: (1000, 50, 50), EVENTS["instructions"]: (2000, 50, 50)}
    found = count(lambda: kernel.controls.append("call"), "x86_64")
    assert found.values == {"cycles": 1000, "instructions": 2000}
    assert kernel.controls == [counters._ENABLE] * 2 + ["call"] + [counters._DISABLE] * 2
    names = "first_level_misses, last_level_reads, last_level_misses"
    assert found.missing == (f"counters {names}: this processor, or this virtual machine, has none",)


def test_events_that_took_turns_are_scaled(kernel):
    kernel.values = {EVENTS["cycles"]: (1000, 60, 20), EVENTS["instructions"]: (7, 60, 0)}
    found = count(lambda: None, "x86_64")
    assert found.values == {"cycles": 3000}
    assert "counters instructions: others use them" in found.missing


def test_arms_own_events_are_counted_on_arm(kernel):
    kernel.values = {ARM_EVENTS["l2_refills"]: (5, 1, 1), ARM_EVENTS["bus_accesses"]: (9, 1, 1)}
    assert count(lambda: None, "aarch64").values == {"l2_refills": 5, "bus_accesses": 9}
    assert count(lambda: None, "x86_64").values == {}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errno.EACCES, "perf_event_paranoid is 4): sudo sysctl kernel.perf_event_paranoid=2"),
        (errno.EPERM, "perf_event_paranoid is 4)"),
        (errno.EOPNOTSUPP, "this processor, or this virtual machine, has none"),
        (errno.ENOSYS, "Function not implemented"),
    ],
)
def test_what_the_kernel_refuses_is_missing_with_its_reason(kernel, monkeypatch, tmp_path, error, reason):
    (tmp_path / "paranoid").write_text("4\n")
    monkeypatch.setattr(counters, "_PARANOID", tmp_path / "paranoid")
    kernel.error = error
    ran = []
    found = count(lambda: ran.append(True), "x86_64")
    assert (found.values, ran) == ({}, [True])
    assert len(found.missing) == 1
    assert reason in found.missing[0]
    assert "cycles, instructions" in found.missing[0]


def test_the_call_of_an_unknown_machine_is_not_guessed():
    assert count(lambda: None, "sparc64").missing[0].endswith("Function not implemented")


def test_this_kernel_is_asked():
    found = count(lambda: sum(range(100_000)))
    assert set(found.values) <= {*EVENTS, *ARM_EVENTS}
    assert bool(found.missing) == (not {*EVENTS} <= set(found.values))
    if "instructions" in found.values:
        assert found.values["instructions"] > 100_000


def test_an_error_of_the_call_comes_through(kernel):
    kernel.values = {EVENTS["cycles"]: (1, 1, 1)}
    with pytest.raises(ZeroDivisionError):
        count(lambda: 1 // 0, "x86_64")
