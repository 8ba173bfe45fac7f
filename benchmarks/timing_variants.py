"""Whether another way of timing scatters less between rounds: `python -m benchmarks.timing_variants`.

A paired experiment: in each of 40 blocks, the article's network in float and in int8 is timed in one round of every
variant, in random order, so that all variants meet the same states of the machine:

- as the suite does;
- with transparent huge pages for malloc (GLIBC_TUNABLES=glibc.malloc.hugetlb=1);
- pinned to one core;
- with float and int8 alternating after every inference, not after a millisecond;
- after a round that is discarded, so that the machine is in the state of such work.

Compared is the standard deviation over blocks of the logarithm of the speedup. Blocks are resampled (bootstrap) for the
interval, and variants are exchanged within blocks (permutation) for the p-values. Writes
benchmarks/results/timing_variants/.
"""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness import files
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import on_shared_host, own
from benchmarks.harness.results import Results, timing_options
from experiments.measure.latency import SENTINEL, STOPWATCH, LatencyProtocol, Session, TimedFile, time_files
from experiments.statistics.estimates import CONFIDENCE, holm
from experiments.system.progress import bar

BLOCKS, QUICK_BLOCKS = 40, 5
PROTOCOL = LatencyProtocol(seconds=1, precision=1e-6)  # one round: all of its time, since early ends would differ
QUICK = LatencyProtocol(seconds=0.05, precision=1e-6)
RESAMPLES = 10_000
LEAST = 1e-12  # a resample may hold one block only
SIGNIFICANT = 0.05
USUAL = "as the suite"
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
GRAIN = "BLOCK_NS = 1_000_000"  # in the code that times


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that the block starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def pinned() -> Iterator[None]:
    """Run this thread, and the processes that the block starts, on one core: the last of those that they may use."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def huge_pages_unavailable() -> str:
    """Return why malloc cannot use transparent huge pages here; empty if it can."""
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        return f"requires glibc 2.35, not {name or 'another library'} {version}".rstrip()
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        return "the kernel's transparent huge pages are off"
    return ""


def pinning_unavailable() -> str:
    """Return why a process cannot be pinned to a core here; empty if it can."""
    return "" if hasattr(os, "sched_setaffinity") else f"{sys.platform} has no affinity of processes"


@dataclass(frozen=True)
class Variant:
    """A way of timing: what surrounds the process that times, and the code that it runs."""

    name: str
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    block_ns: int | None = None  # minimum duration of a block; None: as in the suite
    discarded: int = 0  # rounds before the one that counts
    unavailable: Callable[[], str] = str  # returns why this machine cannot do it; empty if it can

    def stopwatch(self, folder: Path) -> Path:
        """Return the code that times; if its blocks have another length, it is written to the folder."""
        if self.block_ns is None:
            return STOPWATCH
        code = STOPWATCH.read_text()
        if code.count(GRAIN) != 1:
            raise AssertionError(f"{STOPWATCH.name} has {code.count(GRAIN)} lines {GRAIN}; this requires one")
        changed = folder / f"stopwatch_{self.block_ns}.py"
        changed.write_text(code.replace(GRAIN, f"BLOCK_NS = {self.block_ns}"))
        return changed

    def round(self, timed: Mapping[str, TimedFile], protocol: LatencyProtocol, seed: int) -> Session:
        """Time the files in one round."""
        with tempfile.TemporaryDirectory() as folder, self.around():
            for _ in range(self.discarded + 1):
                session = time_files(
                    timed, protocol, [(files.FLOAT, files.INT8)], seed, stopwatch=self.stopwatch(Path(folder))
                )
        return session


VARIANTS = (
    Variant(USUAL),
    Variant("huge pages for malloc", lambda: environment(HUGE_PAGES), unavailable=huge_pages_unavailable),
    Variant("pinned to one core", pinned, unavailable=pinning_unavailable),
    Variant("alternating after every inference", block_ns=1),
    Variant("after a discarded round", discarded=1),
)


def row_of(block: int, variant: Variant, session: Session) -> dict[str, object]:
    """Return a round as a row."""
    medians = {name: np.log(timings.medians) for name, timings in session.timings.items()}
    return {
        "block": block,
        "variant": variant.name,
        "unavailable": "",
        "started": session.started,
        "log_speedup": float(np.median(medians[files.FLOAT] - medians[files.INT8])),
        "float_us": session.timings[files.FLOAT].percentile_us(50),
        "int8_us": session.timings[files.INT8].percentile_us(50),
        "replicates": len(medians[files.FLOAT]),
        "other_cores": session.conditions.other_cores,
    }


def measured(timed: Mapping[str, TimedFile], blocks: int, protocol: LatencyProtocol) -> pd.DataFrame:
    """Return a row for each round, and one for each variant that this machine cannot do."""
    rng = np.random.default_rng(0)
    reasons = {variant.name: variant.unavailable() for variant in VARIANTS}
    possible = [variant for variant in VARIANTS if not reasons[variant.name]]
    rows: list[dict[str, object]] = [
        {"variant": name, "unavailable": reason} for name, reason in reasons.items() if reason
    ]
    with bar("Blocks", total=blocks) as advance:
        for block in range(blocks):
            for place in rng.permutation(len(possible)):
                variant = possible[place]
                rows.append(row_of(block, variant, variant.round(timed, protocol, seed=block)))
            advance(1)
    return pd.DataFrame(rows)


def logs_by_block(table: pd.DataFrame) -> pd.DataFrame:
    """Return the logarithm of the speedup: a row for each block, a column for each variant that was possible."""
    rounds = table[table["log_speedup"].notna()]
    logs = rounds.pivot(index="block", columns="variant", values="log_speedup")
    return logs[[variant.name for variant in VARIANTS if variant.name in logs.columns]]


def scatter_against(
    variant: npt.NDArray[np.float64], usual: npt.NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Return the standard deviation (over blocks) of a variant divided by the usual one, its interval, and a p-value.

    The p-value is that of a permutation test: if a variant changes nothing but the mean, its deviation from that mean
    and the usual one are exchangeable within a block.
    """
    rng = np.random.default_rng(0)
    pair = np.stack([variant - variant.mean(), usual - usual.mean()])
    observed = _log_ratio(pair)
    resampled = _log_ratio(np.stack([variant, usual])[:, rng.integers(len(usual), size=(RESAMPLES, len(usual)))])
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    exchanged = rng.integers(2, size=(RESAMPLES, len(usual))).astype(bool)
    permuted = _log_ratio(np.stack([np.where(exchanged, *pair[::-1]), np.where(exchanged, *pair)]))
    p = (1 + np.sum(np.abs(permuted) >= abs(float(observed)) - 1e-12)) / (1 + RESAMPLES)
    return float(np.exp(observed)), float(np.exp(low)), float(np.exp(high)), float(p)


