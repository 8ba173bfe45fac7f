"""A folder of WAV files by class, as log-mel spectrograms or MFCC of tf.signal."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache, partial
from math import gcd
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset.decoding import BrokenFileError, Decoded, Decoder, Form
from experiments.dataset.folder import Folder
from experiments.system.errors import UserError, first_line
from experiments.system.options import OPTION

Samples = npt.NDArray[np.float32]  # (n,), -1..1
READING = Lock()  # warnings are those of the whole process, and several threads decode
LOUDEST = 2  # a sample of floats; a little more than 1 is common
FLOOR = 1e-6  # added to mel energies before the logarithm, as in MLPerf Tiny


@option(frozen=True, config=OPTION, kw_only=True)
class AudioFolder(Folder):
    """Features (frames, bands, 1) float32 of recordings of one length."""

    suffixes: ClassVar[tuple[str, ...]] = (".wav",)
    kind: ClassVar[str] = "recordings"
    shaped_by: ClassVar[str] = (
        "Frames follow from dataset.seconds, window_ms and stride_ms; bands are dataset.mels, or of MFCC "
        "dataset.coefficients."
    )

    features: Literal["log_mel", "mfcc"] = "mfcc"
    rate: PositiveInt = 16_000  # samples per second
    seconds: PositiveFloat = 1.0
    window_ms: PositiveFloat = 30.0
    stride_ms: PositiveFloat = 20.0
    mels: PositiveInt = 40
    low_hz: PositiveFloat = 20.0
    high_hz: PositiveFloat = 4_000.0
    coefficients: PositiveInt = 10

    def check(self) -> None:
        """Check the settings of the front end, and that the folder has recordings by class."""
        if not self.low_hz < self.high_hz <= self.rate / 2:
            raise UserError(
                f"dataset.high_hz={self.high_hz:g}: requires more than dataset.low_hz={self.low_hz:g} and at most "
                f"{self.rate / 2:g}, half of dataset.rate={self.rate}."
            )
        if self.features == "mfcc" and self.coefficients > self.mels:
            raise UserError(f"dataset.coefficients={self.coefficients}: requires at most dataset.mels={self.mels}.")
        if self._frames < 1:
            raise UserError(
                f"dataset.seconds={self.seconds:g}: requires at least one window, dataset.window_ms={self.window_ms:g}."
            )
        super().check()

    def decoder(self, paths: Sequence[Path]) -> Decoder:
        """See Folder.decoder; every recording is brought to one rate and one length."""
        from experiments.system.tensorflow import tf

        names = ("features", "rate", "seconds", "window_ms", "stride_ms", "mels", "low_hz", "high_hz", "coefficients")
        settings = {**{name: asdict(self)[name] for name in names}, "tensorflow": tf.__version__}
        bands = self.coefficients if self.features == "mfcc" else self.mels
        return Decoder(Form((self._frames, bands, 1), "float32"), partial(_features, self), settings)

    def notes(self, found: Decoded) -> tuple[str, ...]:
        """Return the front end, and how many recordings had another rate or length."""
        bands = f"{self.coefficients} MFCC of {self.mels}" if self.features == "mfcc" else f"{self.mels} log-mel"
        return (
            f"audio: {self._frames} frames of {bands} bands, {self.low_hz:g} to {self.high_hz:g} Hz, windows of "
            f"{self.window_ms:g} ms every {self.stride_ms:g} ms (tf.signal)",
            *super().notes(found),
        )

    def preprocessing(self, found: Decoded) -> dict[str, Any]:
        """See Folder.preprocessing; all numbers that the front end requires, in samples, and its steps."""
        cepstral = self.features == "mfcc"
        samples = round(self.rate * self.seconds)
        scale = f"divided by sqrt({2 * self.mels})"  # as HTK has it
        return {
            "audio": {
                "features": self.features,
                "shape": list(found.arrays["train"].shape[1:]),
                "rate": self.rate,
                "samples": samples,
                "window": self._window,
                "stride": self._stride,
                "fft": 1 << (self._window - 1).bit_length(),
                "mels": self.mels,
                "low_hz": self.low_hz,
                "high_hz": self.high_hz,
                "floor": FLOOR,
                **({"coefficients": self.coefficients} if cepstral else {}),
                "steps": [
                    f"samples between -1 and 1 at {self.rate} Hz, mono, {samples} of them, zeros at the end",
                    "frames of `window` samples every `stride`, times 0.5 - 0.5 cos(2 pi n / window)",
                    "each frame padded with zeros at the end to `fft`",
                    "magnitude of the Fourier transform, fft / 2 + 1 bins",
                    "bands: triangles in mel(f) = 1127 ln(1 + f / 700), whose corners are at equal distances from "
                    "mel(low_hz) to mel(high_hz), with a height of 1; the bin at 0 Hz has no weight",
                    "natural logarithm of band + floor",
                    *(
                        [f"DCT-II, 2 sum(x cos(pi k (2 n + 1) / (2 mels))), {scale}, the first ones"]
                        if cepstral
                        else []
                    ),
                ],
            }
        }

    @property
    def _window(self) -> int:
        return round(self.rate * self.window_ms / 1000)

    @property
    def _stride(self) -> int:
        return max(1, round(self.rate * self.stride_ms / 1000))

    @property
    def _frames(self) -> int:
        return 1 + (round(self.rate * self.seconds) - self._window) // self._stride


def _features(source: AudioFolder, path: Path) -> tuple[npt.NDArray[np.float32], Sequence[str]]:
    """Return the features of a recording (frames, bands, 1), as the data set of MLPerf Tiny computes them."""
    from experiments.system.tensorflow import tf

    rate, samples, remarks = read_wav(path)
    remarks += [] if rate == source.rate else [f"were resampled from {rate} to {source.rate} Hz"]
    samples = resampled(samples, rate, source.rate)
    length = round(source.rate * source.seconds)
    if len(samples) != length:
        remarks.append(f"were {'cut' if len(samples) > length else 'padded with silence'} to {source.seconds:g} s")
        samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    with tf.device("CPU"):
        spectrum = tf.abs(tf.signal.stft(samples, source._window, source._stride))
        weights = _mel_weights(source.mels, spectrum.shape[-1], source.rate, source.low_hz, source.high_hz)
        features = tf.math.log(tf.matmul(spectrum, weights) + FLOOR)
        if source.features == "mfcc":
            features = tf.signal.mfccs_from_log_mel_spectrograms(features)[:, : source.coefficients]
    return np.asarray(features.numpy()[..., np.newaxis], np.float32), remarks


@cache
def _mel_weights(mels: int, bins: int, rate: int, low_hz: float, high_hz: float) -> "npt.NDArray[np.float32]":
    """Return the weight of each bin of a spectrum in each band (bins, mels), computed once for all recordings."""
    from experiments.system.tensorflow import tf

    return np.asarray(tf.signal.linear_to_mel_weight_matrix(mels, bins, rate, low_hz, high_hz).numpy())


def read_wav(path: Path) -> tuple[int, Samples, list[str]]:
    """Return the rate and the samples of a WAV file, whose channels are averaged, and remarks on the recording.

    Raises:
        BrokenFileError: it is not a WAV file, or has no samples.
    """
    from scipy.io import wavfile

    remarks = []
    try:
        with READING, warnings.catch_warnings(record=True) as found:  # such as chunks with texts
            warnings.simplefilter("always", wavfile.WavFileWarning)
            rate, stored = wavfile.read(path)
    except Exception as error:  # SciPy lets errors of struct, NumPy and others through
        raise BrokenFileError(f"not a WAV file ({first_line(error)})") from error
    if len(stored) == 0 or rate <= 0:
        raise BrokenFileError("no samples")
    match stored.dtype.kind:
        case "u":  # 8 bits, 128 is silence
            samples = (stored.astype(np.float32) - 128) / 128
        case "i":
            samples = stored.astype(np.float32) / float(2 ** (8 * stored.dtype.itemsize - 1))
        case _:
            samples = stored.astype(np.float32)
    if any("EOF" in str(each.message) for each in found):
        remarks.append("end before the length in their header")
    if samples.ndim > 1:
        remarks.append("have several channels, which are averaged")
        samples = samples.mean(axis=1)
    if not samples.any():
        remarks.append("are silent")
    elif np.abs(samples).max() > LOUDEST:
        remarks.append("have samples far beyond -1 and 1, as if on another scale")
    return int(rate), samples, remarks


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """Return the samples at another rate, through a low-pass filter."""
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    return np.asarray(resample_poly(samples, wanted // common, rate // common), np.float32)
