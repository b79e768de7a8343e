"""What DVC itself makes of odd paths, links and places: where an upgrade changes it, docs/images.md is wrong."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides, to_hydra_overrides
from hydra.errors import OverrideParseException

from stages.admitting import handout
from stages.images.dataset import read_index
from tests import repositories
from tests.repositories import JOB, Repository, fails, of_photos, ran, write_photos

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
PLAIN = ["/data/my images", "a:b", "100%", "C:\\data", "a+b@c", "a*b", ".hidden/a-b_c.d", "007"]
QUOTED = [
    "images (1)",
    "it's",
    "a=b",
    "фото",
    COMPOSED,
    DECOMPOSED,
    "~/x",
    "a#b",
    "a&b",
    "a!b",
    "a[1]",
    "{a}",
    'say "x"',
]
READ_OTHERWISE = {"a,b": "a sweep", "[a]": ["a"], "1e3": 1000.0, " lead": "lead", "null": None}


def set_by_dvc(folder: Path, value: str) -> object:
    """What `dvc exp run -S data.path=<value>` writes into a params.yaml, or that it would be several runs."""
    file, text = folder / "params.yaml", f"data.path={value}"
    file.write_text("data: {path: data/raw}\n")
    if to_hydra_overrides([text])[0].is_sweep_override():
        return "a sweep"
    apply_overrides(file, [text])
    return yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["path"]


def quoted(path: str) -> str:
    """As docs/images.md says, what the shell takes away already taken away."""
    return "'{}'".format(path.replace("'", "\\'"))


@pytest.mark.parametrize("path", PLAIN)
def test_a_path_of_plain_letters_needs_no_quotes_of_its_own(path: str, tmp_path: Path) -> None:
    assert set_by_dvc(tmp_path, path) == path


@pytest.mark.parametrize("path", QUOTED)
def test_a_path_with_other_signs_is_refused_without_quotes_of_its_own(path: str, tmp_path: Path) -> None:
    with pytest.raises((OverrideParseException, InvalidArgumentError)):
        set_by_dvc(tmp_path, path)


@pytest.mark.parametrize(("path", "read"), READ_OTHERWISE.items())
def test_a_path_may_be_read_as_something_else_without_quotes_of_its_own(
    path: str, read: object, tmp_path: Path
) -> None:
    assert set_by_dvc(tmp_path, path) == read


@pytest.mark.parametrize("path", [*PLAIN, *QUOTED, *READ_OTHERWISE])
def test_any_path_arrives_in_quotes_of_its_own(path: str, tmp_path: Path) -> None:
    assert set_by_dvc(tmp_path, quoted(path)) == path


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with two classes of images, é in both spellings, under DVC; nothing has run."""
    repository = repositories.new(tmp_path_factory.mktemp("start"), of_photos(COMPOSED))
    for name in (COMPOSED, DECOMPOSED):
        write_photos(repository.folder / name, names=(f"{COMPOSED} 1", f"{DECOMPOSED} 2"))
    repository.run("dvc", "add", COMPOSED, DECOMPOSED)
    repository.commit("images")
    return repository


def test_an_odd_path_reaches_split_by_an_experiment(start: Repository, tmp_path: Path) -> None:
    repository, folder = start.copy(tmp_path), tmp_path / "дом (1), it's a=b"
    write_photos(folder)
    said = fails(repository, "dvc", "exp", "run", "-S", f"data.path={folder}", "split")
    assert "LexerNoViableAltException: data.path=" in said
    assert repository.run("git", "status", "--porcelain") == ""
    assert ran(repository.run("dvc", "exp", "run", "-S", f"data.path={quoted(str(folder))}", "split")) == ["split"]
    assert yaml.safe_load((repository.folder / "params.yaml").read_text(encoding="utf-8"))["data"]["path"] == str(
        folder
    )


def test_a_comma_means_several_runs(start: Repository, tmp_path: Path) -> None:
    repository = start.copy(tmp_path)
    said = fails(repository, "dvc", "exp", "run", "-S", "data.path=one,two", "split")
    assert "Sweep overrides can't be used without `--queue`" in said
    repository.run("dvc", "exp", "run", "--queue", "-S", "data.path=one,two", "split")
    assert repository.run("dvc", "queue", "status").count("Queued") == 2


@pytest.mark.parametrize("name", [COMPOSED, DECOMPOSED])
def test_images_and_classes_with_accents_reach_a_copy_in_either_spelling(
    name: str, start: Repository, tmp_path: Path
) -> None:
    repository = start.copy(tmp_path)
    repository.set(of_photos(name))
    output = repository.run("dvc", "exp", "run", "--temp", "-S", "seed=3", "split")
    assert ran(output) == ["split"]
    assert f"2 classes of 6 to 7 training images: {COMPOSED} 1, {COMPOSED} 2" in output


