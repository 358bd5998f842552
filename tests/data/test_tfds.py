"""Image sets of TFDS: what is read, what is refused, and that nothing is downloaded or imported unasked."""

import io
import json
import os
import pathlib
import shutil
import socket
import sys
import time

import numpy as np
import pytest
from PIL import Image

from configs import celeba
from vae_jax.core import errors
from vae_jax.data import tfds
from vae_jax.data.dataset import ImageSpec, load
from vae_jax.storage import tables
from vae_jax.study import study


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def prepared(root: pathlib.Path, name: str) -> None:
    (root / name / "1.0.0").mkdir(parents=True)
    (root / name / "1.0.0" / "dataset_info.json").write_text("{}")


def test_an_unknown_name(tmp_path, no_network):
    prepared(tmp_path, "mine")
    with pytest.raises(errors.UserError) as caught:
        load("mnits", dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert "data.name='mnits' is not known (did you mean mnist" in message
    assert "known are digits, faces, sprites, npy, npz, folder, and the image sets of TFDS" in message
    assert message.endswith(f"prepared in {tmp_path}: mine")


@pytest.mark.parametrize("name", ["", "*", "**", "..", ".", "/", "/etc", "mine/", "m*ne", "../mine", "two\nlines"])
def test_a_name_is_no_path_or_pattern(tmp_path, name):
    prepared(tmp_path / "root", "mine")
    prepared(tmp_path, "outside")
    with pytest.raises(errors.UserError, match=r"is not known|data\.name='two\\nlines': should be a printable") as caught:
        load(name, dir=str(tmp_path / "root"))
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded_unasked(tmp_path, no_network):
    start = time.monotonic()
    with pytest.raises(errors.UserError, match=f"cifar10 is not prepared in {tmp_path}; nothing is downloaded unasked"):
        load("cifar10", dir=str(tmp_path))
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_tfds_data_dir_is_the_default(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "set"))
    with pytest.raises(errors.UserError, match=f"cifar10 is not prepared in {tmp_path / 'set'};"):
        load("cifar10")


