import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")


def test_a_service_that_is_killed_comes_back_and_its_store_is_whole():
    """`make soak` does this 100 times, and asks how soon it is back."""
    harness = Path(__file__).with_name("kill_service.py")
    # How long a commit takes is the machine's affair.
    limits = ("--longest-s", "1", "--limit-s", "0", "--open-s", "60")
    command = [sys.executable, harness, "--times", "4", "--seed", "3", *limits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # With a cache of its own it compiles, and says so.
    said = [line for line in done.stderr.splitlines() if "compiling" not in line]
    assert (done.returncode, said) == (0, [])
    report = json.loads(done.stdout)
    assert (report["kills"], report["store"]) == (5, "whole")
    assert report["segments_stored"] + report["segments_in_open_transactions"] > 0