@pytest.mark.parametrize("name", [COMPOSED, DECOMPOSED])
def test_below_a_folder_with_accents_copies_need_a_cache_elsewhere(
    name: str, start: Repository, tmp_path: Path
) -> None:
    repository = start.copy(tmp_path / name)
    assert ran(repository.run("dvc", "exp", "run", "-S", "seed=2", "split")) == ["split"]
    said = fails(repository, "dvc", "exp", "run", "--temp", "-S", "seed=3", "split")
    assert "unexpected error - 'ascii' codec can't encode character" in said
    repository.run("mv", ".dvc/cache", str(tmp_path / "cache"))
    repository.run("dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    assert ran(repository.run("dvc", "exp", "run", "--temp", "-S", "seed=3", "split")) == ["split"]


@pytest.fixture
def unpacked(start: Repository, tmp_path: Path) -> Repository:
    """As a ZIP of the files leaves it: without .git, below no repository."""
    repository = start.copy(tmp_path)
    shutil.rmtree(repository.folder / ".git")
    repository.set(JOB | {"backbones": {"slim": JOB["backbones"]["slim"]}})
    return repository


def test_without_git_make_says_what_to_do_and_that_works(unpacked: Repository) -> None:
    assert f"ERROR: {unpacked.folder} is not a git repository" in fails(unpacked, "dvc", "repro")
    make = ("make", "--old-file=setup", "repro", "JOBS=1")
    said = fails(unpacked, *make)
    assert said.startswith("error: no Git repository, as after a download as ZIP, and DVC needs one: `git init")
    unpacked.run("sh", "-c", said.split("`")[1])
    assert "report" in ran(unpacked.run(*make))
    assert ran(unpacked.run("dvc", "exp", "run", "-S", "seed=1", "split")) == ["split"]


def test_without_git_all_runs_where_dvc_is_told_so(unpacked: Repository) -> None:
    assert "'.dvc' exists" in fails(unpacked, "dvc", "init", "--no-scm")
    unpacked.run("dvc", "config", "--local", "core.no_scm", "true")
    assert "report" in ran(unpacked.run("make", "--old-file=setup", "repro", "JOBS=1"))
    assert unpacked.json("metrics/costs/slim.json")["commit"] == ""
    assert "Only supported for Git repositories" in fails(unpacked, "dvc", "exp", "run", "-S", "seed=1", "split")


@pytest.mark.skipif(os.getuid() != 0, reason="root alone may give files to another user")
def test_in_a_clone_of_another_user_experiments_wait_for_gits_permission(start: Repository, tmp_path: Path) -> None:
    repository = start.copy(tmp_path)
    repository.environment["HOME"] = str(tmp_path)  # without what this machine's Git permits
    repository.set(JOB | {"backbones": {"slim": JOB["backbones"]["slim"]}})
    repository.commit("digits")
    repository.run("chown", "-R", "12345:12345", ".")
    assert "dubious ownership" in fails(repository, "git", "status")
    assert "report" in ran(repository.run("dvc", "repro"))
    assert repository.json("metrics/costs/slim.json")["commit"] == ""
    experiment = ("dvc", "exp", "run", "-S", "seed=1", "split")
    assert f"repository path '{repository.folder}' is not owned by current user" in fails(repository, *experiment)
    repository.run("git", "config", "--global", "--add", "safe.directory", str(repository.folder))
    assert ran(repository.run(*experiment)) == ["split"]


@pytest.mark.parametrize("link", ["9.png", "more"])
@pytest.mark.parametrize("source", ["folder", "table"])
def test_dvc_names_a_link_that_leads_nowhere(source: str, link: str, start: Repository, tmp_path: Path) -> None:
    repository = start.copy(tmp_path)
    write_photos(repository.folder / "images")
    broken = repository.folder / "images/train/cat" / link
    broken.symlink_to(tmp_path / "unmounted")
    rows = ["image,label"] + [f"train/{name}/{n}.png,{name}" for name in ("cat", "dog") for n in range(8)]
    (repository.folder / "images/images.csv").write_text("\n".join(rows))
    data = {"source": source, "path": "images", "image_size": 8, "skip_unreadable": True}
    repository.set(JOB | {"data": data})
    for command in (("repro", "split"), ("add", "images")):
        said = fails(repository, "dvc", *command)
        assert f"No such file or directory: '{broken}'" in said or f"'images/train/cat/{link}'" in said, said
    broken.unlink()
    assert ran(repository.run("dvc", "repro", "split")) == ["split"]


def test_predictions_made_elsewhere_are_a_dependency_like_any_other(tmp_path: Path) -> None:
    """Inside the repository and outside: a file that changed, and no other, is read again."""
    repository = repositories.new(tmp_path, JOB)
    repository.run("dvc", "repro", "split")
    index = read_index(repository.folder / "data/index.parquet")
    p = np.full((len(index), 10), 0.05) + 0.5 * np.eye(10)[index.label[handout.order(index)]]
    names = [f"p.{label}" for label in range(10)]
    table = pd.concat([handout.table(index)[["row", "sha256"]], pd.DataFrame(p, columns=names)], axis=1)
    inside, outside = repository.folder / "ours.csv", tmp_path / "theirs.parquet"
    table.to_csv(inside)
    table.to_parquet(outside)
    repository.set(JOB | {"stack": {"external": {"ours": "ours.csv", "theirs": str(outside)}}})
    names = ["admit@ours", "admit@theirs"]
    assert ran(repository.run("dvc", "repro", *names)) == names
    table[::-1].to_parquet(outside)
    assert list(json.loads(repository.run("dvc", "status", "--json", *names))) == ["admit@theirs"]


FIND = """cd .dvc/cache/files/md5 && find . -type f | while read -r file; do
  name=${file#./} name=${name%.dir}
  [ "$(md5sum < "$file" | cut -c-32)" = "${name/\\//}" ] || echo ".dvc/cache/files/md5/$file"
done"""
"""As docs/faults.md has it."""


SAID = ("had been killed. Auto removed it from the lock file", "JSON structure is corrupted")
INVALID = "'./dvc.lock' validation failed"


def test_the_docs_have_what_dvc_says_and_the_commands_that_are_tried_here() -> None:
    text = (repositories.ROOT / "docs/faults.md").read_text(encoding="utf-8")
    commands = ("rm .dvc/tmp/rwlock", "git checkout dvc.lock", *FIND.splitlines())
    assert [words for words in (*SAID, INVALID, *commands) if words not in text] == []


def change(path: Path, *, unseen: bool) -> None:
    """Another bit in place. `unseen`: with the time that it had."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    if unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.exhaustive
def test_what_dvc_notices_of_damage_and_what_it_does_not(tmp_path: Path) -> None:
    repository = repositories.new(tmp_path, JOB | {"backbones": {"slim": JOB["backbones"]["slim"]}})
    repository.run("dvc", "repro", "export@slim")
    file = repository.folder / "models/slim/fold-0/weights.safetensors"
    whole, export = file.read_bytes(), ("dvc", "repro", "--single-item", "--force", "export@slim")
    refused = "models/slim/fold-0 is damaged: weights.safetensors is not what was written; remove models/slim"

    change(file, unseen=False)
    assert "train@slim" in repository.outdated()
    assert ran(repository.run("dvc", "repro", "export@slim")) == []
    assert file.read_bytes() == whole, "from its cache"

    change(file, unseen=True)
    assert "train@slim" not in repository.outdated()
    assert refused in fails(repository, *export)
    shutil.rmtree(file.parents[1])
    repository.run("dvc", "repro", "train@slim")
    assert file.read_bytes() == whole

    found = hashlib.md5(whole).hexdigest()
    cached = repository.folder / ".dvc/cache/files/md5" / found[:2] / found[2:]
    change(cached, unseen=False)
    shutil.rmtree(file.parents[1])
    repository.run("dvc", "checkout", "models/slim")
    assert file.read_bytes() != whole, "its cache is taken at its word"
    assert "train@slim" not in repository.outdated()
    repository.run("dvc", "repro", "--single-item", "--force", "train@slim")
    assert file.read_bytes() != whole, "even over what was just trained"
    assert refused in fails(repository, *export)
    named = repository.run("bash", "-c", FIND).strip()
    assert (repository.folder / named).samefile(cached)
    (repository.folder / named).unlink()
    shutil.rmtree(file.parents[1])
    repository.run("dvc", "repro", "train@slim")
    assert file.read_bytes() == whole
    repository.run(*export)


@pytest.mark.exhaustive
def test_what_a_kill_may_leave_of_dvcs_own_files_is_removed_as_the_docs_say(tmp_path: Path) -> None:
    repository = repositories.new(tmp_path, JOB | {"backbones": {"slim": JOB["backbones"]["slim"]}})
    command = ("dvc", "repro", "export@slim")
    repository.run(*command)
    locked, again = repository.locked(), ("dvc", "repro", "--single-item", "--force", "train@slim")
    rwlock, lock = repository.folder / ".dvc/tmp/rwlock", repository.folder / "dvc.lock"

    def held(pid: int) -> str:
        return json.dumps(
            {"write": {str(repository.folder / "models/slim"): {"pid": pid, "cmd": "dvc repro"}}, "read": {}}
        )

    rwlock.write_text(held(2**22 + 1))  # beyond what Linux gives
    removed, corrupted = SAID
    assert removed in repository.run(*again)
    for content, said in (
        (held(os.getpid()), f"(PID {os.getpid()}): dvc repro"),
        ('{"re', corrupted),
    ):
        rwlock.write_text(content)
        assert said in fails(repository, *again)
        rwlock.unlink()
        repository.run(*again)
    lock.write_text("")
    assert INVALID in fails(repository, *command)
    lock.unlink()
    assert "train@slim" not in ran(repository.run(*command)), "from the cache"
    assert repository.locked() == locked
