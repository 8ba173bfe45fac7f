"""The plots of a comparison: what is drawn, what is omitted and why, and legibility."""

import gzip
import json
import re
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments import compare
from experiments.comparison.columns import CELL, frame
from experiments.comparison.compared import Comparison
from experiments.plots import INK, as_svg, in_one_style, save
from experiments.plots.bars import coverage, latency_distributions
from experiments.plots.comparison import PICTURES, Pictures, PlotData, comparison_pictures
from experiments.plots.epochs import accuracy_epochs
from experiments.plots.export import draw_pictures
from experiments.plots.histories import training_histories, trainings
from experiments.plots.labels import spread
from experiments.plots.points import frontier, points
from experiments.plots.strategies import MARKS, mark
from experiments.plots.tradeoffs import MOST_LABELS, accuracy_latency, accuracy_size
from experiments.record.artifacts import RECORD, ROUNDS, SAMPLES, read_curves, read_samples
from experiments.system.errors import UserError
from experiments.system.options import CONF
from tests.rows import FAILED, five_rounds, row

SIX = ("none", "finetune", "ptq_dynamic", "ptq_int8", "qat", "annotate")
TRAINED = ("finetune", "qat", "annotate")
NO_SEEDS = pd.DataFrame()
HISTORY = {"accuracy": [0.5, 0.8], "val_accuracy": [0.6, 0.85], "loss": [2.0, 1.0]}
RECORDED = json.dumps({"baseline": {"history": HISTORY}, "own_training": {"history": HISTORY}}).encode()
ROUNDED = json.dumps(five_rounds().as_json()).encode()
TIMED = gzip.compress(b"file,replicate,nanoseconds\nreference,0,400\nreference,1,410\nmodel,0,90\nmodel,1,100\n")


def quantized(strategy: str, **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"finetune_epochs": 1 if strategy in TRAINED else 0, "run_id": f"run-{strategy}"}
    if strategy not in ("none", "finetune"):
        facts.update(tflite_bytes=156664.0 + len(strategy), latency_p50_us=110.2, speed="faster", coverage_ops=1.0)
    return row(strategy, **{**facts, **changes})


SWEEP = [quantized(strategy) for strategy in SIX]


def plot_data(rows: list[dict[str, Any]], of_seeds: pd.DataFrame = NO_SEEDS) -> PlotData:
    table = frame(rows)
    curves, timed = read_curves(RECORDED, "a run"), read_samples(TIMED, "a run")
    ids = table["run_id"]
    histories, timings = dict.fromkeys(ids, curves), dict.fromkeys(ids, timed)
    return PlotData(table, of_seeds, histories, timings, rounds=dict.fromkeys(ids, five_rounds()))


def drawn(rows: list[dict[str, Any]]) -> Pictures:
    return comparison_pictures(plot_data(rows))


def size_of(rows: list[dict[str, Any]]) -> Figure:
    with in_one_style():
        return accuracy_size(frame(rows), NO_SEEDS)


def texts(figure: Figure) -> list[str]:
    """What stands in a figure; captions without their line breaks."""
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text()]


NUMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(NUMBERS)
def test_the_frontier_is_what_no_other_point_beats(xy: list[tuple[int, int]]) -> None:
    def beaten(x: int, y: int) -> bool:
        return any(a <= x and b >= y and (a, b) != (x, y) for a, b in xy)

    x, y = np.array(xy, float).reshape(-1, 2).T
    assert list(frontier(x, y)) == [not beaten(*point) for point in xy]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_labels_are_moved_apart_in_their_order_and_within_bounds(places: list[float]) -> None:
    moved = spread(places, 10, 0, 100)
    assert all(b - a >= 10 - 1e-6 for a, b in zip(sorted(moved), sorted(moved)[1:], strict=False))
    assert [moved[n] for n in np.argsort(places, kind="stable")] == sorted(moved)
    assert -1e-6 <= min(moved) <= max(moved) <= 100 + 1e-6


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert spread([50, 10, 90], 10, 0, 100) == [50, 10, 90]


