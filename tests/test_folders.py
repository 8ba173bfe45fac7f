"""Data sets in folders: images and recordings by class, how they are split, and what is wrong with their files."""

import gzip
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.io import wavfile

from experiments import cache as command_line
from experiments.dataset import decoding
from experiments.dataset.audio_folder import AudioFolder, read_wav, resampled
from experiments.dataset.fashion_mnist import FILES, FashionMnist
from experiments.dataset.image_folder import ImageFolder, resized
from experiments.dataset.splitting import held_out
from experiments.runs.configuration import compose_request
from experiments.system.cache import GIB, Cache, entries_in
from experiments.system.contents import contents_of
from experiments.system.errors import UserError

COUNTS = {"train/cat": 12, "train/dog": 6, "test/cat": 4, "test/dog": 2}
SPLIT = {"cat": 20, "dog": 10}
Make = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path) -> Make:
    """Makes a folder of random images; `counts` are the images of each folder."""

    def make(counts: dict[str, int] = COUNTS, size: tuple[int, int] = (6, 8), mode: str = "RGB") -> Path:
        rng = np.random.default_rng(0)
        for name, count in counts.items():
            folder = tmp_path / "pets" / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{number % 5}_{number}.png")
        return tmp_path / "pets"

    return make


def source(path: Path, **settings: Any) -> ImageFolder:
    return ImageFolder(path=path, cache=path.parent / "cache", **settings)


def test_images_are_read_as_they_are_with_the_names_of_their_folders(images: Make) -> None:
    path = images()
    data = source(path, validation_split=0).load()
    assert (len(data.train), len(data.test), data.input_shape) == (18, 6, (6, 8, 3))
    assert data.labels == {0: "cat", 1: "dog"}
    assert data.train.y.tolist() == [0] * 12 + [1] * 6
    first = np.asarray(Image.open(path / "train/cat/0_0.png"), np.float32) / np.float32(255)
    assert np.array_equal(data.train.x[0], first)


def test_folder_beside_train_and_test_is_named_as_unused(images: Make) -> None:
    path = images({**COUNTS, "val/cat": 2})
    assert f"not used: {path / 'val'}; validation examples are taken from train" in source(path).load().notes


def test_one_folder_of_classes_is_split_by_class_and_seed(images: Make) -> None:
    path = images(SPLIT)
    parts = [source(path, split_seed=seed, validation_split=0.25).load() for seed in (0, 0, 1)]
    assert [np.bincount(split.y).tolist() for split in (parts[0].train, parts[0].validation, parts[0].test)] == [
        [12, 6],
        [4, 2],
        [4, 2],
    ]
    assert np.array_equal(parts[0].test.x[:], parts[1].test.x[:])
    assert not np.array_equal(parts[0].test.x[:], parts[2].test.x[:])


def test_files_of_one_group_stay_in_one_part(images: Make) -> None:
    path = images(SPLIT)
    train, test = source(path, group="/([0-9])_").listed()
    groups = [{file.name[0] for file in part.paths} for part in (train, test)]
    assert groups[0] & groups[1] == set()
    assert groups[0] | groups[1] == set("01234")
    assert np.unique(test.classes, return_counts=True)[1].tolist() == [4, 2]


def test_validation_holds_out_whole_groups() -> None:
    groups = np.repeat(np.arange(10), 5)
    held = held_out(np.arange(50) % 2, 0.2, 0, groups)
    assert held.sum() == 10
    assert len(np.unique(groups[held])) == 2


def test_folders_named_by_numbers_are_integers_in_their_order(images: Make) -> None:
    data = source(images({"train/2": 4, "train/10": 4, "test/2": 2, "test/10": 2}), validation_split=0).load()
    assert data.labels == {0: "2", 1: "10"}


def test_decoded_once_for_all_runs(images: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = images()
    first = source(path).load().fingerprint
    monkeypatch.setattr(decoding, "_decode", lambda *_: pytest.fail("decoded again"))
    assert source(path).load().fingerprint == first


def test_a_changed_file_is_decoded_again(images: Make) -> None:
    path = images()
    first = source(path).load().fingerprint
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path / "test/cat/0_0.png")
    assert source(path).load().fingerprint != first


