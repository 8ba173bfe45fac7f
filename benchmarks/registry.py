"""Every benchmark and every published table."""

from collections.abc import Callable

from benchmarks import (
    applications,
    architectures,
    article,
    article_timings,
    choices,
    compression,
    compression_seeds,
    coverage,
    detection_rate,
    drawn_shapes,
    epoch,
    epochs,
    evaluation,
    exactness,
    false_positives,
    first_sweep,
    fresh_store,
    growth,
    keras3,
    keras3_epoch,
    killed,
    large_data,
    large_outputs,
    later_sweeps,
    layers,
    layers_supported,
    machine_noise,
    memory,
    once,
    overhead,
    post_training,
    precision,
    profile,
    ranges,
    reading,
    recommendation,
    sensitivity,
    simulated_rounds,
    simulated_scores,
    sizes,
    spoken_words,
    spread,
    starting,
    timing_cost,
    timing_variants,
)
from benchmarks.harness.benchmark import Benchmark, Study
from benchmarks.harness.pages import Table, on_disk

_MEASURED = (
    applications, choices, coverage, detection_rate, epoch, evaluation, exactness, false_positives, fresh_store, growth,
    keras3, keras3_epoch, killed, large_data, large_outputs, later_sweeps, layers_supported, memory, once, overhead,
    post_training, precision, profile, reading, recommendation, sensitivity, simulated_rounds, simulated_scores, sizes,
    spread, starting, timing_cost, timing_variants,
)  # fmt: skip
_SWEPT = (
    first_sweep,
    ranges,
    layers,
    article,
    article_timings,
    compression,
    compression_seeds,
    epochs,
    architectures,
    spoken_words,
    machine_noise,
    drawn_shapes,
)

STUDIES: dict[str, Study] = {module.BENCHMARK.name: module.BENCHMARK for module in _SWEPT}
BENCHMARKS: dict[str, Benchmark] = {module.BENCHMARK.name: module.BENCHMARK for module in _MEASURED} | STUDIES
TABLES: dict[str, Table] = {table.name: table for benchmark in BENCHMARKS.values() for table in benchmark.tables}


def tables_from(benchmark: str) -> list[Table]:
    """Return the tables that are made from the results of a benchmark."""
    return [table for table in TABLES.values() if benchmark in table.sources]


def published(table: str, read: Callable[[str], str] = on_disk) -> str:
    """Return the published table of this name, as Markdown."""
    return TABLES[table].published(read)
