import gc
import platform
import subprocess
import sys

import pytest

from edgeasr import allocator
from edgeasr.allocator import return_free_memory, settle

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


def test_what_was_there_is_not_looked_through_again():
    kept = [{"of": [str(i)]} for i in range(1_000)]
    try:
        settle()
        assert gc.get_freeze_count() > len(kept)
        assert len(gc.get_objects()) < len(kept)
    finally:
        gc.unfreeze()


def test_free_lists_of_python_are_emptied():
    blocks = sys.getallocatedblocks()
    many = [(i, i + 1, i + 2, i + 3, i + 4) for i in range(1_000_000, 1_002_000)]
    del many
    kept = sys.getallocatedblocks() - blocks
    return_free_memory()
    assert kept > 1_000 > sys.getallocatedblocks() - blocks


MAPPED = """
import ctypes, mmap, sys
from pathlib import Path
import numpy as np
from edgeasr.allocator import settle

def of_files():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0]) / 1024

with Path(sys.argv[1]).open("rb") as file:
    table = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
with Path(sys.argv[1]).open("r+b") as file:
    changed = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
before = table.sum(), changed.sum()
changed[::4096] = 7
address, libc = changed.ctypes.data, ctypes.CDLL(None)
assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(len(changed)), 1) == 0
held = of_files()
settle()
print(held - of_files(), before == (table.sum(), table.sum()), (changed[::4096] == 7).all())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped")
def test_pages_of_files_go_until_they_are_read_again_and_changed_ones_stay(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(bytes(range(256)) * (16 << 12))
    done = subprocess.run([sys.executable, "-c", MAPPED, path], capture_output=True, text=True, check=True)
    given_back_mb, same, changed = done.stdout.split()
    assert float(given_back_mb) > 16  # the table, and code; the changed pages are no longer the file's
    assert (same, changed) == ("True", "True")


MAPPINGS = b"""\
7f00-7f10 r--p 00000000 08:01 17 /lib/changed.so
Rss:                  64 kB
Anonymous:             4 kB
Swap:                  0 kB
VmFlags: rd mr mw me
7f20-7f30 r--p 00000000 08:01 17 /lib/swapped out after it was changed.so
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  4 kB
SwapPss:               0 kB
7f40-7f50 r-xp 00000000 08:01 17 /lib/code.so
Rss:                  64 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
7f60-7f70 rw-p 00000000 00:00 0
Rss:                  64 kB
Anonymous:             0 kB
Swap:                  0 kB
7f80-7f90 r--p 00000000 00:00 0
Rss:                  64 kB
Anonymous:             0 kB
Swap:                  0 kB
"""


def test_only_files_that_nobody_changed_can_be_unmapped():
    """Those that were changed would come back as they are on the disk, also where the change is in the swap."""
    assert list(allocator._unchanged(MAPPINGS)) == [(0x7F40, 0x7F50)]
