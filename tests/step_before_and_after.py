"""Time of a step whose graph is as the exporter leaves it, in int8, of the shipped one, and of that in C, in turns.

python tests/step_before_and_after.py [BUNDLE ...]

BUNDLE: others with an artefact onnx-int8, such as the shipped one of an earlier version, between both
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from edgeasr.bundle import Bundle, default_bundle, replace_in_bundle
from edgeasr.converters.quantize import quantize_int8
from edgeasr.converters.raw_graph import RawGraph
from edgeasr.converters.signature import graph_of_part
from edgeasr.model import STEP
from edgeasr.train.checkpoint import Checkpoint, default_checkpoint

KIND = "onnx-int8"


def main() -> None:
    """Print what `artefacts_in_turns.py` does: the graph as exported first."""
    encoder = Checkpoint.load(default_checkpoint()).encoder()
    unfused = quantize_int8(RawGraph(graph_of_part(encoder, STEP)).onnx)
    file = Bundle.load(default_bundle()).artefacts[KIND][STEP]
    with tempfile.TemporaryDirectory() as folder:
        as_exported = replace_in_bundle(default_bundle(), Path(folder, "as-exported"), {}, {file: unfused})
        bundles = [as_exported.path, *sys.argv[1:], default_bundle()]
        command = [sys.executable, Path(__file__).with_name("artefacts_in_turns.py")]
        for bundle in bundles:
            command += [bundle, "onnxruntime"]
        command += [default_bundle(), "native"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
