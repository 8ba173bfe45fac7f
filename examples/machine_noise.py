"""Make a data set for anomaly detection from synthetic noise of machines: python examples/machine_noise.py machines

A machine is a shaft with harmonics and a broadband noise of its own; its speed and load vary from recording to
recording. Three faults change the sound: a damaged bearing adds short impacts that ring, a worn gear modulates its
meshing tone, which adds sidebands, and a loose part rattles once per turn. Training has normal recordings only.
Writes DIR/train/normal/*.wav, DIR/test/normal/*.wav and DIR/test/FAULT/*.wav: 16 kHz, mono, 16 bits.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import butter, sosfilt

RATE = 16_000  # samples per second
SECONDS = 1
FAULTS = ("bearing", "gear", "loose")
NORMAL = "normal"
PARTS = ("train", "test")  # a number for the seed of each
SPEED_VARIES, LOAD_VARIES = 0.02, 0.15  # standard deviations, as shares
SEVERITY = (0.05, 0.5)  # of a fault; at 1, it is as loud as the machine


@dataclass(frozen=True)
class Machine:
    """A machine: turns per second, teeth of its gear, the weight of each harmonic, and the band of its noise."""

    name: str
    turns: float
    teeth: int
    harmonics: tuple[float, ...]
    band: tuple[float, float]  # Hz
    noise: float


MACHINES = (
    Machine("fan", 24.0, 7, (1.0, 0.4, 0.3, 0.1), (200, 2500), 0.8),
    Machine("pump", 48.5, 11, (0.6, 1.0, 0.2, 0.4, 0.2), (500, 4000), 0.4),
    Machine("mill", 31.0, 23, (1.0, 0.7, 0.5, 0.3, 0.2, 0.1), (100, 6000), 0.6),
)


def sound(machine: Machine, fault: str, rng: np.random.Generator) -> np.ndarray:
    """Return one recording: samples at RATE, with a peak below 1."""
    time = np.arange(RATE * SECONDS) / RATE
    turns = machine.turns * (1 + SPEED_VARIES * rng.normal())
    load = 1 + LOAD_VARIES * rng.normal()
    angle = 2 * np.pi * (turns * time + rng.random())
    shaft = sum(
        weight * np.sin(n * angle + 2 * np.pi * rng.random()) for n, weight in enumerate(machine.harmonics, start=1)
    )
    meshing, modulation = np.sin(machine.teeth * angle), 0.0
    severity = rng.uniform(*SEVERITY) if fault != NORMAL else 0.0
    if fault == "gear":
        modulation = 3 * severity * (np.sin(angle) + 0.5 * np.sin(2 * angle))
    samples = shaft + 0.5 * load * meshing * (1 + modulation)
    noise = sosfilt(butter(2, machine.band, "bandpass", fs=RATE, output="sos"), rng.normal(size=len(time)))
    samples += load * machine.noise * noise / noise.std()
    if fault == "bearing":  # 3.6 impacts for each turn, not quite regular, which ring at some kilohertz
        samples += (
            severity * samples.std() * _rung(_impacts(3.6 * turns, len(time), rng), 3200 + 400 * rng.random(), 300)
        )
    if fault == "loose":  # one dull knock for each turn
        samples += severity * samples.std() * _rung(_impacts(turns, len(time), rng), 700 + 200 * rng.random(), 80)
    return samples * rng.uniform(0.4, 0.6) / np.abs(samples).max()


def _impacts(per_second: float, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return impulses of varied strength at almost regular times."""
    found = np.zeros(length)
    gaps = RATE / per_second * (1 + 0.02 * rng.normal(size=int(2 * per_second * SECONDS)))
    times = (rng.random() * RATE / per_second + np.cumsum(gaps)).astype(int)
    times = times[times < length]
    found[times] = rng.uniform(0.7, 1.3, len(times))
    return found


def _rung(impacts: np.ndarray, frequency: float, decay: float) -> np.ndarray:
    """Return what impacts sound like in a part that rings at a frequency in Hz and fades at `decay` per second."""
    time = np.arange(RATE // 10) / RATE
    ringing = 3 * np.exp(-decay * time) * np.sin(2 * np.pi * frequency * time)
    return np.convolve(impacts, ringing)[: len(impacts)]


def planned(counts: dict[str, int]) -> Iterator[tuple[str, str, Machine, int]]:
    """Yield part, class, machine and number of each recording."""
    for part in PARTS:
        for fault in (NORMAL, *(FAULTS if part == "test" else ())):
            for machine in MACHINES:
                for number in range(counts[part]):
                    yield part, fault, machine, number


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--train", type=int, default=400, help="normal recordings of each machine (default: %(default)s)"
    )
    parser.add_argument(
        "--test",
        type=int,
        default=60,
        help="test recordings of each machine, normal and of each fault (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of speeds, loads, faults and noise (default: 0)")
    options = parser.parse_args()
    if options.folder.exists():
        sys.exit(f"{options.folder}: exists already. Remove it, or give another name.")
    kinds, written = (NORMAL, *FAULTS), 0
    for part, fault, machine, number in planned({"train": options.train, "test": options.test}):
        place = (PARTS.index(part), kinds.index(fault), MACHINES.index(machine), number)
        samples = sound(machine, fault, np.random.default_rng((options.seed, *place)))
        path = options.folder / part / fault / f"{machine.name}_{number:04}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, RATE, np.round(samples * 32767).astype(np.int16))
        written += 1
    print(f"wrote {written:,} recordings of {len(MACHINES)} machines to {options.folder}")


if __name__ == "__main__":
    main()
