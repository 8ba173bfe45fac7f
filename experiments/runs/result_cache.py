"""Cached conversions and evaluations: each is computed once, however many runs need it.

Both are functions of their inputs: a model's weights, a scheme and the calibration samples give a file; a model and the
test images give logits. All strategies of a setting share a baseline, so many runs need the same results.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from experiments.dataset import Dataset, Images
from experiments.dataset.arrays import CHUNK_BYTES, mapped, write_rows
from experiments.measure.accuracy import (
    Logits,
    file_output_bytes,
    output_bytes,
    tflite_parts,
    traced,
    traced_parts,
)
from experiments.model.copies import first_difference
from experiments.quantization.engines import engine_of
from experiments.system.cache import ABOUT, GIB, Arrays, Cache, Files
from experiments.system.errors import UserError
from experiments.system.machine import compute_lock
from experiments.system.stamp import CODE_DIGEST, runtimes
from experiments.tflite.conversion import Calibration, TFLiteModel, convert, is_fake_quantized
from experiments.tflite.schemes import Float32, Scheme, starts_from_float
from experiments.training.loop import digest_of, numerics

if TYPE_CHECKING:
    from tf_keras import Model


CHECKED = 32  # images on which a float copy must give the outputs of its original
OUTPUTS = "outputs.npy"  # larger ones than CHUNK_BYTES, in a folder of the cache
LEAST = 2  # models whose outputs a run compares: a Keras model and its file


@dataclass(frozen=True)
class ResultCache:
    """Converts and evaluates models for one setting."""

    cache: Cache
    data: Dataset
    seed: int
    threads: int

    @property
    def calibration(self) -> Calibration:
        """Returns calibration images for the converter."""
        return partial(self.data.calibration, seed=self.seed)

    def convert(self, model: "Model", scheme: Scheme) -> TFLiteModel:
        """See tflite.convert."""
        return self._converted(model, scheme, fake_quantization=True)

    def in_float(self, model: "Model", architecture: "Model") -> TFLiteModel:
        """Convert a model to float, without the fake quantization that it was trained with."""
        if not is_fake_quantized(model):
            return self.convert(model, Float32())
        engine = engine_of(model)
        plain = engine.in_float(model, architecture)
        with engine.fake_quantization_off():
            if plain and not first_difference(plain, model, self.calibration(CHECKED)[:]):
                return self.convert(plain, Float32())  # in half the time
            return self._converted(model, Float32(), fake_quantization=False)

    def check_outputs(self, model: "Model") -> None:
        """Check that the cache can hold the outputs for the test examples, before anything is trained.

        Raises:
            UserError: they exceed its limit, and would displace all training states and other results.
        """
        needed = (output_bytes(model) or 0) * len(self.data.test)
        if needed > CHUNK_BYTES and LEAST * needed > self.cache.gib * GIB:
            raise UserError(
                f"cache.gib={self.cache.gib:g}: the outputs of two models for {len(self.data.test):,} test examples "
                f"take {LEAST * needed / GIB:,.2f} GiB, more than the limit of the cache for outputs, data, training "
                f"states and results. Use cache.gib={ceil(LEAST * needed / GIB + self.cache.gib)}, or fewer examples "
                "(dataset.test_samples=N)."
            )

    def keras_outputs(self, model: "Model") -> Logits:
        """Return the outputs (n, classes) float32 of a Keras model on the test images."""
        count = output_bytes(model)

        def compute() -> Generator[Logits]:
            return traced_parts(model)(self.data.test.x)

        return self._outputs(digest_of(model), f"Keras {model.name}", count, compute)

    def predictor(self, model: "Model") -> Callable[[Images], Logits]:
        """Return a function from images outside the test split to the outputs (n, outputs) float32 of a Keras model."""
        digest, compute = digest_of(model), traced(model)

        def predict(images: Images) -> Logits:
            inputs = {"model": digest, "images": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()}
            made = self.once(inputs, lambda: {"logits": compute(images)}, f"outputs: Keras {model.name}")
            return cast(Logits, made["logits"])

        return predict

    def tflite_outputs(self, file: TFLiteModel) -> Logits:
        """Return the outputs (n, classes) float32 of a TFLite file on the test images."""
        count = file_output_bytes(file)

        def compute() -> Generator[Logits]:
            return tflite_parts(file, self.data.test.x, self.threads)

        return self._outputs(file.digest, f"TFLite {file.bytes:,} bytes", count, compute)

    def _converted(self, model: "Model", scheme: Scheme, fake_quantization: bool) -> TFLiteModel:
        inputs = {
            "model": digest_of(model),
            "scheme": [type(scheme).__name__, asdict(scheme)],
            "fake_quantization": str(fake_quantization),
            "calibration": [self.data.training_fingerprint, self.seed],
        }

        def make() -> Arrays:
            # The lock of computation is never held while this process waits for another's result.
            in_float = self.convert(model, Float32()) if starts_from_float(scheme) else None
            with compute_lock():
                file = convert(model, scheme, self.calibration, in_float)
            return {"content": np.frombuffer(file.content, np.uint8)}

        about = f"conversion: {model.name}, {scheme}"
        made = self.cache.load_or_compute(self._key(inputs), make, about)
        return TFLiteModel(made["content"].tobytes())

    def _outputs(self, model: str, about: str, count: int | None, compute: Callable[[], Generator[Logits]]) -> Logits:
        """Return outputs of `count` bytes for an image: in memory, or from a mapped file if they take much of it."""
        inputs = {"model": model, "images": self.data.test_fingerprint}
        if count is not None and count * len(self.data.test) <= CHUNK_BYTES:
            made = self.once(inputs, lambda: {"logits": np.concatenate(list(compute()))}, f"outputs: {about}")
            return cast(Logits, made["logits"])

        def write(files: Files) -> Mapping[str, Any]:
            needed, free = (count or 0) * len(self.data.test), shutil.disk_usage(files.folder).free
            if needed > free:
                raise UserError(
                    f"cache.dir={self.cache.dir}: the outputs of a model for {len(self.data.test):,} test examples "
                    f"take {needed / GIB:,.2f} GiB, and {free / GIB:,.2f} GiB are free. Use cache.dir=FOLDER on "
                    "another disk, or fewer examples (dataset.test_samples=N)."
                )
            with compute_lock(), closing(compute()) as parts, files.file(OUTPUTS) as append:
                write_rows(append, parts, len(self.data.test))
            return {ABOUT: f"outputs: {about}"}

        while True:
            folder, _ = self.cache.load_or_write(
                self._key(inputs), write, "another process is computing the same result"
            )
            try:
                return mapped(folder / OUTPUTS)
            except FileNotFoundError:  # removed by another process before this one had opened it
                continue

    def once(self, inputs: Mapping[str, object], make: Callable[[], Arrays], about: str) -> Arrays:
        """Return the result of `make`, cached by `inputs`; `about` describes it in the list of the cache."""

        def alongside_others() -> Arrays:
            with compute_lock():
                return make()

        return self.cache.load_or_compute(self._key(inputs), alongside_others, about)

    def _key(self, inputs: Mapping[str, object]) -> str:
        decisive = {
            **inputs,
            "code": CODE_DIGEST,
            "platform": dict(numerics()),
            "runtimes": dict(runtimes()),
            "threads": self.threads,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]
