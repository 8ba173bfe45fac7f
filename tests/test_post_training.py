"""The benchmark of ways to quantize after training: which of them pay."""

import numpy as np

from benchmarks.post_training import FLOAT, compared, failures, published_table

RIGHT = np.arange(1000) % 10 > 0  # nine in ten


def row(way: str, size: int, right: object, micro: str = "1024", broken: str = "") -> dict[str, object]:
    return {"way": way, "types": "int8", "broken": broken, "bytes": size, "gzip_bytes": size, "agreement": 1.0,
            "test_images": len(RIGHT), "micro": micro, "right": right}  # fmt: skip


def test_a_way_pays_unless_a_smaller_file_is_as_good_and_runs_wherever_its_own_does() -> None:
    ways = [
        row(FLOAT, 400, RIGHT),
        row("same, smaller", 100, RIGHT),
        row("smaller, for LiteRT alone", 60, RIGHT, micro="CONV_2D (op 0): no"),
        row("smallest, and worse", 50, RIGHT & (np.arange(1000) % 2 > 0), broken="dense computes in float32"),
    ]
    table = compared(ways).assign(dataset="mnist", network="ds_cnn")
    assert list(table["pays"]) == [False, True, True, True]
    assert failures(table) == ["mnist, ds_cnn, smallest, and worse: dense computes in float32"]
    shown = published_table(table)
    assert "no (CONV_2D)" in shown
    assert "1 of 1" in shown
