import json
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.errors import ConfigError
from edgeasr.store.benchmark import like_summaries, measure

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]


class TestMeasure:
    def test_finds_everything_in_a_store_that_is_read_whole(self, tmp_path):
        seen = []
        small, large = measure(tmp_path / "memory.db", [100, 400], 20, seen.append)
        assert (small.vectors, large.vectors) == (100, 400)
        assert (small.recall_at_10, large.recall_at_10) == (1, 1)
        assert (small.found_again, large.found_again) == (1, 1)
        assert (small.read, large.read) == (100, 400)
        assert large.cells > small.cells
        assert seen[-1] == "searching 400 vectors"

    def test_of_vectors_that_are_as_wide_in_each_direction_as_real_ones(self):
        vectors = like_summaries(4_000, np.random.default_rng(0))
        share = vectors.var(axis=0) / vectors.var(axis=0).sum()
        # Measured on an hour of speech: 0.23 in the first direction, 0.13 in the second, 0.022 in the ninth.
        assert share[[0, 1, 8]] == pytest.approx([0.23, 0.13, 0.022], rel=0.3)

    @pytest.mark.parametrize("sizes", [[], [5], [100, 50], [100, 100]])
    def test_wants_rising_sizes(self, tmp_path, sizes):
        with pytest.raises(ConfigError, match="wanted rising ones"):
            list(measure(tmp_path / "memory.db", sizes, 1, print))


class TestCommand:
    def test_prints_a_row_a_size(self, tmp_path):
        code, out, err = edgeasr(
            "bench", "store", "--sizes", "50,100", "--queries", "3", "--folder", tmp_path, "--json"
        )
        assert (code, err) == (0, "")
        assert [row["vectors"] for row in json.loads(out)["rows"]] == [50, 100]
        assert list(tmp_path.iterdir()) == []

    def test_as_a_table(self, tmp_path):
        lines = edgeasr("bench", "store", "--sizes", "50", "--queries", "3", "--folder", tmp_path).out.splitlines()
        assert lines[0].split("  ")[0] == "vectors"
        assert lines[1].split()[0] == "50"

    @pytest.mark.parametrize("sizes", ["many", "100,50"])
    def test_refuses_other_sizes(self, tmp_path, sizes):
        assert edgeasr("bench", "store", "--sizes", sizes, "--folder", tmp_path).code == 2
