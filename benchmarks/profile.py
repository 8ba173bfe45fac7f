"""Whether the latencies of ops add up to that of the file: `python -m benchmarks.profile`.

Each file of the article's network is profiled several times; the time of its ops, each cut out into a file of its own,
and of one call of the interpreter is set against the time of the whole file, measured in the same turns. Nothing is
trained: times do not depend on it. Writes benchmarks/results/profile/, with the times of all ops beside the table.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset.mnist import Mnist
from experiments.measure.latency import LatencyProtocol
from experiments.measure.op_profile import op_profile
from experiments.model.article_cnn import ArticleCNN
from experiments.plots.run import save_profile
from experiments.strategy import Strategy
from experiments.strategy.none import Nothing
from experiments.strategy.post_training import PTQDynamic, PTQFloat16, PTQInt8
from experiments.system.progress import bar
from experiments.tflite.conversion import convert
from experiments.tflite.graph import read_ops

STRATEGIES: Mapping[str, Strategy] = {
    "none": Nothing(),
    "ptq_dynamic": PTQDynamic(),
    "ptq_int8": PTQInt8(calibration_samples=100),
    "ptq_float16": PTQFloat16(),
}
TIMES = 5


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = table.groupby("strategy", sort=False).agg(
        times=("time", "count"),
        whole=("whole_us", "median"),
        together=("sum_us", "median"),
        call=("call_us", "median"),
        ratio=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
    )
    return markdown(
        pd.DataFrame(
            {
                "strategy": shown.index,
                "repetitions": shown["times"].astype(str),
                "whole file (µs)": [f"{value:.1f}" for value in shown["whole"]],
                "sum of its ops and a call (µs)": [f"{value:.1f}" for value in shown["together"]],
                "a call (µs)": [f"{value:.1f}" for value in shown["call"]],
                "sum / whole": [f"{value:.3f}" for value in shown["ratio"]],
                "range": [
                    f"{least:.3f} to {most:.3f}" for least, most in zip(shown["least"], shown["most"], strict=True)
                ],
            }
        )
    )


BENCHMARK = Benchmark(
    name="profile",
    title="Whether the latencies of ops add up to that of the file",
    minutes=1,
    tables=(own("profile", published_table),),
)


def main() -> None:
    """Measure, write the results, and publish the table."""
    from experiments.system.tensorflow import keras

    asked = options(BENCHMARK, __doc__).parse_args()
    times = 1 if asked.quick else TIMES
    results = Results(BENCHMARK)
    data = Mnist(train_samples=100, test_samples=100).load()
    keras.utils.set_random_seed(0)
    model = ArticleCNN().build(data.input_shape, data.classes)
    layers = [layer.name for layer in model.layers]
    files = {
        name: convert(model, strategy.scheme(model), partial(data.calibration, seed=0))
        for name, strategy in STRATEGIES.items()
    }
    rows, ops = [], []
    with bar("Profiles", total=times * len(files)) as advance:
        for time in range(1, times + 1):
            for name, file in files.items():
                profile = op_profile(file, read_ops(file.content, layers), data.test.x[:], LatencyProtocol(), seed=time)
                ratio = profile.sum_us / profile.whole_us
                rows.append([name, time, profile.whole_us, profile.sum_us, profile.call_us, ratio])
                ops += [{"strategy": name, "time": time, **asdict(op)} for op in profile.ops]
                if time == 1 and not asked.quick:
                    save_profile(results.folder / f"{name}.png", profile, f"article_cnn, {name}")
                advance(1)
    table = pd.DataFrame(rows, columns=["strategy", "time", "whole_us", "sum_us", "call_us", "ratio"])
    results.finish(table, asked.quick, failures=[], more={"ops.csv": pd.DataFrame(ops)})


if __name__ == "__main__":
    main()
