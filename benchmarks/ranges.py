"""Where the ranges of quantization-aware training should start: a sweep of a version that had several beginnings."""

from benchmarks.harness.benchmark import Study, swept

BENCHMARK = Study(
    name="ranges",
    title="Initial ranges for quantization-aware training",
    minutes=15,
    tables=(swept("ranges"),),
    sweeps=(("+suite=ranges",),),
    removed="strategy.range_init",
)
