import platform
import subprocess
import sys

import pytest

# Large blocks are freed among small ones that stay, after a larger one was freed, which raises glibc's limits.
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from edgeasr.allocator import keep_little, return_free_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if "keep_little" in sys.argv:
    keep_little()
np.ones(8_000_000, np.uint8)
large, small = [], []
for _ in range(100):
    large.append(np.ones(400_000, np.uint8))
    small.append(np.ones(4_000, np.uint8))
held = resident_mb()
large.clear()
if "return_free_memory" in sys.argv:
    return_free_memory()
print(held - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told anything")
@pytest.mark.parametrize(("call", "given_back"), [("keep_little", True), ("return_free_memory", True), ("", False)])
def test_freed_memory_goes_back_to_the_system(call, given_back):
    done = subprocess.run([sys.executable, "-c", SCRIPT, call], capture_output=True, text=True, check=True)
    assert (float(done.stdout) > 35) is given_back  # of 38 MB