def test_files_that_change_places_are_decoded_again_though_sizes_and_times_are_equal(images: Make) -> None:
    path = images()
    for name, grey in (("cat", 0), ("dog", 255)):
        file = path / "train" / name / "new.bmp"
        Image.new("RGB", (8, 6), (grey, grey, grey)).save(file)
        os.utime(file, ns=(0, 0))
    first = source(path).load().fingerprint
    cat, dog = path / "train/cat/new.bmp", path / "train/dog/new.bmp"
    cat.rename(path / "kept")
    dog.rename(cat)
    (path / "kept").rename(dog)
    assert source(path).load().fingerprint != first


def test_only_the_chosen_images_are_decoded(images: Make) -> None:
    path = images()
    data = source(path, train_samples=5, test_samples=3, validation_split=0).load()
    assert (len(data.train), len(data.test), data.classes) == (5, 3, 2)
    (raw,) = path.parent.glob("cache/data/*/train.raw")
    assert raw.stat().st_size == 5 * 6 * 8 * 3
    with pytest.raises(UserError, match=r"dataset\.train_samples=19: requires at most 18"):
        source(path, train_samples=19).load()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGBA", 3), ("P", 3)])
def test_modes_become_grey_or_rgb(images: Make, mode: str, channels: int) -> None:
    assert source(images(mode=mode)).load().input_shape == (6, 8, channels)


def broken_and_empty(path: Path) -> None:
    (path / "train/cat/0_0.png").write_bytes(b"no image")
    (path / "test/dog/0_0.png").write_bytes(b"")


def another_size(path: Path) -> None:
    Image.new("RGB", (9, 9)).save(path / "train/cat/0_0.png")


def another_mode(path: Path) -> None:
    Image.new("L", (8, 6)).save(path / "train/cat/0_0.png")


def untrained_class(path: Path) -> None:
    (path / "test/bird").mkdir()
    (path / "test/cat/0_0.png").rename(path / "test/bird/0_0.png")


def one_class(path: Path) -> None:
    for part in ("train", "test"):
        for file in (path / part / "dog").iterdir():
            file.unlink()
        (path / part / "dog").rmdir()


def no_images(path: Path) -> None:
    for file in (path / "train/dog").iterdir():
        file.rename(file.with_suffix(".heic"))


def no_test(path: Path) -> None:
    (path / "test").rename(path / "other")


def deep(path: Path) -> None:
    Image.fromarray(np.full((6, 8), 4000, np.uint16)).save(path / "train/cat/0_0.png")


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (broken_and_empty, {}, r"2 files, train/cat/0_0\.png \(not an image\), test/dog/0_0\.png \(empty\), cannot be "
         r"decoded\. Remove them, or type dataset\.skip_broken=true"),
        (another_size, {}, r"images of 2 sizes \(height x width\): 6 x 8 \(23\), 9 x 9 \(1\).*dataset\.size=\[6,8\]"),
        (another_mode, {}, r"1 grey images and 23 in colour.*dataset\.color=rgb"),
        (untrained_class, {}, r"the test part has the class bird, of which the training part has no images"),
        (one_class, {}, "has only the class cat. Classification requires two or more"),
        (no_images, {}, r"train/dog has no images \(\.png.*only \.heic"),
        (no_test, {}, r"has .*train and no test folder"),
        (deep, {"color": "grey"}, "more than 8 bits per channel, mode I;16"),
        (str, {"group": "("}, "not a regular expression"),
        (str, {"group": "person_(.)"}, r"dataset\.group=person_\(\.\): matches nothing in train/cat"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)  # fmt: skip
def test_invalid_folders_are_refused_with_one_message_before_the_run(
    images: Make, damage: Callable[[Path], object], settings: dict[str, Any], message: str
) -> None:
    path = images()
    damage(path)
    given = source(path, **settings)
    with pytest.raises(UserError, match=message):
        given.check()
        given.check_for_new_model()
        given.read()


