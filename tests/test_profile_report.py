import json
import re
from html.parser import HTMLParser
from pathlib import Path
from runpy import run_path

import pytest

from edgeasr.profile.machine import Machine
from edgeasr.profile.tables import NUM_OPERATORS, sections, shortened, size_text

PROFILED = run_path(str(Path(__file__).with_name("profiled.py")))
report = PROFILED["report"]


@pytest.fixture(scope="module")
def made():
    """By way of JSON, as pages of kept profiles are made."""
    return json.loads(json.dumps(report(), allow_nan=False))


def section(made, name):
    return next(one for one in sections(made) if one.name == name)


def cells(made, name):
    return {row[0]: row[1] for row in section(made, name).rows}


def test_a_step_stands_beside_its_floors(made):
    step = made["step"]
    assert step["weight_bytes"] == 4_000_000
    assert step["operators_us"] == pytest.approx(850.0)
    assert step["operators_share"] == pytest.approx(0.85)
    # 6 MB at between 20 and 4 GB/s is more than 1.8 million operations at 100, and as many at 20, in 10^9 a second.
    assert step["bound"] == "memory"
    assert 300 < step["memory_floor_us"] < 1500
    assert step["times_floor"] == pytest.approx(1000 / step["memory_floor_us"], rel=1e-3)
    assert step["held_by"] is None
    assert [cache["weights_fit"] for cache in step["caches"]] == [False, False]
    assert step["counters"] == {"instructions": 5_000_000}


@pytest.mark.parametrize(
    ("held_by", "caches", "said"),
    [
        ("L3", 1, "L3 holds them together"),
        (None, 1, "no cache of this machine holds them together"),
        (None, 0, "how large the caches are is not known"),
    ],
)
def test_a_step_says_which_cache_has_room_for_it(made, held_by, caches, said):
    step = {**made["step"], "held_by": held_by, "caches": made["step"]["caches"][:caches]}
    (lines,) = (one.lines for one in sections({**made, "step": step}) if one.title == "A step")
    assert lines[0].endswith(f"; {said}.")


def test_operators_come_longest_first_with_bytes_and_work(made):
    first, second, third = made["step"]["operators"]
    assert (first["name"], second["name"], third["name"]) == ("first", "second", "third")
    assert (first["weight_bytes"], first["macs"], first["precision"]) == (192 * 576, 4 * 192 * 576, "int8")
    assert second["weight_bytes"] == 4 * 192 * 576
    assert third["activation_bytes"] == third["macs"] == 0
    assert made["step"]["by_type"][0] == {
        "type": "DynamicQuantizeMatMul",
        "count": 1,
        "time_us": 600.0,
        "moved_bytes": 192 * 576 + 4 * 4 * (192 + 576),
        "macs": 4 * 192 * 576,
    }


def test_the_memory_graph_is_counted_apart(made):
    assert made["memory"]["dram_bytes_per_s"] == 640_000 / 4
    assert "operators" not in made["memory"]
    assert "0.16 MB for each second of audio" in section(made, "memory").lines[0]


def test_recurrent_networks_stand_beside_the_model(made):
    ours, lstm_10, lstm_40, chunk = made["baselines"]
    assert ours["dram_bytes_per_s"] == pytest.approx(6_000_000 / 0.16)
    assert lstm_10["dram_bytes_per_s"] == pytest.approx(4_010_000 / 0.01)
    assert lstm_40["dram_bytes_per_s"] == pytest.approx(4_010_000 / 0.04)
    assert chunk["dram_bytes_per_s"] == pytest.approx(4_010_000 / 0.16)
    assert lstm_40["ms_per_s"] == pytest.approx(2.5)
    said = " ".join(section(made, "overview").lines)
    assert "a vector every 10 ms, asks memory for 10.7 times as many bytes" in said
    assert "a vector every 40 ms, asks memory for 2.7 times as many bytes" in said


def test_the_overview_tells_of_an_lstm_in_chunks_too(made):
    """Weights once a step, and as they are read: the chunk is where a recurrent network asks for least."""
    baselines = [dict(row) for row in made["baselines"]]
    baselines[3]["read_bytes_per_s"] = 2.5 * baselines[0]["read_bytes_per_s"]
    assert section(made | {"baselines": baselines}, "overview").lines[-1] == (
        "In chunks of 4 x 40 ms it asks for 0.7 times as many where a cache keeps weights during a step, and for 2.5 "
        "times as many where each read of a weight is from memory."
    )


@pytest.mark.parametrize(("cores", "said"), [(1, "a core, 1 core;"), (2, "a core, 2 cores;")])
def test_cores_are_counted(made, cores, said):
    assert section(made | {"machine": made["machine"] | {"cores": cores}}, "machine").lines[0].startswith(said)


def test_the_chunk_is_recommended_and_whether_the_graph_has_it(made):
    assert made["recommended"]["chunk_ms"] == 160
    assert made["recommended"]["is_the_graphs"] is True
    assert section(made, "chunks").lines[1] == "Cheapest within 200 ms: chunks of 160 ms."
    slower = report() | {"recommended": None, "latency_ms": 20.0}
    assert section(slower, "chunks").lines[1] == "No length of chunk is within 20 ms."


def test_the_run_and_its_sensors_are_told(made):
    found = cells(made, "run")
    assert made["run"]["rtf"] == pytest.approx(0.02)
    assert found["processor time for a second of audio"] == "0.0200 s"
    assert found["chunk: median, 95 %, 99 %"] == "3.00 ms / 3.90 ms / 3.98 ms"
    assert found["end of a segment: median, 95 %"] == "- / -"
    assert found["temperature"] == "40 to 51 °C"
    assert found["clock"] == "600 to 1500 MHz"
    assert found["throttled"] == "clock capped"
    assert found["energy, the board"] == "3.2 J"