def test_downloading_needs_tensorflow(tmp_path, monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # missing also where it is installed
    with pytest.raises(errors.UserError, match="prepares cifar10 with tensorflow, which is missing: pip install tensorflow"):
        load("cifar10", dir=str(tmp_path), download=True)
    assert list(tmp_path.iterdir()) == []


def damaged_shard(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {  # what is damaged, how, and what is said
    "a flipped bit": ("*test*", damaged_shard, "RuntimeError: Corrupted"),
    "half a shard": ("*test*", lambda path: os.truncate(path, path.stat().st_size // 2), "RuntimeError: "),
    "no shard": ("*test*", pathlib.Path.unlink, "RuntimeError: open"),
    "no features": ("features.json", pathlib.Path.unlink, "ValueError: Cannot restore"),
    "half the features": ("features.json", lambda path: os.truncate(path, 100), "JSONDecodeError: "),
    "half the description": ("dataset_info.json", lambda path: os.truncate(path, 100), "ParseError: "),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> pathlib.Path:
    """A set in the format of mnist, with random pictures; read only."""
    pictures = np.random.default_rng(0).integers(0, 256, (400, 28, 28, 1), np.uint8)
    rows = [{"image": png(picture), "label": number % 10} for number, picture in enumerate(pictures)]
    features = {"image": feature("Image", shape=(28, 28, 1)), "label": feature("ClassLabel", num_classes=10)}
    root = tmp_path_factory.mktemp("tfds")
    written(root, "mnist", features, {"train": rows[:100], "test": rows[100:]})
    assert len(load("mnist", dir=str(root), valid_fraction=0).splits["test"]) == 300
    return root / "mnist"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set(small, tmp_path, damage):
    pattern, do, said = DAMAGES[damage]
    shutil.copytree(small, tmp_path / "mnist")
    (path,) = tmp_path.rglob(pattern)
    do(path)
    with pytest.raises(errors.UserError, match=f"^mnist in {tmp_path} cannot be read \\({said}") as caught:
        load("mnist", dir=str(tmp_path))
    assert "\n" not in str(caught.value)


FEATURES = "tensorflow_datasets.core.features."
DICT, TRAP = FEATURES + "features_dict.FeaturesDict", "trap.Image"
LEGACY = {"type": TRAP, "content": {}}
# Every way in which a features.json names a class that TFDS imports.
FORMS = {
    "current": {"pythonClassName": TRAP, "image": {}},
    "of the protocol buffer": {"python_class_name": TRAP, "image": {}},
    "legacy": LEGACY,
    "nested": {"pythonClassName": DICT, "featuresDict": {"features": {"image": {"pythonClassName": TRAP, "image": {}}}}},
    "nested legacy": {"type": DICT, "content": {"image": LEGACY}},
    "a text of JSON": {"pythonClassName": DICT, "jsonFeature": {"json": json.dumps({"image": LEGACY})}},
    "a text of a protocol buffer": {
        "type": DICT,
        "proto_cls": "tensorflow_datasets.FeaturesDict",
        "content": json.dumps({"features": {"image": {"pythonClassName": TRAP, "image": {}}}}),
    },
    "a sequence": {
        "type": FEATURES + "sequence_feature.Sequence",
        "content": {"feature": LEGACY, "length": None},
    },
    "no module of its features": {"type": FEATURES + "../other.Image", "content": {}},
    "another module of TFDS": {"type": "tensorflow_datasets.testing.Image", "content": {}},
}


@pytest.fixture
def trap(tmp_path, monkeypatch) -> pathlib.Path:
    """A module that leaves a trace: TFDS would import it, as the working directory is on the path of `python -m`."""
    (tmp_path / "trap.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).touch()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "sprung"


def with_features(root: pathlib.Path, text: str) -> None:
    prepared(root, "mnist")
    (root / "mnist" / "1.0.0" / "dataset_info.json").write_text('{"name": "mnist", "version": "1.0.0"}')
    (root / "mnist" / "1.0.0" / "features.json").write_text(text)


@pytest.mark.parametrize("form", FORMS)
def test_features_that_name_code(tmp_path, trap, form):
    with_features(tmp_path, json.dumps(FORMS[form]))
    with pytest.raises(errors.UserError, match=r"names '.*', which is no feature of TFDS; no other is imported") as caught:
        load("mnist", dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not trap.exists()


def test_features_that_name_code_in_escaped_letters(tmp_path, trap):
    with_features(tmp_path, '{"python\\u0043lassName": "tr\\u0061p.Image", "image": {}}')
    with pytest.raises(errors.UserError, match=r"names 'trap\.Image', which is no feature of TFDS"):
        load("mnist", dir=str(tmp_path))
    assert not trap.exists()


def test_the_trap_works(tmp_path, trap):
    """Without the guard each of these forms that names the trap imports it."""
    import tensorflow_datasets

    for form, features in FORMS.items():
        if TRAP in json.dumps(features):
            with_features(tmp_path / form, json.dumps(features))
            with pytest.raises(ValueError, match="Unrecognized FeatureConnector"):
                tensorflow_datasets.builder_from_directory(tmp_path / form / "mnist" / "1.0.0")
            assert trap.exists(), form
            trap.unlink()
            del sys.modules["trap"]


def names_of_versions(root: pathlib.Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "dataset_info.json").write_text("{}")


def chosen(root: pathlib.Path, name: str) -> str:
    import tensorflow_datasets

    return str(tfds._prepared(tensorflow_datasets, name, root).relative_to(root))


def test_versions_are_numbers(tmp_path):
    names_of_versions(tmp_path, *(f"mnist/{version}" for version in ("3.0.1", "10.0.0", "9.12.0", "incomplete.ABC_3.0.1")))
    assert chosen(tmp_path, "mnist") == "mnist/10.0.0"
    assert chosen(tmp_path, "mnist/3.0.1") == "mnist/3.0.1"


def test_the_default_config_is_the_builders(tmp_path):
    names_of_versions(tmp_path, *(f"emnist/{config}/3.1.0" for config in ("balanced", "byclass", "mnist")))
    assert chosen(tmp_path, "emnist") == "emnist/byclass/3.1.0"  # the first of EMNIST.BUILDER_CONFIGS
    assert chosen(tmp_path, "emnist/mnist") == "emnist/mnist/3.1.0"
    # What was written when it was prepared counts more.
    (tmp_path / "emnist/.config").mkdir()
    (tmp_path / "emnist/.config/metadata.json").write_text('{"default_config_name": "balanced"}')
    assert chosen(tmp_path, "emnist") == "emnist/balanced/3.1.0"


def test_the_only_config_that_is_prepared(tmp_path):
    names_of_versions(tmp_path, "emnist/letters/3.0.0", "emnist/letters/3.1.0")
    assert chosen(tmp_path, "emnist") == "emnist/letters/3.1.0"


def test_configs_without_a_default(tmp_path):
    names_of_versions(tmp_path, "emnist/letters/3.1.0", "emnist/mnist/3.1.0", "mine/a/1.0.0", "mine/b/1.0.0")
    for name, configs in {"emnist": "emnist/letters, emnist/mnist", "mine": "mine/a, mine/b"}.items():
        with pytest.raises(errors.UserError, match=f"^{name} is prepared in {tmp_path} as {configs}: name one of them"):
            chosen(tmp_path, name)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "png")
    return stream.getvalue()


def written(root: pathlib.Path, name: str, features: dict, splits: dict[str, list[dict]]) -> None:
    """A set in TFDS's own format, by its own parts that need no TensorFlow."""
    import tensorflow_datasets
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer

    directory = root / name / "1.0.0"
    directory.mkdir(parents=True)
    features = tensorflow_datasets.features.FeaturesDict(features)
    features.save_config(str(directory))
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    described = []
    for split, rows in splits.items():
        writer = array_record_module.ArrayRecordWriter(
            str(directory / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1"
        )
        records = [serializer.serialize_example(features.encode_example(row)) for row in rows]
        for record in records:
            writer.write(record)
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        described.append(
            {"name": split, "shardLengths": [str(len(rows))], "numBytes": str(sum(map(len, records)))}
            | {"filepathTemplate": template}
        )
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": described}
    (directory / "dataset_info.json").write_text(json.dumps(info))


def feature(kind: str, *args, **kwargs):
    import tensorflow_datasets

    return getattr(tensorflow_datasets.features, kind)(*args, **kwargs)


def test_factors_of_dsprites(tmp_path):
    sizes = {"shape": 3, "scale": 6, "orientation": 40, "x_position": 32, "y_position": 32}
    features = {"image": feature("Image", shape=(64, 64, 1))}
    features |= {f"label_{name}": feature("ClassLabel", num_classes=count) for name, count in sizes.items()}
    features |= {f"value_{name}": feature("Tensor", shape=(), dtype=np.float32) for name in sizes}
    generator = np.random.default_rng(0)
    drawn = {name: generator.integers(0, count, 40) for name, count in sizes.items()}
    rows = [
        {"image": png(np.full((64, 64, 1), number % 2, np.uint8))}
        | {f"label_{name}": int(values[number]) for name, values in drawn.items()}
        | {f"value_{name}": 0.5 for name in sizes}
        for number in range(40)
    ]
    written(tmp_path, "dsprites", features, {"train": rows})
    dataset = load("dsprites", dir=str(tmp_path), valid_fraction=0)
    assert sorted(dataset.factor_names) == sorted(sizes)
    assert {factor.name: factor.levels for factor in dataset.factors} == sizes
    assert [factor.name for factor in dataset.factors if factor.categorical] == ["shape"]
    assert dataset.spec == ImageSpec((64, 64, 1), 1, dynamic=False)  # its bytes are bits
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 32, "test": 8}
    # Every row is there once, with its own factors, and the shape for label.
    columns = {name: dataset.factor_names.index(name) for name in sizes}
    found = sorted(tuple(row) for split in dataset.splits.values() for row in split.factors)
    assert found == sorted(tuple(drawn[name][number] for name in dataset.factor_names) for number in range(40))
    for split in dataset.splits.values():
        np.testing.assert_array_equal(split.labels, split.factors[:, columns["shape"]])
    by_scale = load("dsprites", dir=str(tmp_path), valid_fraction=0, label="scale")
    for name, split in by_scale.splits.items():
        np.testing.assert_array_equal(split.labels, split.factors[:, columns["scale"]])
        np.testing.assert_array_equal(split.pixels, dataset.splits[name].pixels)  # the split is the same


@pytest.mark.parametrize(
    ("name", "sizes", "unordered", "shape"),
    [
        ("shapes3d", {"floor_hue": 10, "object_hue": 10, "orientation": 15, "scale": 8, "shape": 4}, "shape", (64, 64, 3)),
        ("smallnorb", {"azimuth": 18, "category": 5, "elevation": 9, "lighting": 6}, "category", (96, 96, 1)),
    ],
)
def test_factors_of_other_sets(tmp_path, name, sizes, unordered, shape):
    features = {"image": feature("Image", shape=shape), "image2": feature("Image", shape=shape)}
    features |= {f"label_{factor}": feature("ClassLabel", num_classes=count) for factor, count in sizes.items()}
    picture = png(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    rows = [
        {"image": picture, "image2": picture} | {f"label_{factor}": number % count for factor, count in sizes.items()}
        for number in range(12)
    ]
    written(tmp_path, name, features, {"train": rows, "test": rows[:5]})
    dataset = load(name, dir=str(tmp_path), valid_fraction=0, size=32)
    assert {factor.name: factor.levels for factor in dataset.factors} == sizes
    assert [factor.name for factor in dataset.factors if factor.categorical] == [unordered]
    assert dataset.spec == ImageSpec((32, 32, shape[-1]), 255, dynamic=False)
    test = dataset.splits["test"]
    for column, factor in enumerate(dataset.factors):
        np.testing.assert_array_equal(test.factors[:, column], np.arange(5) % factor.levels)
    np.testing.assert_array_equal(test.labels, np.arange(5) % sizes[unordered])


def test_celeb_a_is_cropped_and_resized_and_its_attributes_are_factors(tmp_path):
    attributes = ("Eyeglasses", "Male", "Smiling")
    features = {
        "image": feature("Image", shape=(218, 178, 3)),
        "attributes": dict.fromkeys(attributes, np.bool_),
        "landmarks": {"nose_x": np.int64},
    }
    picture = np.zeros((218, 178, 3), np.uint8)
    picture[35:-35, 15:-15] = (200, 100, 50)  # the 148x148 in the middle
    rows = [
        {
            "image": png(picture),
            "attributes": {name: bool(number >> bit & 1) for bit, name in enumerate(attributes)},
            "landmarks": {"nose_x": 3},
        }
        for number in range(8)
    ]
    written(tmp_path, "celeb_a", features, {"train": rows, "validation": rows[:2], "test": rows[:3]})
    dataset = load("celeb_a", dir=str(tmp_path), valid_fraction=0)
    assert dataset.factor_names == attributes
    assert all(factor.categorical and factor.levels == 2 for factor in dataset.factors)
    assert dataset.spec == ImageSpec((64, 64, 3), 255, dynamic=False)
    train = dataset.splits["train"]
    np.testing.assert_array_equal(train.pixels, np.broadcast_to(np.uint8([200, 100, 50]), (8, 64, 64, 3)))
    np.testing.assert_array_equal(train.factors, np.arange(8)[:, None] >> np.arange(3) & 1)
    assert train.labels is None
    smiling = load("celeb_a", dir=str(tmp_path), valid_fraction=0, label="Smiling", size=16)
    assert smiling.spec.shape == (16, 16, 3)
    np.testing.assert_array_equal(smiling.splits["train"].labels, [0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(errors.UserError, match=r"^data\.label=smiling: unknown factor 'smiling': did you mean Smiling"):
        load("celeb_a", dir=str(tmp_path), label="smiling")


def test_images_of_many_sizes_need_one(tmp_path):
    sizes = [(20, 30), (40, 24), (16, 16), (50, 20), (33, 33)]
    rows = [{"image": png(np.full((*size, 3), 9, np.uint8)), "label": number % 2} for number, size in enumerate(sizes)]
    features = {"image": feature("Image", shape=(None, None, 3)), "label": feature("ClassLabel", num_classes=2)}
    written(tmp_path, "mine", features, {"train": rows})
    with pytest.raises(errors.UserError, match=r"^mine has images of shape \(None, None, 3\); should be .* or data\.size"):
        load("mine", dir=str(tmp_path))
    dataset = load("mine", dir=str(tmp_path), size=8, valid_fraction=0)
    assert dataset.splits["train"].pixels.shape == (4, 8, 8, 3)
    assert np.all(dataset.splits["train"].pixels == 9)


def test_the_study_of_celeb_a_runs_from_a_prepared_set(tmp_path):
    """As it stands, but on a few random pictures and with few channels."""
    generator, attributes = np.random.default_rng(0), ("Eyeglasses", "Smiling")
    features = {"image": feature("Image", shape=(218, 178, 3)), "attributes": dict.fromkeys(attributes, np.bool_)}
    pictures = generator.integers(0, 256, (4, 218, 178, 3), np.uint8)
    rows = [
        {
            "image": png(pictures[number % 4]),
            "attributes": {name: bool(number >> bit & 1) for bit, name in enumerate(attributes)},
        }
        for number in range(40)
    ]
    written(tmp_path, "celeb_a", features, {"train": rows[:24], "validation": rows[24:26], "test": rows[26:]})
    config = celeba.get_config()
    config.data.dir = str(tmp_path)
    config.model.hidden, config.model.latents = (2, 3, 4), 2
    config.train.epochs, config.train.batch_size = 2, 8
    config.eval.samples, config.eval.calibration_samples, config.eval.decoded, config.eval.batch_size = 2, 2, 10, 8
    rows = study.run(config, tmp_path / "run", celeba.sweep)
    assert [row["name"] for row in rows] == ["ae", "vae_no_kl", "kl_only", "vae", "beta_vae", "beta_vae"]
    assert all(np.isfinite(row["distortion"]) and 0 <= row["knn_accuracy"] <= 1 for row in rows)
    assert {"mig_Smiling", "sap_Eyeglasses", "frechet_midpoint"} <= set(rows[3])
    assert len(tables.read_csv(tmp_path / "run/results.csv")) == 6


# Images that stay in their shards


def test_images_may_stay_in_their_files(small):
    """The same pixels and labels, of which only the latter are read at once."""
    resident, streamed = (load("mnist", dir=str(small.parent), resident=how) for how in ("true", "false"))
    assert (resident.is_streamed, streamed.is_streamed) == (False, True)
    assert resident.spec == streamed.spec
    for name, split in resident.splits.items():
        np.testing.assert_array_equal(split.pixels, streamed.splits[name].pixels[:])
        np.testing.assert_array_equal(split.labels, streamed.splits[name].labels)
    rows = np.array([40, 3, 3, 17])
    np.testing.assert_array_equal(resident.splits["train"].pixels[rows], streamed.splits["train"].pixels[rows])


def test_a_shard_that_is_cut_short_under_a_run(small, tmp_path):
    """One line that names it, of the rows that are gone."""
    root = pathlib.Path(shutil.copytree(small.parent, tmp_path / "sets"))
    streamed = load("mnist", dir=str(root), resident="false")
    (shard,) = root.rglob("*test*")
    os.truncate(shard, shard.stat().st_size // 2)
    assert len(streamed.splits["train"].pixels[:5]) == 5
    with pytest.raises(errors.UserError, match=f"^{shard} cannot be read \\(") as caught:
        streamed.splits["test"].pixels[:]
    assert "\n" not in str(caught.value)
