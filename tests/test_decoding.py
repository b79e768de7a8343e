"""Whatever kind of image comes, an upright RGB square with the right colours leaves."""

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from stages.images import decoding
from stages.images.decoding import Wanted, pool
from stages.images.decoding.pool import decode_all, decode_batch
from stages.running.errors import UserError

ORIENTATION = 0x0112


def decode(path: str, size: int) -> np.ndarray:
    return decoding.decode(Path(path).read_bytes(), Wanted(size))[0]


def saved(image: Image.Image, path: Path, **options: object) -> str:
    image.save(path, **options)
    return str(path)


def close(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 0) -> bool:
    return bool((np.abs(image.astype(int) - colour) <= tolerance).all())


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [("png", 0), ("bmp", 0), ("gif", 0), ("webp", 3), ("jpg", 3), ("tiff", 0), ("ppm", 0), ("avif", 4)],
)
def test_every_format_keeps_its_colour(suffix: str, tolerance: int, tmp_path: Path) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    assert f".{suffix}" in decoding.SUFFIXES
    path = saved(Image.new("RGB", (20, 20), (200, 100, 50)), tmp_path / f"image.{suffix}")
    image = decode(path, 16)
    assert image.shape == (16, 16, 3)
    assert close(image, (200, 100, 50), tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8), "white").convert(mode), tmp_path / "image.png")
    assert close(decode(path, 8), (255, 255, 255))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = decode(saved(Image.fromarray(ramp), tmp_path / "deep.png"), 8)
    np.testing.assert_array_equal(image[..., 0], np.rint(ramp / 257))
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled_by_what_is_white_and_tells_its_largest_value(suffix: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 4000, 64).astype(np.uint16).reshape(8, 8)
    content = Path(saved(Image.fromarray(ramp), tmp_path / f"deep.{suffix}")).read_bytes()
    image, peak = decoding.decode(content, Wanted(8, white=4095))
    assert peak == 4000
    np.testing.assert_array_equal(image[..., 1], np.rint(ramp * (255 / 4095)))


@pytest.mark.parametrize("values", [np.full((8, 8), 0.5, np.float32), np.full((8, 8), -3, np.int32)])
def test_grey_without_a_known_range_is_named(values: np.ndarray, tmp_path: Path) -> None:
    path = saved(Image.fromarray(values), tmp_path / "values.tif")
    assert "expected whole ones from 0 to 65535" in decode_batch(0, [path], Wanted(8)).bad[0][1]


def test_large_images_are_a_matter_of_the_parameter(tmp_path: Path) -> None:
    path = saved(Image.new("1", (2_000, 1_000)), tmp_path / "large.png")
    found = decode_batch(0, [path], Wanted(8, max_megapixels=1))
    assert found.large == [(0, "2,000 x 1,000 pixels, 2 megapixels")]
    assert len(decode_batch(0, [path], Wanted(8, max_megapixels=2)).images) == 1


def test_the_parameter_speaks_before_a_library_does(tmp_path: Path) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)  # Pillow refuses above 179 megapixels
    small = Path(saved(Image.new("L", (8, 8)), tmp_path / "image.png")).read_bytes()
    (tmp_path / "image.png").write_bytes(small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:])
    found = decode_batch(0, [str(tmp_path / "image.png")], Wanted(8))
    assert (found.bad, found.large) == ([], [(0, "20,000 x 20,000 pixels, 400 megapixels")])


def test_a_long_text_in_a_png_is_no_attack(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("history", "saved, " * 500_000, zip=True)
    path = saved(Image.new("RGB", (8, 8), "red"), tmp_path / "image.png", pnginfo=text)
    assert close(decode(path, 8), (255, 0, 0))


def test_warnings_of_libraries_stay_inside(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    cut = b"Exif\0\0II*\0\x08\0\0\0\x05\0"  # five entries are announced and none is there
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "image.jpg", exif=cut)
    assert len(decode_batch(0, [path], Wanted(8)).images) == 1
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    pixels = decode(saved(image.convert(mode), tmp_path / "image.png"), 8)
    assert close(pixels[:, :4], (0, 0, 0))
    assert close(pixels[:, 4:], (255, 255, 255))


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_the_transparent_colour_of_a_palette_becomes_white(suffix: str, tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 4, 8))
    pixels = decode(saved(image, tmp_path / f"image.{suffix}", transparency=0), 8)
    assert close(pixels[:, :4], (200, 100, 50))
    assert close(pixels[:, 4:], (255, 255, 255))