def test_broken_files_are_left_out_on_request(images: Make) -> None:
    path = images()
    broken_and_empty(path)
    data = source(path, skip_broken=True, validation_split=0).load()
    assert (len(data.train), len(data.test)) == (17, 5)
    assert data.notes[0].startswith("left out: 2 files, train/cat/0_0.png (not an image)")


def test_images_in_both_parts_are_a_warning(images: Make) -> None:
    path = images()
    Image.open(path / "train/dog/1_1.png").save(path / "test/dog/0_0.bmp")
    (warning,) = source(path).load().warnings
    assert warning.startswith(
        "leakage: 1 of 7 test examples are also in the training part, such as test/dog/0_0.bmp equals train/dog/1_1.png"
    )


def test_a_class_without_test_images_is_a_warning(images: Make) -> None:
    path = images({"train/cat": 4, "train/dog": 4, "test/cat": 2})
    (warning,) = source(path).load().warnings
    assert warning == "untested classes: the test part has no images of the class dog."


def test_images_that_do_not_fit_on_the_disk_are_refused_before_they_are_decoded(
    images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"24 examples of 5000000 x 5000000 x 3 take 1,676,380\.6 GiB in cache\.dir="):
        source(images(), size=(5_000_000, 5_000_000), color="rgb", cache_gib=1e9).read()


def test_more_than_the_limit_of_the_cache_is_refused_before_it_is_decoded(
    images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"take 1\.68 GiB, more than cache\.gib=1,.* Use cache\.gib=3, or"):
        source(images(), size=(5_000, 5_000), color="rgb", cache_gib=1).read()


def entry_of(path: Path) -> Path:
    (entry,) = path.parent.glob("cache/data/*/")
    return entry


def cut_short(entry: Path) -> None:
    (entry / "train.raw").write_bytes((entry / "train.raw").read_bytes()[:-1])


def without_places(entry: Path) -> None:
    (entry / "test.places.npy").unlink()


def without_index(entry: Path) -> None:
    (entry / "index.json").unlink()


def edited_index(entry: Path) -> None:
    (entry / "index.json").write_text((entry / "index.json").read_text().replace("12", "13"))


def with_another_key(entry: Path) -> None:
    entry.rename(entry.with_name("f" * 32 + entry.name[32:]))


