"""Make a data set for keyword spotting from synthetic speech: python examples/spoken_words.py words

espeak-ng says each word with many voices, speeds and pitches. Each recording is one second long, with the word at a
random position in noise of random loudness. The voices of the test part do not occur in the training part.
Writes DIR/train/WORD/*.wav and DIR/test/WORD/*.wav: 16 kHz, mono, 16 bits.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import lfilter, resample_poly

PROGRAM = "espeak-ng"
WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
RATE = 16_000  # samples per second
# Accents, and variants of the voice: none of those for the test is used for training.
VOICES = {
    "train": (
        ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-gbclan"),
        ("m1", "m2", "m3", "m4", "m5", "f1", "f2", "f3", "adam", "belinda", "john", "max", "steph", "victor"),
    ),
    "test": (("en-gb-x-rp", "en-gb-x-gbcwmd", "en-us-nyc"), ("m6", "m7", "m8", "f4", "f5", "linda")),
}
SPEEDS = (110, 210)  # words per minute
PITCHES = (25, 80)  # of 0 to 99
SIGNAL_TO_NOISE = (5, 25)  # dB
SILENT = 0.01  # of the peak: what is quieter at both ends is cut off
PEAKS = (0.1, 0.8)  # of full scale
PARTS = ("train", "test")  # a number for the seed of each


@dataclass(frozen=True)
class Recording:
    """A word to record: where to, and by which voice."""

    path: Path
    word: str
    voice: str
    seed: tuple[int, ...]


def planned(folder: Path, words: tuple[str, ...], counts: dict[str, int], seed: int) -> Iterator[Recording]:
    """Yield the recordings of both parts; each voice says each word about equally often."""
    for part, (accents, variants) in VOICES.items():
        voices = [f"{accent}+{variant}" for accent in accents for variant in variants]
        for index, word in enumerate(words):
            rng = np.random.default_rng((seed, PARTS.index(part), index))
            order = [
                voices[place] for _ in range(1 + counts[part] // len(voices)) for place in rng.permutation(len(voices))
            ]
            for number, voice in enumerate(order[: counts[part]]):
                path = folder / part / word / f"{voice.replace('+', '-')}_{number:04}.wav"
                yield Recording(path, word, voice, (seed, PARTS.index(part), index, number))


def spoken(word: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """Return a word as espeak-ng says it: samples at RATE, without silence before and after it."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = [PROGRAM, "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", file.name, word]
        subprocess.run(command, check=True)
        rate, stored = wavfile.read(file.name)
    samples = resample_poly(stored / 32768, RATE, rate)
    loud = np.flatnonzero(np.abs(samples) > SILENT * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def record(recording: Recording) -> None:
    """Write a word at a random position of one second of noise."""
    rng = np.random.default_rng(recording.seed)
    word = spoken(recording.word, recording.voice, int(rng.integers(*SPEEDS)), int(rng.integers(*PITCHES)))[:RATE]
    samples = np.zeros(RATE)
    start = rng.integers(RATE - len(word) + 1)
    samples[start : start + len(word)] = word
    # Noise between white and brown: each sample follows the one before it more or less.
    noise = lfilter([1], [1, -rng.uniform(0, 0.98)], rng.normal(size=RATE))
    decibels = rng.uniform(*SIGNAL_TO_NOISE)
    noise *= np.sqrt(np.mean(word**2) / np.mean(noise**2)) * 10 ** (-decibels / 20)
    samples += noise
    samples *= rng.uniform(*PEAKS) / np.abs(samples).max()
    recording.path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(recording.path, RATE, np.round(samples * 32767).astype(np.int16))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--words", nargs="+", default=WORDS, help="the classes (default: %(default)s)")
    parser.add_argument(
        "--train", type=int, default=250, help="training recordings of each word (default: %(default)s)"
    )
    parser.add_argument("--test", type=int, default=72, help="test recordings of each word (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of speeds, pitches, positions and noise (default: 0)")
    options = parser.parse_args()
    if not shutil.which(PROGRAM):
        sys.exit(f"{PROGRAM}: not found. Install the package espeak-ng: sudo apt install espeak-ng")
    if options.folder.exists():
        sys.exit(f"{options.folder}: exists already. Remove it, or give another name.")
    counts = {"train": options.train, "test": options.test}
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(record, planned(options.folder, tuple(options.words), counts, options.seed)))
    print(f"wrote {len(done):,} recordings of {len(options.words)} words to {options.folder}")


if __name__ == "__main__":
    main()