def test_every_strategy_of_the_menu_has_a_mark_of_its_own() -> None:
    menu = [path.stem for path in (CONF / "strategy").glob("*.yaml")]
    assert len({mark(strategy) for strategy in menu}) == len(menu)


def test_a_strategy_of_a_user_has_a_mark_that_no_other_of_the_menu_has() -> None:
    assert mark("mine") == mark("mine")
    assert mark("mine") not in MARKS.values()


def test_a_sweep_has_every_plot_that_applies_to_it() -> None:
    pictures = drawn(SWEEP)
    assert pictures.left_out == {
        "accuracy_epochs": "epochs do not vary",
        "accuracy_download": "nothing is pruned or clustered",
    }
    assert {*pictures.drawn, *pictures.left_out} == set(PICTURES)


def test_points_of_every_plot_have_their_values_for_those_who_hover() -> None:
    pictures = drawn([*SWEEP, quantized("qat", epochs=5, finetune_epochs=5, run_id="longer")])
    found = {
        name: re.findall(r'<g class="value"><title>([^<]*)</title>', as_svg(figure, name))
        for name, figure in pictures.drawn.items()
        if name != "coverage"  # whose bars have their values beside them
    }
    first = {name: values[0].replace("\n", " ") for name, values in found.items() if values}
    assert first == {
        "accuracy_size": "strategy: none, 1 epoch; accuracy of the TFLite file (%): 97.65 [97.34, 97.93]; "
        "file size in kB (1,000 bytes): 599.6",
        "accuracy_latency": "strategy: none, 1 epoch; accuracy of the TFLite file (%): 97.65 [97.34, 97.93]; "
        "latency in % of that of the float file, timed together: 99.9",
        "accuracy_epochs": "strategy: none; epochs: 1; accuracy of the TFLite file (%): 97.65",
        "training_histories": "training: baseline; epoch: 1; validation accuracy (%): 60",
        "latency_distributions": "file: none; median: 0.10 µs; 1st to 99th percentile: 0.09 to 0.10 µs; "
        "slowest: 0.10 µs",
        "latency_rounds": "float file: 300 µs",
    }


def test_downloads_are_drawn_where_something_is_pruned_or_clustered() -> None:
    assert "accuracy_download" in drawn([*SWEEP, quantized("prune", finetune_epochs=1, tflite_gzip_bytes=9.0)]).drawn


def test_epochs_that_vary_are_drawn() -> None:
    figure = accuracy_epochs(frame([*SWEEP, *(quantized(each, epochs=5) for each in SIX)]))
    assert {"epochs of the baseline", *SIX} <= set(texts(figure))


def test_other_epochs_after_the_same_baseline_are_drawn() -> None:
    figure = accuracy_epochs(frame([*SWEEP, quantized("qat", finetune_epochs=5, run_id="longer")]))
    assert "epochs after the baseline" in texts(figure)


def test_a_strategy_that_trains_twice_is_drawn_at_its_last_epoch() -> None:
    twice = quantized("prune_qat", finetune_epochs=1, epochs_trained=3.0, run_id="twice")
    figure = accuracy_epochs(frame([*SWEEP, quantized("qat", finetune_epochs=5, run_id="longer"), twice]))
    (point,) = (line for line in figure.axes[0].lines if line.get_marker() == mark("prune_qat").marker)
    assert np.asarray(point.get_xdata()).tolist() == [2]


def test_a_panel_in_which_nothing_trains_is_drawn_beside_one_in_which_epochs_vary() -> None:
    untrained = [quantized(each, model="mlp", run_id=f"mlp-{each}") for each in ("none", "ptq_int8")]
    figure = accuracy_epochs(frame([*SWEEP, quantized("qat", finetune_epochs=5, run_id="longer"), *untrained]))
    assert [line.get_linestyle() for line in figure.axes[1].lines] == [":", ":"]


def test_without_curves_and_timings_their_pictures_are_left_out() -> None:
    assert set(comparison_pictures(PlotData(frame(SWEEP))).left_out) == {
        "accuracy_epochs", "accuracy_download", "training_histories", "latency_distributions", "latency_rounds",
    }  # fmt: skip


def test_failed_runs_have_no_plots_and_every_reason_is_named() -> None:
    pictures = drawn([FAILED])
    assert not pictures.drawn
    assert set(pictures.left_out) == set(PICTURES)


