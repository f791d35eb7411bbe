"""A geometry that somebody else described in a GDML file, with the volumes in it whose deposits are recorded.

The file's world is Geant4's world. The front face of the calorimeter is the plane z = ``front`` of the file; it becomes
z = 0 of the library, and x = y = 0 stays the axis. `calograd.read_geometry` makes a `Geometry` of a file, with Geant4.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from calograd.detector.material import Material
from calograd.errors import InputError
from calograd.io.toml import Table

Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Least and largest x, y and z, cm."""

SHOWN = 12
"""Number of digits of a digest that messages show."""
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_INCLUDED = re.compile(
    rb"""<!ENTITY\s+\S+\s+SYSTEM\s+["']([^"']+)["']|<file\s(?:[^>]*\s)?name\s*=\s*["']([^"']+)["']"""
)
_SETUP = re.compile(rb"""<setup\s(?:[^>]*\s)?name\s*=\s*["']([^"']+)["']""")


class Geometry(Table):
    """The geometry of a GDML file; use `calograd.read_geometry`.

    ``digest`` names the contents of the file. A simulation refuses a file that has other contents by now.
    """

    kind: Literal["gdml"] = "gdml"
    file: str
    """The GDML file, with its folder."""
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the bytes of the file, followed by those of the files that it includes."""
    sensitive: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Names of the logical volumes in which deposits are recorded, without the pointers that GDML adds to names."""
    front: float = 0.0
    """z of the calorimeter's front face in the file's world, cm."""
    material: Material
    """Material that the showers are said to be of; that of the sensitive volumes if nothing else was given."""
    elements: Annotated[tuple[str, ...], Field(min_length=1)]
    """Symbols of all elements in the file."""
    world: Box
    """Bounds of the file's world in the frame of the library, whose front face is z = 0; cm."""
    extent: Box
    """Bounds of the sensitive volumes in the frame of the library, cm."""

    @property
    def name(self) -> str:
        """Name of the file, without its folder."""
        return Path(self.file).name

    def check_file(self) -> None:
        """Raise `InputError` if the file is missing or has changed since the geometry was read."""
        found = digest_of(Path(self.file))
        if found != self.digest:
            raise InputError(
                f"the geometry {self.file} has changed since it was read: its SHA-256 is {found[:SHOWN]}..., was "
                f"{self.digest[:SHOWN]}...; restore the file, or begin another library"
            )


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a GDML file, followed by the files that it includes, as hexadecimal digits.

    A file without others has the digest that ``sha256sum`` prints. Includes are the external entities of XML and the
    files of modules (``<file name="..."/>``). Their names are relative to the folder of the first file.

    Raises:
        InputError: a file that is missing, or ``file`` is no GDML.
    """
    contents = _read(file, "expected a GDML file")
    if b"<gdml" not in contents:
        raise InputError(f"{file} is no GDML file; expected XML with the element <gdml>")
    digest, seen, waiting = hashlib.sha256(), {file.absolute()}, [contents]
    while waiting:
        contents = waiting.pop(0)
        digest.update(contents)
        for entity, module in _INCLUDED.findall(_COMMENT.sub(b"", contents)):
            name = (entity or module).decode(errors="replace")
            path = file.absolute().parent / name
            if path not in seen:
                seen.add(path)
                waiting.append(_read(path, f"{file} includes it as '{name}'"))
    return digest.hexdigest()


def setup_of(file: Path) -> str:
    """Return the name of the first setup of a GDML file, which names its world; ``Default`` if the file has none."""
    found = _SETUP.search(_COMMENT.sub(b"", _read(file, "expected a GDML file")))
    return found[1].decode(errors="replace") if found else "Default"


def _read(file: Path, why: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); {why}") from error