def test_the_transparent_colour_of_an_rgb_image_becomes_white(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8), (1, 2, 3)), tmp_path / "image.png", transparency=(1, 2, 3))
    assert close(decode(path, 8), (255, 255, 255))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK"), tmp_path / "image.jpg")
    assert close(decode(path, 16), (255, 0, 0), 4)


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for suffix in ("gif", "webp"):
        path = saved(frames[0], tmp_path / f"image.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
        assert close(decode(path, 8), (255, 0, 0), 3)


def test_of_the_two_pictures_of_a_phone_the_first_counts(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path = saved(pictures[0], tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=pictures[1:])
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert close(decode(path, 16), (255, 0, 0), 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_turns_the_image_upright(suffix: str, orientation: int, corner: tuple[int, int], tmp_path: Path) -> None:
    image = Image.new("RGB", (48, 32), "black")
    image.paste("white", (8, 0, 24, 16))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = decode(saved(image, tmp_path / f"image.{suffix}", exif=exif, quality=95), 32)
    corners = {(y, x): int(pixels[y, x, 0]) for y in (0, -1) for x in (0, -1)}
    assert {place for place, value in corners.items() if value > 200} == {corner}


def test_a_broken_exif_block_spoils_no_image(tmp_path: Path) -> None:
    upright = struct.pack("<HHII", ORIENTATION, 3, 1, 6)
    maker = struct.pack("<HHIIQ", 0x010F, 5, 1, 34, 0)  # a camera named by a fraction: Pillow fails on it
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + upright + maker
    path = saved(Image.new("RGB", (16, 16), "red"), tmp_path / "image.jpg", exif=block)
    assert close(decode(path, 16), (255, 0, 0), 3)


@pytest.mark.parametrize("shape", [(90, 30), (30, 90)])
def test_the_short_side_fits_and_the_centre_stays(shape: tuple[int, int], tmp_path: Path) -> None:
    image = Image.new("RGB", shape, "red")
    left, top = (shape[0] - 30) // 2, (shape[1] - 30) // 2
    image.paste("blue", (left, top, left + 30, top + 30))
    pixels = decode(saved(image, tmp_path / "image.png"), 10)
    assert close(pixels[1:-1, 1:-1], (0, 0, 255), 20)


def test_scaling_down_averages_a_fine_pattern(tmp_path: Path) -> None:
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert close(decode(saved(Image.fromarray(board), tmp_path / "board.png"), 16), (127, 127, 127), 3)


def test_a_large_jpeg_looks_the_same_as_decoded_in_full(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((800, 600), Image.Resampling.BICUBIC)
    lossless, lossy = saved(image, tmp_path / "a.png"), saved(image, tmp_path / "a.jpg", quality=95)
    assert np.abs(decode(lossless, 32).astype(int) - decode(lossy, 32)).mean() < 2


def test_small_images_grow(tmp_path: Path) -> None:
    assert decode(saved(Image.new("RGB", (3, 5), "red"), tmp_path / "image.png"), 32).shape == (32, 32, 3)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.new("RGB", (8, 8), "red").save(path, format="PNG")
    assert close(decode(str(path), 8), (255, 0, 0))


def test_broken_files_are_named_and_stop_nothing(tmp_path: Path) -> None:
    good = saved(Image.new("RGB", (64, 64), "red"), tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "half.png").write_bytes(Path(good).read_bytes()[:80])
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "half.jpg").write_bytes(Path(saved(noise, tmp_path / "noise.jpg")).read_bytes()[:1500])
    (tmp_path / "end.jpg").write_bytes((tmp_path / "noise.jpg").read_bytes()[:-2])
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html><body>404</body></html>")
    bad = ["empty.png", "text.png", "half.png", "half.jpg", "end.jpg", "page.jpg", "absent.png"]
    names = ["good.png", *bad, "good.png"]
    found = decode_batch(10, [str(tmp_path / name) for name in names], Wanted(16))
    assert found.positions.tolist() == [10, 18]
    assert len(found.images) == 2
    assert found.files == [hashlib.sha256(Path(good).read_bytes()).hexdigest()] * 2
    assert [position for position, _ in found.bad] == [11, 12, 13, 14, 15, 16, 17]


def test_workers_change_nothing_and_keep_the_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 48, 48, 3), np.uint8)
    paths = [saved(Image.fromarray(image), tmp_path / f"{n}.png") for n, image in enumerate(images)]
    (tmp_path / "7.png").write_text("broken")
    alone = list(decode_all(paths, Wanted(400), workers=1))
    shared = list(decode_all(paths, Wanted(400), workers=3, patience=0))
    assert len(alone) == len(shared) > 10
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        assert one[2:5] == other[2:5]
    assert [position for batch in shared for position in batch[0]] == [n for n in range(50) if n != 7]


def test_the_environment_sets_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pool.WORKERS, "5")
    assert pool.worker_count() == 5
    monkeypatch.delenv(pool.WORKERS)
    assert 1 <= pool.worker_count() <= (os.cpu_count() or 1)
    monkeypatch.setenv(pool.WORKERS, "many")
    with pytest.raises(UserError, match="FOLDSTACK_WORKERS is 'many'"):
        pool.worker_count()
