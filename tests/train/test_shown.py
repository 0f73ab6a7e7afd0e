"""What a training shows of itself: its data, its epochs, its curves, and how the epoch was chosen."""

import csv
import json
from collections import Counter

import pytest
import tiny_bert
from test_training import OPTIONS, batches, head

from tfbert_npu.train import outcome
from tfbert_npu.train.batches import BatchOptions
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.data_report import show_data
from tfbert_npu.train.fine_tuning import fine_tune
from tfbert_npu.train.loop import train
from tfbert_npu.train.options import TrainOptions
from tfbert_npu.train.outcome import how_chosen
from tfbert_npu.train.progress import duration


def test_the_balance_of_classes_and_a_histogram_of_lengths(capfd):
    many = Counter({f"c{number:02}": 40 - number for number in range(20)})
    show_data({"training": many, "held out": Counter(c01=3)}, [3] * 10 + [12] * 88 + [70] * 2, 16)
    lines = [line.split() for line in capfd.readouterr().err.splitlines()]
    assert lines[:2] == [["20", "labels"], ["label", "training", "held", "out"]]
    assert ["c01", "39", "(6.4%)", "3", "(100.0%)"] in lines
    assert ["(8", "others)", "244", "(40.0%)", "0", "(0.0%)"] in lines
    assert sum(line[0].startswith("c") for line in lines) == 12
    assert "tokens of 100 texts: half have up to 12, 95 % up to 12, 99 % up to 70" in [
        " ".join(line) for line in lines
    ]
    bars = {line[1]: (int(line[2]), line[-1]) for line in lines if line[0] == "to"}
    assert list(bars) == ["4", "8", "16", "32", "64", "128"]
    assert bars["16"] == (88, "--seq-length")
    assert [count for count, _ in bars.values()] == [10, 0, 88, 0, 0, 2]


def test_a_row_for_each_epoch(tmp_path, capfd):
    results = iter([0.5, 0.75, 0.25])
    history = train(
        head(), batches(), OPTIONS, tmp_path, save=lambda: None, monitor="f1",
        evaluate=lambda: {"f1": (value := next(results)), "f1_low": value - 0.1, "f1_high": value + 0.1},
    )  # fmt: skip
    *_, names, first, second, third = [line.split() for line in capfd.readouterr().err.splitlines()]
    assert names == ["epoch", "loss", "dev", "f1", "rate", "rows/s", "time", "left"]
    assert [row[0] for row in (first, second, third)] == ["1/3*", "2/3*", "3/3"]
    assert [row[2] for row in (first, second, third)] == ["0.5000", "0.7500", "0.2500"]
    assert float(first[1]) == pytest.approx(history[0]["loss"], abs=1e-4)
    assert third[-1] == "0s"
    assert [duration(seconds) for seconds in (0.4, 59, 185, 7830)] == ["0s", "59s", "3m05s", "2h10m"]


def test_the_losses_of_an_epoch_average_to_its_loss(tmp_path):
    """40 rows in 5 batches of 8: every batch counts alike."""
    history = train(head(), batches(), OPTIONS, tmp_path, save=lambda: None, progress=False)
    with (tmp_path / "losses.csv").open() as file:
        rows = [(float(row["epoch"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert [epoch for epoch, _ in rows] == pytest.approx([0.2 * number for number in range(1, 16)])
    for logs in history:
        own = [loss for epoch, loss in rows if logs["epoch"] - 1 < epoch <= logs["epoch"] + 1e-9]
        assert sum(own) / 5 == pytest.approx(logs["loss"], abs=1e-5)


def test_a_third_split_chooses_nothing(tmp_path, capfd, monkeypatch):
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    lines = ["the cat sat,good", "a dog ran,bad"] * 20
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr(outcome, "draw_learning_curves", lambda *given: drawn.append(given[2:]))
    drawn = []
    result = fine_tune(
        "classify", model, DataOptions(tmp_path / "a.csv", dev_fraction=0.1, test_fraction=0.2), tmp_path / "out",
        batching=BatchOptions(batch_size=4, seq_length=16), options=TrainOptions(epochs=1, learning_rate=1e-2),
    )  # fmt: skip
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    dev, test = set(split["held_out"]), set(split["test"])
    assert (len(dev), len(test), dev & test) == (4, 8, set())
    assert Counter(lines[row].split(",")[1] for row in test) == {"good": 4, "bad": 4}
    assert "test_accuracy" in result.best
    assert result.chosen == (
        "epoch 1 of 1 is kept, the best by dev_accuracy on 4 examples held out of a.csv. "
        "Report the test figures: those 8 examples chose nothing."
    )
    assert drawn == [("dev_accuracy", 1)]
    shown = capfd.readouterr().err
    assert "28 examples to train on, 4 held out, 8 to test" in shown
    assert "good   14 (50.0%)" in shown


def test_a_figure_that_chose_is_said_to_flatter():
    assert "It flatters" in how_chosen({"epoch": 2.0}, 3, "dev_f1", "5 examples of b.conll", 0)
    assert how_chosen({"epoch": 3.0}, 3, None, "", 0).startswith("epoch 3, the last one, is kept")
    with pytest.raises(ValueError, match=r"test_fraction must be in .* got 0\.5"):
        DataOptions("a.csv", dev_fraction=0.5, test_fraction=0.5)


def test_the_curves_are_a_picture(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    (tmp_path / "losses.csv").write_text("epoch,loss\n0.5,2\n1,1\n")
    history = [{"epoch": 1.0, "loss": 1.5, "dev_f1": 0.5, "dev_f1_low": 0.4, "dev_f1_high": 0.6}]
    outcome.finish(tmp_path, history, history[0], "dev_f1", "")
    both = image.imread(tmp_path / "learning_curves.png")
    outcome.finish(tmp_path, history, history[0], None, "")
    alone = image.imread(tmp_path / "learning_curves.png")
    assert both.shape[1] > 1.5 * alone.shape[1]
    assert (both[..., :3] < 0.9).any()