def test_a_failed_run_among_others_is_counted_below() -> None:
    assert any("Omitted: 1 of 7 runs" in text for text in texts(size_of([*SWEEP, FAILED])))


def test_a_single_run_has_its_pictures() -> None:
    assert set(drawn([quantized("qat")]).left_out) == {"accuracy_epochs", "accuracy_download"}


def test_every_point_is_named_and_no_labels_overlap() -> None:
    figure = size_of(SWEEP)
    labels = [text for text in figure.axes[0].texts if text.get_text() in SIX]
    assert sorted(label.get_text() for label in labels) == sorted(SIX)
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_of_many_points_only_the_frontier_is_named() -> None:
    rows = [quantized("qat", epochs=n, tflite_bytes=1000.0 + n, run_id=str(n)) for n in range(MOST_LABELS + 1)]
    (axes,) = size_of(rows).axes
    assert [label.get_text() for label in axes.texts] == ["qat, 0 epochs"]


def test_what_to_ship_is_ringed_and_its_label_bold_and_nothing_else() -> None:
    with in_one_style():
        figure = accuracy_size(frame(SWEEP), NO_SEEDS, {"run-ptq_int8"})
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == ["ptq_int8"]
    assert any(text.startswith("Vertical bars") and "the file to ship" in text for text in texts(figure))
    assert not any("the file to ship" in text for text in texts(size_of(SWEEP)))


def test_of_an_error_the_lowest_values_are_on_the_frontier_and_the_axis_has_its_name() -> None:
    facts = {"task": "regression", "metric": "mae", "metric_better": "lower", "tflite_accuracy": None}
    scores = {"none": 2.0, "ptq_int8": 2.5, "qat": 1.5}
    rows = [
        quantized(name, **facts, tflite_score=score, tflite_score_low=score, tflite_score_high=score)
        for name, score in scores.items()
    ]
    (axes,) = size_of(rows).axes
    assert axes.get_ylabel() == "MAE of the TFLite file"
    frontier = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert min(np.asarray(frontier[0].get_ydata())) == 1.5


def test_a_speedup_whose_interval_is_damaged_has_no_bar() -> None:
    (point,) = points(frame([quantized("qat", speedup_low=0.0, speedup_high=0.0)]), NO_SEEDS, "latency_p50_us")
    assert (point.x_low, point.x, point.x_high) == (110.2, 110.2, 110.2)


def test_points_without_names_are_explained_by_a_legend() -> None:
    names = ("none", "qat")
    rows = [quantized(each, epochs=n, run_id=f"{each}-{n}") for each in names for n in range(MOST_LABELS)]
    legends = [figure.axes[0].get_legend() for figure in (size_of(rows), size_of(SWEEP))]
    assert legends[1] is None
    assert legends[0] is not None
    assert [text.get_text() for text in legends[0].get_texts()] == list(names)
    assert not legends[0].get_frame_on()  # it would stay white in a dark page


@pytest.mark.parametrize(
    ("threads", "shown"), [("1", "latency in % of that of the float file"), ("2", "latency of one")]
)
def test_times_of_several_sessions_are_drawn_as_ratios_where_the_float_file_is_one(threads: str, shown: str) -> None:
    rows = [quantized("none", **{"latency.threads": "1"}), quantized("qat", **{"latency.threads": threads})]
    assert accuracy_latency(frame(rows), NO_SEEDS).axes[0].get_xlabel().startswith(shown)


def test_lines_of_one_strategy_have_markers_of_their_own() -> None:
    rests = [{"strategy.rest": rest} for rest in ("float", "dynamic")]
    rows = [quantized("qat", epochs=n, run_id=f"{n}", **each) for n in (1, 5) for each in rests]
    lines = accuracy_epochs(frame(rows)).axes[0].get_lines()
    assert len({line.get_fillstyle() for line in lines}) == 2


def test_an_invalid_timing_is_left_out_and_mentioned() -> None:
    figure = accuracy_latency(frame([*SWEEP, quantized("prune", speed="void")]), NO_SEEDS)
    assert "prune" not in texts(figure)
    assert any("invalid timings of prune" in text for text in texts(figure))


