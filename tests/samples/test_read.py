"""Reading: every storage form gives the same samples; every flaw names its row, column and fix."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from modelmend.errors import InputError, SamplesError
from modelmend.samples.read import read_samples
from modelmend.samples.tables import Columns


def encode(array, mode=None, form="PNG"):
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, form)
    return stream.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)


@pytest.fixture
def table(tmp_path):
    def write(images, labels=None, name="s.parquet", **more):
        frame = pd.DataFrame(
            {"image": list(images), "label": [0, 1] * (len(images) // 2) if labels is None else labels, **more}
        )
        path = tmp_path / name
        frame.to_parquet(path)
        return path

    return write


def unit(pixels):
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def test_encoded_bytes_and_arrays_and_files_give_the_same_samples(table, tmp_path, pixels):
    encoded = read_samples(table([encode(p) for p in pixels]))
    assert torch.equal(encoded.x, unit(pixels))
    assert encoded.y.tolist() == [0, 1] * 3
    forms = [
        read_samples(table([{"bytes": encode(p), "path": None} for p in pixels], name="hf.parquet")),
        read_samples(table([p.tolist() for p in pixels], name="lists.parquet")),
        read_samples(table([p.transpose(2, 0, 1).tolist() for p in pixels], name="chw.parquet"), input_shape=(3, 8, 9)),
        read_samples(
            table([p.reshape(-1).tolist() for p in pixels.transpose(0, 3, 1, 2)], name="f.parquet"),
            input_shape=(3, 8, 9),
        ),
    ]
    np.savez(tmp_path / "s.npz", x=pixels, y=np.array([0, 1] * 3))
    forms.append(read_samples(f"file://{tmp_path / 's.npz'}"))
    for other in forms:
        assert other.ids == encoded.ids
        assert other.hash() == encoded.hash()


def test_folder_of_parquet_files_is_read_in_name_order(table, tmp_path, pixels):
    data = [encode(p) for p in pixels]
    (tmp_path / "parts").mkdir()
    table(data[:2], name="parts/b.parquet")
    table(data[2:], name="parts/a.parquet")
    assert torch.equal(read_samples(tmp_path / "parts").x, unit(pixels)[[2, 3, 4, 5, 0, 1]])


def test_class_folders_are_numbered_by_sorted_name(tmp_path, pixels):
    for label, name in enumerate(["zebra", "ant", "bee"]):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "1.png").write_bytes(encode(pixels[label]))
    (tmp_path / "d" / ".cache").mkdir()
    read = read_samples(tmp_path / "d")
    assert read.classes == ("ant", "bee", "zebra")
    assert torch.equal(read.x, unit(pixels)[[1, 2, 0]])
    (tmp_path / "d" / "classes.txt").write_text("zebra\nwasp\nant\nbee\n")
    assert read_samples(tmp_path / "d").y.tolist() == [0, 2, 3]
    (tmp_path / "d" / "classes.txt").write_text("zebra\nant\n")
    with pytest.raises(SamplesError, match=r"'bee'"):
        read_samples(tmp_path / "d")


def test_grey_gets_a_channel_axis_and_repeats_for_a_colour_model(table, pixels):
    grey = pixels[..., 0]
    path = table([encode(p) for p in grey])
    assert read_samples(path).x.shape == (6, 1, 8, 9)
    colour = read_samples(path, input_shape=(3, 8, 9)).x
    assert torch.equal(colour[:, 0], colour[:, 2])
    lists = table([p.tolist() for p in grey], name="l.parquet")
    assert torch.equal(read_samples(lists, input_shape=(1, 8, 9)).x, read_samples(path).x)


@pytest.mark.parametrize(
    ("mode", "channels"), [("P", 3), ("RGBA", 3), ("LA", 1), ("CMYK", 3), ("1", 1), ("RGB", 1), ("LA", 3)]
)
def test_stored_modes_come_in_the_models_channels(table, pixels, mode, channels):
    form = "TIFF" if mode == "CMYK" else "PNG"
    x = read_samples(table([encode(p, mode, form) for p in pixels]), input_shape=(channels, 8, 9)).x
    assert x.shape == (6, channels, 8, 9)
    assert 0 <= x.min() < x.max() <= 1


def test_sixteen_bit_images_keep_their_depth(table):
    deep = np.arange(72, dtype=np.uint16).reshape(8, 9) * 900
    x = read_samples(table([encode(deep)] * 2)).x
    assert torch.allclose(x[0, 0], torch.from_numpy(deep.astype(np.float32) / 65535))


def test_track_column_becomes_groups_within_a_class(table, pixels):
    read = read_samples(table([encode(p) for p in pixels], labels=[0, 0, 0, 1, 1, 1], track=[7, 7, 8, 7, 7, 9]))
    assert read.groups.tolist() == [0, 0, 1, 2, 2, 3]
    own = read_samples(table([encode(p) for p in pixels], clip=[1, 1, 1, 2, 2, 2]), columns=Columns(group="clip"))
    assert len(set(own.groups.tolist())) == 4


def test_equal_content_has_equal_id_and_group(table, pixels):
    read = read_samples(table([encode(p) for p in (*pixels[:3], *pixels[:3])]))
    assert read.ids[:3] == read.ids[3:]
    assert read.groups.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.0)])
def test_floats_in_the_named_range_are_scaled(tmp_path, pixels, low, high):
    stored = (pixels.astype(np.float64) / 255) * (high - low) + low
    np.savez(tmp_path / "s.npz", x=stored, y=np.zeros(6, int))
    read = read_samples(tmp_path / "s.npz", input_range=(low, high))
    assert torch.allclose(read.x, unit(pixels), atol=1e-6)
    with pytest.raises(SamplesError, match=r"0\.\.1.*row 0.*\n[^$]*--input-range"):
        read_samples(tmp_path / "s.npz")
    np.savez(tmp_path / "s.npz", x=pixels / 255, y=np.zeros(6, int))
    assert torch.allclose(read_samples(tmp_path / "s.npz", input_range=(low, high)).x, unit(pixels))


def test_resize_only_when_told(table, pixels):
    data = [encode(p) for p in pixels[:3]] + [encode(pixels[3][:4])]
    path = table(data)
    with pytest.raises(SamplesError, match=r"row 3 has shape \(3, 4, 9\); the first image has \(3, 8, 9\)"):
        read_samples(path)
    with pytest.raises(SamplesError, match=r"row 0 has shape \(3, 8, 9\); the model takes \(3, 16, 16\)"):
        read_samples(path, input_shape=(3, 16, 16))
    assert read_samples(path, input_shape=(3, 16, 16), resize=True).x.shape == (4, 3, 16, 16)


def test_unreadable_image_names_its_row(table, pixels):
    good = encode(pixels[0])
    for bad in (b"no image", good[:60], b"", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(SamplesError, match=r"unreadable image in row 2") as caught:
            read_samples(table([good, good, bad, good]))
        assert "row 2" in caught.value.field
        assert caught.value.fix
    with pytest.raises(SamplesError, match="row 1 is missing"):
        read_samples(table([good, None]))


def test_nan_pixels_name_their_row(tmp_path, pixels):
    x = pixels / 255
    x[4, 0, 0, 0] = np.nan
    np.savez(tmp_path / "s.npz", x=x, y=np.zeros(6, int))
    with pytest.raises(SamplesError, match="row 4 are NaN"):
        read_samples(tmp_path / "s.npz")
    with pytest.raises(SamplesError, match="NaN or infinite values in row 4"):
        read_samples(tmp_path / "s.npz", kind="raw")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 0, 1, -1], "row 5 is negative: -1"),
        ([0, 1, 2.5, 0, 1, 1], "row 2 is not an integer: 2.5"),
        ([0, 1, None, 0, 1, 1], "row 2 is missing"),
        (list("catcat"), "text|row 0 is 'c'"),
        ([[0, 1]] * 6, "not one number|not a class number"),
    ],
)
def test_bad_labels_name_the_row(table, pixels, labels, message):
    with pytest.raises(SamplesError, match=message) as caught:
        read_samples(table([encode(p) for p in pixels], labels=labels))
    assert "label" in caught.value.field
    assert caught.value.fix


def test_integral_float_labels_are_taken(table, pixels):
    assert read_samples(table([encode(p) for p in pixels], labels=[0.0, 1.0] * 3)).y.dtype == torch.long


def test_missing_column_names_the_nearest(tmp_path, pixels):
    pd.DataFrame({"images": [encode(pixels[0])], "label": [0]}).to_parquet(tmp_path / "s.parquet")
    with pytest.raises(SamplesError, match=r"no column 'image'; there are: images, label[\s\S]*did you mean 'images'"):
        read_samples(tmp_path / "s.parquet")
    renamed = read_samples(tmp_path / "s.parquet", columns=Columns(image="images"))
    assert len(renamed) == 1


def test_places_that_hold_no_samples(tmp_path, table):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SamplesError, match="no class folders"):
        read_samples(tmp_path / "empty")
    (tmp_path / "empty" / "cat").mkdir()
    with pytest.raises(SamplesError, match="hold no images"):
        read_samples(tmp_path / "empty")
    with pytest.raises(SamplesError, match="there are no samples"):
        read_samples(table([]))
    with pytest.raises(SamplesError, match="nothing") as caught:
        read_samples(tmp_path / "none.parquet")
    assert "none.parquet" in caught.value.where
    (tmp_path / "s.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(SamplesError, match="not a parquet"):
        read_samples(tmp_path / "s.parquet")
    (tmp_path / "s.xlsx").write_bytes(b"")
    with pytest.raises(SamplesError, match="cannot read image samples"):
        read_samples(tmp_path / "s.xlsx")


def test_pickled_npz_is_refused(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1, int))
    with pytest.raises(SamplesError, match="not a readable"):
        read_samples(tmp_path / "s.npz")


def test_npz_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("modelmend.samples.tables.MAX_UNPACKED", 1000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("the arrays were read"))
    np.savez_compressed(tmp_path / "s.npz", x=np.zeros((4, 8, 8), np.float32), y=np.zeros(4, int))
    with pytest.raises(SamplesError, match="more than") as error:
        read_samples(tmp_path / "s.npz")
    assert "fewer samples" in error.value.fix


def test_array_without_an_archive_is_refused(tmp_path):
    np.save(tmp_path / "s.npy", np.zeros((4, 8, 8)))
    (tmp_path / "s.npy").rename(tmp_path / "s.npz")
    with pytest.raises(SamplesError, match="not a readable"):
        read_samples(tmp_path / "s.npz")


def test_ragged_arrays_and_wrong_integers(table):
    with pytest.raises(SamplesError, match="ragged"):
        read_samples(table([[[1, 2], [3]]] * 2))
    with pytest.raises(SamplesError, match=r"0\.\.255"):
        read_samples(table([[[1, 2], [3, 300]]] * 2))


def test_csv_gives_raw_features(tmp_path):
    pd.DataFrame({"a": [1, 2], "b": [0.5, 7], "label": [0, 1]}).to_csv(tmp_path / "s.csv", index=False)
    read = read_samples(tmp_path / "s.csv", kind="raw", input_shape=(2,))
    assert read.x.tolist() == [[1, 0.5], [2, 7]]
    assert read.kind == "raw"
    with pytest.raises(SamplesError, match=r"shape \(2,\); the model takes \(3,\)"):
        read_samples(tmp_path / "s.csv", kind="raw", input_shape=(3,))
    pd.DataFrame({"a": [1, None], "label": [0, 1]}).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(SamplesError, match="row 1 is 'nan'"):
        read_samples(tmp_path / "s.csv", kind="raw")
    with pytest.raises(InputError, match="no image"):
        read_samples(tmp_path / "s.csv", input_shape=(3,))
