"""CIFAR-10 from every place and packing it may come in; the real one where it is at hand."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stages.images.collection import Collection, Data
from stages.images.sources.cifar10 import META, URL, Release, collect
from stages.running.errors import UserError

NAMES = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_FILE = 20
REAL = "FOLDSTACK_CIFAR10"


def batch(number: int) -> bytes:
    """20 records, two of each class; pixel (y, x) of channel c is y + x + 50 c, the first one the file's number."""
    y, x = np.indices((32, 32))
    image = np.stack([y + x, y + x + 50, y + x + 100]).astype(np.uint8)
    image[0, 0, 0] = number
    return b"".join(bytes([n % 10]) + image.tobytes() for n in range(PER_FILE))


FILES = {name: batch(number) for number, name in enumerate(NAMES)} | {META: ("\n".join(CLASSES) + "\n\n").encode()}
SUMS = {name: hashlib.md5(FILES[name]).hexdigest() for name in NAMES}
TOY = Release(batches=SUMS)


def pack(path: Path, mode: str, names: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name in names:
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(FILES[name])
            archive.addfile(entry, io.BytesIO(FILES[name]))
    return path


def unpack(folder: Path, **changed: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(changed.get(name.removesuffix(".bin"), content))
    return folder


def check(collection: Collection) -> None:
    rows = np.arange(6 * PER_FILE)
    read = list(collection.read(rows))
    images = np.concatenate([batch.images for batch in read])
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in read]), rows)
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.repeat(np.arange(6), PER_FILE))
    assert images[7, 3, 4].tolist() == [7, 57, 107]
    assert collection.classes == CLASSES
    assert (collection.paths[0], collection.paths[-1]) == ("data_batch_1.bin:0", f"test_batch.bin:{PER_FILE - 1}")
    assert collection.labels.tolist() == [n % 10 for n in range(PER_FILE)] * 6
    assert collection.test is not None
    assert np.flatnonzero(collection.test).tolist() == list(range(5 * PER_FILE, 6 * PER_FILE))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_of_any_compression_is_read(mode: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "any name", mode, list(FILES))
    check(collect(Data(source="cifar10", path=path), TOY))


def test_an_archive_anywhere_in_the_folder_is_found(tmp_path: Path) -> None:
    pack(tmp_path / "deep" / "cifar-10-binary.tar.gz", "w:gz", list(FILES))
    check(collect(Data(source="cifar10", path=tmp_path), TOY))


def test_several_archives_make_one_dataset(tmp_path: Path) -> None:
    for part, names in enumerate([NAMES[:2], NAMES[2:5], [*NAMES[5:], META]]):
        pack(tmp_path / f"part-{part}.tar.xz", "w:xz", names)
    check(collect(Data(source="cifar10", path=tmp_path), TOY))


@pytest.mark.parametrize("depth", [".", "cifar-10-batches-bin", "a/b"])
def test_an_unpacked_folder_or_its_parent_is_read(depth: str, tmp_path: Path) -> None:
    unpack(tmp_path / depth)
    check(collect(Data(source="cifar10", path=tmp_path), TOY))


def test_any_rows_can_be_read_at_another_size(tmp_path: Path) -> None:
    collection = collect(Data(source="cifar10", path=unpack(tmp_path), image_size=16), TOY)
    rows = np.array([3, 39, 40, 119])
    read = list(collection.read(rows))
    assert np.concatenate([batch.rows for batch in read]).tolist() == rows.tolist()
    assert all(batch.images.shape[1:] == (16, 16, 3) for batch in read)


def test_a_batch_with_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    unpack(tmp_path, data_batch_3=FILES["data_batch_2.bin"])
    with pytest.raises(UserError, match=r"checksum of data_batch_3\.bin is \w{32}, expected " + SUMS[NAMES[2]]):
        collect(Data(source="cifar10", path=tmp_path), TOY)


def test_missing_files_are_named(tmp_path: Path) -> None:
    pack(tmp_path / "half.tar.gz", "w:gz", NAMES[:4])
    with pytest.raises(UserError, match=rf"has no data_batch_5\.bin, test_batch\.bin, {META}"):
        collect(Data(source="cifar10", path=tmp_path), TOY)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_half_an_archive_is_refused(mode: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "half.tar.gz", mode, list(FILES))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half\.tar\.gz is not a whole tar archive"):
        collect(Data(source="cifar10", path=path), TOY)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cifar.tar.gz"
    path.write_text("<html>")
    with pytest.raises(UserError, match="is not a whole tar archive"):
        collect(Data(source="cifar10", path=path), TOY)


def test_an_archive_of_something_else_is_refused_and_not_downloaded(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(unpack(tmp_path / "x") / META, "readme.txt")
    with pytest.raises(UserError, match=r"other\.tar has no data_batch_1\.bin"):
        collect(Data(source="cifar10", path=tmp_path / "other.tar"), TOY)


def test_a_path_that_is_not_there_is_refused_and_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path: .*absent is not there"):
        collect(Data(source="cifar10", path=tmp_path / "absent"), TOY)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOLDSTACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the archive, served on loopback."""
    archive = pack(tmp_path / "mirror" / "cifar-10-binary.tar.gz", "w:gz", list(FILES))
    handler = partial(QuietHandler, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv(URL, f"http://127.0.0.1:{server.server_port}/{archive.name}")
        yield archive
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_an_empty_folder_means_a_download_that_is_kept(tmp_path: Path, cache: Path, mirror: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / ".gitkeep").touch()
    data = Data(source="cifar10", path=tmp_path / "raw")
    release = Release(md5=hashlib.md5(mirror.read_bytes()).hexdigest(), batches=SUMS)
    check(collect(data, release, wait=0))
    mirror.unlink()
    check(collect(data, release, wait=0))
    assert (cache / "cifar-10-binary.tar.gz").exists()


def test_a_downloaded_archive_with_a_wrong_checksum_is_not_kept(tmp_path: Path, cache: Path, mirror: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="md5 checksum"):
        collect(Data(source="cifar10", path=tmp_path / "raw"), TOY, wait=0)
    assert not list(cache.glob("*.tar.gz*[!k]"))


def test_no_network_names_the_other_way(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "http://127.0.0.1:1/cifar-10-binary.tar.gz")
    with pytest.raises(UserError, match=r"^[^\n]*put the archive into [^\n]* \(data\.path\)$"):
        collect(Data(source="cifar10", path=tmp_path), TOY, wait=0)


def real_place() -> Path | None:
    """Where the environment says, or beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "cifar10"
    place = Path(os.environ[REAL]) if REAL in os.environ else beside
    return place if place.exists() else None


@pytest.mark.skipif(real_place() is None, reason=f"CIFAR-10 is not here; ${REAL} may name its folder or archive")
def test_the_real_one_is_whole() -> None:
    place = real_place()
    assert place is not None
    collection = collect(Data(source="cifar10", path=place))
    assert collection.test is not None
    assert collection.classes == CLASSES
    assert np.bincount(collection.labels[~collection.test]).tolist() == [5000] * 10
    assert np.bincount(collection.labels[collection.test]).tolist() == [1000] * 10
    read = list(collection.read(np.arange(60_000)))
    assert sum(len(batch.images) for batch in read) == 60_000
    training = np.concatenate([batch.images for batch in read if batch.rows[0] < 50_000])
    # mean of each channel over the training set, as published with many models
    np.testing.assert_allclose(training.mean(axis=(0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)