def test_a_file_that_is_not_verified_is_left_out_and_mentioned() -> None:
    figure = accuracy_size(frame([*SWEEP, quantized("prune", verified="false")]), NO_SEEDS)
    assert "prune" not in texts(figure)
    assert any("not finished or verified" in text for text in texts(figure))


def test_times_of_several_machines_never_share_a_panel() -> None:
    rows = [quantized(each, machine=machine, run_id=each + machine) for each in SIX for machine in ("one", "two")]
    assert len(accuracy_latency(frame(rows), NO_SEEDS).axes) == 2
    assert len(latency_distributions(frame(rows), plot_data(rows).timings).axes) == 2


def test_the_labels_of_a_wide_axis_of_times_do_not_touch() -> None:
    rows = [quantized(each) for each in SIX]
    timed = {each["run_id"]: {"model": np.array([1_000, 2_000, 3_000, 12_000_000])} for each in rows}
    figure = latency_distributions(frame(rows), timed)
    figure.canvas.draw()
    boxes = [each.get_window_extent() for each in figure.axes[0].get_xticklabels() if each.get_text()]
    assert len(boxes) > 3
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_runs_of_several_seeds_are_one_point_with_the_interval_over_seeds() -> None:
    runs = frame([quantized("qat", seed=seed, run_id=str(seed)) for seed in range(3)])
    mean = {"tflite_score": 0.97, "tflite_score_low": 0.96, "tflite_score_high": 0.98}
    setting = {name: runs[name].iloc[0] for name in CELL}
    (point,) = points(runs, pd.DataFrame([{**setting, **mean}]), "tflite_bytes")
    assert (point.score, point.low, point.high) == pytest.approx((97, 96, 98))
    assert len(point.runs) == 3


def test_without_a_mean_each_seed_is_a_point_that_says_so() -> None:
    runs = frame([quantized("qat", seed=seed, run_id=str(seed)) for seed in range(2)])
    assert [point.label for point in points(runs, NO_SEEDS, "tflite_bytes")] == ["qat, seed 0", "qat, seed 1"]


def test_a_label_says_what_varies_and_nothing_else() -> None:
    rows = [quantized("annotate", run_id=layers, **{"strategy.layers": layers}) for layers in ("[a]", "[b]")]
    labels = [point.label for point in points(frame([*rows, quantized("none")]), NO_SEEDS, "tflite_bytes")]
    assert labels == ["annotate, layers=[a]", "annotate, layers=[b]", "none"]


def test_the_longest_training_of_each_strategy_is_shown_and_the_baseline_once() -> None:
    rows = [
        quantized(each, epochs=epochs, seed=seed, run_id=f"{each}-{epochs}-{seed}")
        for each in ("none", "ptq_int8", "qat")
        for epochs in (1, 3)
        for seed in (0, 1)
    ]
    shown = [(each.name, each.run_ids) for each in trainings(frame(rows))]
    assert shown == [("baseline: 3 epochs", ("none-3-0", "none-3-1")), ("qat: 3+1 epochs", ("qat-3-0", "qat-3-1"))]


def test_the_epoch_whose_weights_were_kept_is_marked_if_it_is_not_the_last() -> None:
    runs = frame([quantized("qat")])

    def captions(kept: int) -> str:
        stage = {"history": HISTORY, "kept": kept}
        curves = read_curves(json.dumps({"baseline": stage, "own_training": stage}).encode(), "a run")
        return " ".join(texts(training_histories(runs, dict.fromkeys(runs["run_id"], curves))))

    assert "Dashed: the epoch whose weights were kept." in captions(1)
    assert "Dashed" not in captions(2)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_comparison_is_the_same_bytes(ending: str, tmp_path: Path) -> None:
    for number in range(2):
        save(size_of(SWEEP), tmp_path / f"{number}.{ending}")
    assert (tmp_path / f"0.{ending}").read_bytes() == (tmp_path / f"1.{ending}").read_bytes()


