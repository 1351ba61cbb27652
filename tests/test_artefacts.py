import subprocess
import sys

import pytest

from edgeasr.converters.artefacts import KINDS, TARGETS, known_kinds
from edgeasr.errors import ConfigError


def test_no_two_kinds_have_files_of_one_name():
    names = [kind.file_name("step") for kind in KINDS.values()]
    assert len(set(names)) == len(names)
    assert KINDS["onnx-int8"].file_name("step.320") == "step.320.int8.onnx"


def test_every_target_is_a_kind():
    assert set(TARGETS.values()) <= KINDS.keys()
    assert TARGETS["tensorrt"] == "tensorrt-fp16"


def test_kinds_are_found_by_name_each_once():
    found = known_kinds(["onnx-fp32", "litert-int8", "onnx-fp32"])
    assert [kind.name for kind in found] == ["onnx-fp32", "litert-int8"]


@pytest.mark.parametrize("names", [[], ["onnx-int4"], ["onnx-int8", "tflite"]])
def test_unknown_names_are_answered_with_the_known(names):
    with pytest.raises(ConfigError, match="wanted some of onnx-int8, onnx-fp32, litert-int8"):
        known_kinds(names)


def test_the_list_imports_no_converter():
    code = "import sys, edgeasr.converters.artefacts; print({'torch', 'onnx', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