def test_what_is_missing_is_left_out_and_named():
    bare = report(
        temperature_c=None, clock_hz=None, throttled=None, energy_j=None, memory_parts={}, missing=("clock: none",)
    )
    assert not {"temperature", "clock", "throttled"} & cells(bare, "run").keys()
    assert section(bare, "missing").lines == ("a compiler: there is none", "cycles: busy", "clock: none")


def test_predictions_are_held_against_the_measurement(made):
    here = made["predictions"]["here"]["time_ms"]
    assert f"says {here:.2f} ms of this machine, where 1.00 ms were measured" in section(made, "boards").lines[1]
    names = [row[0] for row in section(made, "boards").rows]
    assert {"rpi4", "rpi5", "rpi-zero2w"} <= set(names)


def test_without_baselines_there_is_no_section_of_them():
    assert "baselines" not in [one.name for one in sections(report(baselines=False))]


def test_the_machine_can_be_read_back(made):
    assert Machine.from_dict(made["machine"]) == PROFILED["MACHINE"]


def test_every_row_has_a_cell_for_each_column(made):
    for one in sections(made):
        assert {len(row) for row in one.rows} <= {len(one.header)}
    assert len(section(made, "operators").rows) == min(NUM_OPERATORS, 3)


def test_sizes_and_names_fit():
    assert [size_text(size) for size in (500, 49_152, 2**20, 3 * 2**30)] == ["500 B", "48 KB", "1 MB", "3 GB"]
    assert shortened("a" * 30 + "z" * 30, 11) == "aaaaa…zzzzz"
    assert shortened("short", 11) == "short"


class Page(HTMLParser):
    """Elements that are open, and whatever a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.ids, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "path", "use", "rect", "line", "circle", "img", "link"):
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(made):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")
    from edgeasr.profile.html import html_page

    text = html_page(made)
    page = Page()
    page.feed(text)
    assert (page.open, page.fetched) == ([], [])
    assert page.tags.count("svg") == 5
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids)), "pictures do not share names"
    assert "Board &lt;1&gt;" in text
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert html_page(made) == text, "the same profile gives the same page"


def test_pictures_show_the_figures(made, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")
    from matplotlib.figure import Figure

    from edgeasr.profile import plots

    written = plots.save_plots(made, tmp_path / "new" / "folder")
    assert [path.name for path in written] == [
        f"{name}.png" for name in ("roofline", "bandwidth", "operators", "latency", "chunks")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    axes = Figure().add_subplot()
    plots.chunks(made, axes)
    line = axes.get_lines()[0]
    assert list(line.get_xdata()) == [40, 80, 160, 320, 640, 1280]
    assert line.get_ydata()[2] == pytest.approx(37.5)
    axes = Figure().add_subplot()
    plots.operators(made, axes)
    assert [bar.get_width() for bar in axes.patches[:2]] == [300.0, 600.0]
    axes = Figure().add_subplot()
    plots.latency(made, axes)
    assert sum(bar.get_height() for bar in axes.patches) == 100


def with_all_networks(made):
    """GRU and TCN as the LSTM: the worst case for a picture that is to show all."""
    ours, *lstm = made["baselines"]
    return made | {"baselines": [ours, *(row | {"network": name} for name in ("lstm", "gru", "tcn") for row in lstm)]}


def test_networks_that_lie_on_each_other_are_told_apart(made):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")
    from matplotlib.figure import Figure

    from edgeasr.profile import plots

    axes = Figure().add_subplot()
    plots.roofline(with_all_networks(made), axes)
    drawn = {one.get_label(): one for one in axes.collections}
    networks = [drawn[f"{name}, vector by vector"] for name in ("LSTM", "GRU", "TCN")]
    colours = {tuple(one.get_edgecolor()[0]) for one in networks}
    assert len(colours) == 3
    assert tuple(drawn["a step"].get_facecolor()[0]) not in colours
    assert len({len(one.get_paths()[0].vertices) for one in networks}) >= 2, "not one shape for all"
    assert len(networks[0].get_facecolor()) == 0, "what lies below is seen through it"
    sizes = [one.get_sizes()[0] for one in networks]
    assert sizes[0] > 2 * max(sizes[1:])


def test_every_network_is_beside_the_chunks_by_vector_and_in_chunks(made):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")
    from matplotlib.figure import Figure

    from edgeasr.profile import plots

    axes = Figure().add_subplot()
    plots.chunks(with_all_networks(made), axes)
    lines = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}
    marks = {one.get_label(): tuple(one.get_offsets()[0]) for one in axes.collections}
    for name in ("LSTM", "GRU", "TCN"):
        assert lines[f"{name}, 10 ms a vector"] == pytest.approx(401.0)
        assert lines[f"{name}, 40 ms a vector"] == pytest.approx(100.25)
        assert marks[f"{name}, 4 x 40 ms, and as read"] == pytest.approx((160, 25.0625))


def test_pictures_can_be_drawn_of_a_profile_without_baselines_chunks_or_counts(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")
    from edgeasr.profile.plots import save_plots

    bare = report(baselines=False)
    bare["run"] |= {"chunk_times_ms": [], "chunk_ms": dict.fromkeys(("p50", "p95", "p99"))}
    bare["recommended"] = None
    assert len(save_plots(bare, tmp_path)) == 5