def _log_ratio(pair: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logarithm of the ratio of the standard deviations along the last axis, of the first to the second."""
    one, other = np.maximum(pair.std(axis=-1, ddof=1), LEAST)
    return np.asarray(np.log(one) - np.log(other))


def figures(table: pd.DataFrame) -> pd.DataFrame:
    """Return the scatter of each variant against the usual one; p-values are adjusted for their number (Holm)."""
    logs = logs_by_block(table)
    others = [name for name in logs.columns if name != USUAL]
    found = {name: scatter_against(logs[name].to_numpy(), logs[USUAL].to_numpy()) for name in others}
    adjusted = dict(zip(others, holm(np.array([found[name][3] for name in others])), strict=True))
    return pd.DataFrame(
        [
            {
                "variant": name,
                "blocks": len(logs),
                "speedup": float(np.exp(logs[name].mean())),
                "scatter": float(logs[name].std(ddof=1)),
                **dict(zip(("ratio", "ratio_low", "ratio_high"), found.get(name, ()), strict=False)),
                "p_holm": adjusted.get(name, np.nan),
                "float_us": table.loc[table["variant"] == name, "float_us"].median(),
            }
            for name in logs.columns
        ]
    )


def narrower(table: pd.DataFrame) -> list[str]:
    """Return the variants that scatter less than the usual one, with evidence."""
    found = figures(table)
    return list(found.loc[(found["p_holm"] < SIGNIFICANT) & (found["ratio"] < 1), "variant"])


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    found = figures(table)
    usual = found["variant"] == USUAL
    shown = pd.DataFrame(
        {
            "timed": found["variant"],
            "blocks": found["blocks"].astype(str),
            "speedup of int8": found["speedup"].map("{:.3f}x".format),
            "float file (µs)": found["float_us"].map("{:.0f}".format),
            "scatter between rounds": found["scatter"].map(lambda scatter: f"{100 * scatter:.2f} %"),
            "relative to the suite's": [
                "" if is_usual else f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
                for is_usual, ratio, low, high in zip(
                    usual, found["ratio"], found["ratio_low"], found["ratio_high"], strict=True
                )
            ],
            "p (Holm)": ["" if is_usual else f"{p:.2g}" for is_usual, p in zip(usual, found["p_holm"], strict=True)],
        }
    )
    missing = table[table["log_speedup"].isna()]
    impossible = [f"Not available: {name} ({reason})." for name, reason in missing[["variant", "unavailable"]].values]
    better = ", ".join(narrower(table)) or "none"
    busy = table["other_cores"].median()
    return (
        f"{markdown(shown)}\n"
        + " ".join(
            [
                f"Less scatter than the suite's, with evidence (p below {SIGNIFICANT}): {better}.",
                f"Other processes used {busy:.1f} cores in the median round.",
                *impossible,
            ]
        )
        + "\n"
    )


def failures(table: pd.DataFrame) -> list[str]:
    """Return the variants that the evidence supports and the suite does not use."""
    return [f"{name} scatters less, and the suite does not use it" for name in narrower(table)]


BENCHMARK = Benchmark(
    name="timing_variants",
    title="Whether another way of timing scatters less between rounds",
    minutes=6,
    tables=(own("timing_variants", published_table), on_shared_host("timing_variants", published_table)),
)


def main() -> None:
    """Measure, and write the results."""
    parser = timing_options(BENCHMARK, __doc__)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="number of blocks (default: %(default)s)")
    asked = parser.parse_args()
    results = Results(BENCHMARK, asked.shared_host)
    data = files.images()
    made = {name: TimedFile.of(model, data.test.x[:]) for name, model in files.article(data).items()}
    timed = {**made, SENTINEL: made[files.FLOAT]}
    table = measured(timed, *((QUICK_BLOCKS, QUICK) if asked.quick else (asked.blocks, PROTOCOL)))
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
