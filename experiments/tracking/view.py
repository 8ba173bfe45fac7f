"""How MLflow's pages show a sweep: a view of the runs table, stored as a tag of the experiment.

MLflow's pages write such tags for their button `Share`. A view has a filter, an order and columns. Rows in an order
other than by time are not folded below their parent run, so the view of a sweep lists its runs.
"""

import json
import re
import time
from collections.abc import Collection, Sequence
from urllib.parse import urlencode

VIEW = "mlflow.sharedViewState."  # the prefix of these tags; the rest is the key in an address
SHARE_KEY = "viewStateShareKey"
TRAINING = {"workflowType": "machine_learning"}  # in an address: opens the pages for model training
PARAMETERS = ("strategy", "model", "dataset", "epochs", "seed")
ACCURACY, SCORE = "tflite_accuracy", "tflite_score"
CHANGES = {ACCURACY: "accuracy_change", SCORE: "score_change"}
METRICS = ("tflite_bytes", "size_ratio", "speedup", "latency_p50_us")
OWN = re.compile(rf"{re.escape(VIEW)}\d{{10}}-\w{{8}}$")  # not those that people shared
KEPT = 50  # views in an experiment, those of the newest sweeps


def view_of(tag: str, varied: Collection[str] = PARAMETERS, score: str = ACCURACY, lower: bool = False) -> str:
    """Return the view of the runs that have a tag, the value of a tag of the experiment.

    It shows the strategy and the parameters in `varied`. The best `score` is first, which is the lowest if `lower`.
    """
    columns = [
        *(f"params.`{name}`" for name in PARAMETERS if name in ("strategy", *varied)),
        *(f"metrics.`{name}`" for name in (score, CHANGES[score], *METRICS)),
        "attributes.`Models`",
    ]
    state = {
        "searchFilter": f"tags.`{tag}` != ''",
        "orderByKey": f"metrics.`{score}`",
        "orderByAsc": lower,
        "selectedColumns": columns,
        "columnOrder": columns,
    }
    return json.dumps(state, separators=(",", ":"))


def superfluous(tags: Sequence[str], newest: str) -> list[str]:
    """Return the tags of the oldest views, without which KEPT views remain, the newest included."""
    others = sorted(tag for tag in tags if OWN.match(tag) and tag != f"{VIEW}{newest}")
    return others[: max(0, len(others) + 1 - KEPT)]


def new_key(sweep: str) -> str:
    """Return the key of a view of this sweep; keys sort by time."""
    return f"{int(time.time()):010d}-{sweep[:8]}"


def page_of(experiment_id: str, place: str, **query: str) -> str:
    """Return the address of a page of an experiment, without that of the server."""
    return f"#/experiments/{experiment_id}/{place}?{urlencode({**TRAINING, **query})}"
