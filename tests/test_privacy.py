import os
import subprocess
import sys
from pathlib import Path

from edgeasr.recording import DEMO_RECORDING


def files_after_a_transcript(home: Path, **environment: str) -> set[str]:
    """Folders in a new home's caches and settings, after somebody was heard there."""
    named = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "HF_"))}
    command = [sys.executable, "-m", "edgeasr.cli.main", "transcribe", str(DEMO_RECORDING)]
    heard = subprocess.run(
        command, env=named | {"HOME": str(home)} | environment, check=True, capture_output=True, text=True
    )
    assert "house" in heard.stdout
    return {path.relative_to(home).as_posix() for path in home.glob(".*/*")}


def test_nothing_is_kept_for_the_makers_of_what_is_used(tmp_path):
    """ONNX Runtime queues events with an id of the device in ~/.cache/Microsoft, and sends them."""
    assert files_after_a_transcript(tmp_path) == {".cache/edgeasr"}
