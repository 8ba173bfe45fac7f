"""Initial ranges of quantization-aware training: a sweep of an earlier version, which had a setting for them."""

from benchmarks.harness.benchmark import Study, swept

BENCHMARK = Study(
    name="ranges",
    title="Initial ranges for quantization-aware training",
    minutes=15,
    tables=(swept("ranges"),),
    sweeps=(("+suite=ranges",),),
    removed="strategy.range_init",
)