def test_text_in_a_page_stays_text_and_takes_the_page_s_colour() -> None:
    svg = as_svg(size_of([*SWEEP, quantized("<mine> $x")]), "size")
    root = ElementTree.fromstring(svg)
    written = ["".join(each.itertext()).strip() for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<mine> $x", "qat"} <= set(written)
    assert INK not in svg
    assert "currentColor" in svg


def test_no_part_of_a_picture_stays_white_in_a_dark_page() -> None:
    for name, figure in drawn(SWEEP).drawn.items():
        assert "#ffffff" not in as_svg(figure, name), name


def test_ids_of_several_pictures_in_a_page_are_apart() -> None:
    figure = size_of(SWEEP)
    ids = [{each.get("id") for each in ElementTree.fromstring(as_svg(figure, name)).iter()} for name in ("a", "b")]
    assert ids[0] & ids[1] <= {None}


def test_timings_and_curves_are_read_back() -> None:
    assert {name: list(times) for name, times in read_samples(TIMED, "a run").items()} == {
        "reference": [400, 410],
        "model": [90, 100],
    }
    assert read_curves(RECORDED, "a run")["finetune/val_accuracy"] == (0.6, 0.85)


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", TIMED[:30], gzip.compress(b"<html>\n")], ids=["empty", "other", "cut", "page"]
)
def test_timings_that_cannot_be_read_are_one_message(content: bytes) -> None:
    with pytest.raises(UserError, match=r"Run abc: its latency_samples\.csv\.gz cannot be read"):
        read_samples(content, "abc")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"baseline": {}}'])
def test_a_record_that_cannot_be_read_is_one_message(content: bytes) -> None:
    with pytest.raises(UserError, match=r"Run abc: its record\.json cannot be read"):
        read_curves(content, "abc")


class Kept:
    """A store with the runs of a sweep and their artifacts."""

    def rows(self, _: str) -> list[dict[str, Any]]:
        return SWEEP

    def count_others(self) -> str:
        return ""

    def read_evidence(self, _: str) -> None:
        return None

    def content(self, _: str, artifact: str) -> bytes:
        return {RECORD: RECORDED, SAMPLES: TIMED, ROUNDS: ROUNDED}[artifact]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(compare, "open_existing", lambda *_: Kept())
    monkeypatch.setattr(sys, "argv", ["compare", *arguments])
    compare.main()


def test_the_command_line_writes_pictures_and_says_which_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--plots", str(tmp_path / "new" / "plots"), "--where", "strategy != 'qat'")
    drawn = [name for name in PICTURES if name not in ("accuracy_epochs", "accuracy_download")]
    found = {path.name for path in (tmp_path / "new" / "plots").iterdir()}
    assert found == {f"{name}.{ending}" for name in drawn for ending in ("png", "svg")}
    assert "not plotted: accuracy_epochs: epochs do not vary" in capsys.readouterr().out
    assert ">qat<" not in (tmp_path / "new" / "plots" / "accuracy_size.svg").read_text()


def test_a_folder_that_cannot_be_written_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, "--plots", str(tmp_path / "file"))
    assert ended.value.code == 2
    assert f"{tmp_path / 'file'}: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("other", [["--pair", "a", "b"], ["--pivot", "strategy", "seed", "tflite_accuracy"]])
def test_pictures_of_a_pair_or_a_matrix_are_refused(
    other: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, *other, "--plots", "anywhere")
    assert "--plots: has no effect with" in capsys.readouterr().err


def test_weights_that_are_stored_in_integers_are_not_said_to_compute_in_them() -> None:
    with in_one_style():
        said = texts(coverage(frame([quantized("ptq_dynamic", coverage_ops=0.0, coverage_weights=1.0)])))
    assert "weights, as stored" in said
    assert any(text.startswith("Shares of the files in integers") for text in said)


def test_a_store_without_artifacts_still_has_the_pictures_of_its_table() -> None:
    class Bare(Kept):
        def content(self, *_: str) -> None:  # type: ignore[override]
            return None

    comparison = Comparison(frame(SWEEP), frame(SWEEP), lambda _: None)
    pictures = draw_pictures(Bare(), comparison)  # type: ignore[arg-type]
    assert set(pictures.drawn) == {"accuracy_size", "accuracy_latency", "coverage"}