def of_an_earlier_version(entry: Path) -> None:
    entry.rename(entry.with_name(entry.name[:32]))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "train.raw has 2,591 instead of 2,592 bytes"),
        (without_places, "test.places.npy is missing"),
        (without_index, "index.json is missing"),
        (edited_index, "index.json does not have the digest"),
        (of_an_earlier_version, "like entries of earlier versions"),
    ],
)
def test_damaged_examples_are_decoded_again(
    images: Make, damage: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = images()
    first = source(path).load().fingerprint
    damage(entry_of(path))
    assert source(path).load().fingerprint == first
    shown = capsys.readouterr().out.replace("\n", " ")
    assert (said in shown, "it is removed and computed again" in shown) == (True, True)


def flipped_bit(entry: Path) -> None:
    content = (entry / "test.raw").read_bytes()
    (entry / "test.raw").write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize("damage", [flipped_bit, cut_short, edited_index, with_another_key, of_an_earlier_version])
def test_verify_finds_damaged_examples(images: Make, damage: Callable[[Path], None]) -> None:
    path = images()
    source(path).read()
    found: dict[str, Any] = {}
    assert command_line.verify(path.parent / "cache", False, found)
    damage(entry_of(path))
    assert not command_line.verify(path.parent / "cache", False, found)
    assert command_line.verify(path.parent / "cache", True, found)
    assert not list(path.parent.glob("cache/data/*"))


def test_the_list_of_the_cache_has_the_examples(images: Make) -> None:
    path = images()
    source(path).read()
    found: dict[str, Any] = {}
    command_line.show(path.parent / "cache", found)
    (entry,) = found["entries"]
    assert (entry["kind"], entry["what"], entry["files"]) == ("data", "pets: 24 examples of 6 x 8 x 3 uint8", 5)
    assert found["bytes"] == sum(file.stat().st_size for file in entry_of(path).iterdir())


def test_examples_in_use_are_not_cleared(images: Make) -> None:
    path = images()
    cache, found = path.parent / "cache", dict[str, Any]()
    used = source(path).read()
    command_line.clear(cache, "data", 0, found)
    assert (found["removed"], found["in_use"]) == (0, [entry_of(path)])
    del used
    command_line.clear(cache, "results", 0, found)
    command_line.clear(cache, "data", 1, found)
    assert entry_of(path).is_dir()
    command_line.clear(cache, "data", 0, found)
    assert (found["removed"], list(path.parent.glob("cache/data/*"))) == (1, [])


def test_a_copy_in_another_process_uses_the_examples_too(images: Make) -> None:
    path = images()
    given = source(path).read()
    given.x_train[:1]
    copy = pickle.loads(pickle.dumps(given.x_train))
    assert np.array_equal(copy[:], given.x_train[:])
    del given
    found: dict[str, Any] = {}
    command_line.clear(path.parent / "cache", "all", 0, found)
    assert (found["removed"], len(copy[:])) == (0, 18)


def test_least_recently_used_examples_make_room(images: Make) -> None:
    path = images()
    for count in (10, 11):
        source(path, train_samples=count).read()
    entries = sorted(entries_in(path.parent / "cache"), key=lambda entry: entry.bytes)
    for age, entry in zip((100, 200), entries, strict=True):
        os.utime(entry.path / "index.json", (age, age))
    source(path, train_samples=10).read()  # is the more recently used now
    full = Cache(dir=path.parent / "cache", gib=sum(entry.bytes for entry in entries) / GIB)
    full.load_or_compute("key", lambda: {"a": np.zeros(3)}, "a result")
    assert [entry.path.is_dir() for entry in entries] == [True, False]


def test_a_run_keeps_its_examples_when_the_cache_is_full(images: Make) -> None:
    path = images()
    used = source(path).read()
    Cache(dir=path.parent / "cache", gib=1 / GIB).load_or_compute("key", lambda: {"a": np.zeros(3)}, "a result")
    assert entry_of(path).is_dir()
    del used
    Cache(dir=path.parent / "cache", gib=1 / GIB).load_or_compute("other", lambda: {"a": np.zeros(3)}, "a result")
    assert not list(path.parent.glob("cache/data/*"))


def test_examples_removed_before_they_are_opened_are_decoded_again(
    images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = images()
    first = source(path).load().fingerprint
    read, removed = decoding._read, list[Path]()

    def remove_and_read(folder: Path, *arguments: Any) -> decoding.Decoded:
        if not removed:
            removed.append(folder)
            shutil.rmtree(folder)
        return read(folder, *arguments)

    monkeypatch.setattr(decoding, "_read", remove_and_read)
    assert (source(path).load().fingerprint, len(removed)) == (first, 1)


def test_examples_that_a_killed_process_left_are_removed_unless_their_lock_is_held(tmp_path: Path) -> None:
    place = tmp_path / "cache/data"
    for key in ("a" * 32, "b" * 32):
        (place / f"{key}.12345678.partial").mkdir(parents=True)
        (place / f"{key}.12345678.partial/train.raw").touch()
        (place / f"{key}.lock").touch()
    cache = Cache(dir=tmp_path / "cache")
    with cache.claimed(place / f"{'a' * 32}.lock", "another process is decoding the same files"):
        cache.remove_leftovers()
        assert sorted(path.name[:1] for path in place.iterdir()) == ["a", "a"]
    cache.remove_leftovers()
    assert not list(place.iterdir())


@pytest.mark.parametrize("option", ["image_folder", "audio_folder"])
def test_the_cache_of_the_run_is_that_of_its_examples_and_decides_no_result(option: str, tmp_path: Path) -> None:
    def composed(*cache: str) -> Any:
        return compose_request([f"dataset={option}", f"dataset.path={tmp_path}", *cache]).experiment.dataset

    given = composed("cache.dir=~/elsewhere", "cache.gib=3")
    assert (given.cache, given.cache_gib) == (Path.home() / "elsewhere", 3)
    assert contents_of(given) == contents_of(composed())


@pytest.mark.tensorflow
@pytest.mark.parametrize("size", [(6, 8), (12, 20), (5, 3), (4, 12)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_images_are_resized_as_keras_does(size: tuple[int, int], fit: Any) -> None:
    import keras

    from experiments.system.tensorflow import tf

    image = np.random.default_rng(1).integers(0, 256, (10, 16, 3), np.uint8)
    wanted = keras.ops.image.resize(
        tf.constant(image, tf.float32)[None],
        size,
        crop_to_aspect_ratio=fit == "crop",
        pad_to_aspect_ratio=fit == "pad",
        data_format="channels_last",
    )
    assert np.abs(resized(image, size, fit) - np.asarray(wanted)[0]).max() <= 0.5001


def save_recordings(folder: Path, rate: int = 16_000, seconds: float = 1.0, dtype: str = "int16") -> Path:
    rng = np.random.default_rng(0)
    for name, hertz in (("low", 300), ("high", 2000)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            tone = np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate) + rng.normal(
                0, 0.1, int(rate * seconds)
            )
            wavfile.write(folder / name / f"{number}.wav", rate, (tone * 0.3 * 32767).astype(dtype))
    return folder


def recordings(path: Path, **settings: Any) -> AudioFolder:
    return AudioFolder(path=path, cache=path.parent / "cache", **settings)


@pytest.mark.tensorflow
def test_recordings_become_the_features_of_mlperf_tiny(tmp_path: Path) -> None:
    data = recordings(save_recordings(tmp_path / "tones")).load()
    assert data.input_shape == (49, 10, 1)
    assert (
        data.notes[0]
        == "audio: 49 frames of 10 MFCC of 40 bands, 20 to 4000 Hz, windows of 30 ms every 20 ms (tf.signal)"
    )
    low, high = (data.train.x[:][data.train.y == label].mean(axis=(0, 1)) for label in (1, 0))
    assert np.abs(low - high).max() > 1


def computed(samples: npt.NDArray[np.float64], audio: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The features of samples, as a device computes them from the description beside a saved file."""
    count = 1 + (audio["samples"] - audio["window"]) // audio["stride"]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(audio["window"]) / audio["window"])
    frames = [samples[n * audio["stride"] :][: audio["window"]] * hann for n in range(count)]
    bins = np.abs(np.fft.rfft(frames, audio["fft"]))
    mel = 1127 * np.log(1 + np.fft.rfftfreq(audio["fft"], 1 / audio["rate"]) / 700)[:, np.newaxis]
    low, high = (1127 * np.log(1 + audio[name] / 700) for name in ("low_hz", "high_hz"))
    corners = np.linspace(low, high, audio["mels"] + 2)
    rising = (mel - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - mel) / (corners[2:] - corners[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    weights[0] = 0
    bands = np.log(bins @ weights + audio["floor"])
    if audio["features"] == "log_mel":
        return np.asarray(bands)
    angles = np.pi * np.outer(2 * np.arange(audio["mels"]) + 1, np.arange(audio["coefficients"])) / (2 * audio["mels"])
    return np.asarray(2 * bands @ np.cos(angles) / np.sqrt(2 * audio["mels"]))


@pytest.mark.tensorflow
@pytest.mark.parametrize("features", ["mfcc", "log_mel"])
def test_a_device_can_compute_the_features_from_what_is_kept(tmp_path: Path, features: str) -> None:
    path = save_recordings(tmp_path / "tones")
    source = recordings(path, features=features, window_ms=25, mels=30)
    audio = source.load().preprocessing["audio"]
    file = path / "low/3.wav"
    expected, _ = source.decoder([file]).decode(file)
    samples = wavfile.read(file)[1] / 32768
    assert list(expected.shape) == audio["shape"]
    np.testing.assert_allclose(computed(samples, audio), expected[..., 0], atol=2e-2)


@pytest.mark.tensorflow
def test_recordings_of_another_rate_and_length_are_brought_to_those_of_the_data_set(tmp_path: Path) -> None:
    path = save_recordings(tmp_path / "tones")
    rate, samples = 8_000, (np.sin(np.arange(4_000) / 4) * 9_000).astype(np.int16)
    wavfile.write(path / "low/0.wav", rate, samples)
    data = recordings(path, features="log_mel", mels=32).load()
    assert data.input_shape == (49, 32, 1)
    assert data.notes[1:3] == (
        "recordings that were padded with silence to 1 s: 1",
        "recordings that were resampled from 8000 to 16000 Hz: 1",
    )


@pytest.mark.tensorflow
def test_what_is_strange_about_recordings_is_noted(tmp_path: Path) -> None:
    path = save_recordings(tmp_path / "tones")
    tone = np.sin(np.arange(16_000) / 4).astype(np.float32)
    wavfile.write(path / "low/loud.wav", 16_000, tone * 32_767)
    wavfile.write(path / "low/opposite.wav", 16_000, np.stack([tone, -tone], axis=1))
    whole = (path / "low/0.wav").read_bytes()
    (path / "low/short.wav").write_bytes(whole[: len(whole) // 2])
    assert set(recordings(path).load().notes) >= {
        "recordings that are silent: 1",
        "recordings that end before the length in their header: 1",
        "recordings that have samples far beyond -1 and 1, as if on another scale: 1",
        "recordings that have several channels, which are averaged: 1",
    }


@pytest.mark.tensorflow
def test_a_file_without_sound_is_named(tmp_path: Path) -> None:
    path = save_recordings(tmp_path / "tones")
    (path / "low/0.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"1 file, low/0\.wav \(not a WAV file .*skip_broken=true"):
        recordings(path).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"high_hz": 9000.0}, r"dataset\.high_hz=9000: requires more than dataset\.low_hz=20 and at most 8000"),
        ({"coefficients": 50}, r"dataset\.coefficients=50: requires at most dataset\.mels=40"),
        ({"seconds": 0.01}, r"dataset\.seconds=0\.01: requires at least one window"),
    ],
)
def test_impossible_front_ends_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recordings(save_recordings(tmp_path / "tones", seconds=0.1), **settings).check()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_samples_of_every_width_are_within_one(tmp_path: Path, dtype: str) -> None:
    wave = np.sin(np.arange(400) / 5)
    kind = np.dtype(dtype)
    scaled = {"u": wave * 127 + 128, "i": wave * np.iinfo(kind).max if kind.kind == "i" else wave}.get(kind.kind, wave)
    wavfile.write(tmp_path / "a.wav", 8000, np.stack([scaled, scaled], axis=1).astype(kind))
    rate, samples, _ = read_wav(tmp_path / "a.wav")
    assert rate == 8000
    assert np.abs(samples - wave).max() < 0.02


def test_resampling_keeps_the_tone() -> None:
    slow: npt.NDArray[np.float32] = np.sin(2 * np.pi * 100 * np.arange(800) / 800).astype(np.float32)
    fast = resampled(slow, 800, 1600)
    assert np.abs(fast[100:-100] - np.sin(2 * np.pi * 100 * np.arange(1600) / 1600)[100:-100]).max() < 0.01


def save_idx(folder: Path, packed: bool) -> Path:
    folder.mkdir()
    shapes = [(20, 28, 28), (20,), (10, 28, 28), (10,)]
    for name, shape in zip(FILES, shapes, strict=True):
        header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        content = header + (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes()
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_is_read_from_a_folder(tmp_path: Path, packed: bool) -> None:
    data = FashionMnist(path=save_idx(tmp_path / "idx", packed), validation_split=0).load()
    assert (len(data.train), len(data.test), data.input_shape, data.classes) == (20, 10, (28, 28, 1), 10)
    assert data.train.y.tolist() == [*range(10)] * 2


def test_a_damaged_folder_of_fashion_mnist_is_named(tmp_path: Path) -> None:
    path = save_idx(tmp_path / "idx", packed=False)
    (path / FILES[0]).write_bytes((path / FILES[0]).read_bytes()[:100])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is damaged: it has 84 values, and requires 15,680"):
        FashionMnist(path=path).load()
    (path / FILES[0]).unlink()
    with pytest.raises(UserError, match=r"requires train-images-idx3-ubyte, plain or \.gz.*dataset-fashion-mnist"):
        FashionMnist(path=path).check()
