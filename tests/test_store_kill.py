import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")


def test_a_store_survives_kills_at_random_instants():
    """`make soak` does this 200 times."""
    harness = Path(__file__).with_name("kill_store.py")
    done = subprocess.run(
        [sys.executable, harness, "--times", "10", "--seed", "1"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["kills"], report["lost"]) == (10, 0)
    assert report["transactions"] > 0
    # The oldest go where the store reaches its size, which a fast machine does.
    assert report["vectors"] >= 16 * min(report["transactions"], 100)
