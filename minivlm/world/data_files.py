"""Small files that the world reads, in `data/` of the checkout."""

import hashlib
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"


def data_file(name: str) -> Path:
    """Where a file of `data/` lies: `data_file("digits/digits.npz")`.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = DATA / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. It comes with the checkout of the project; the package alone does not hold it."
            f" Get it back with: git checkout -- data/{name}"
        )
    return path


def read_data(name: str, sha256: str) -> bytes:
    """The bytes of a file of `data/`.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is there, but its hash is not `sha256`.
    """
    path = data_file(name)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is damaged or another version: its sha256 is {found}, expected was {sha256}."
            f" Get it back with: git checkout -- data/{name}"
        )
    return content
