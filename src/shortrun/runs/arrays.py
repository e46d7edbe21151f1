"""Arrays from an .npz file that anybody may have written: numbers alone, no larger than the caller allows.

numpy's own reader believes what a header says, and a compressed member can be a thousand times its size.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from shortrun.limits import regular_size

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path: Path, kinds: Mapping[str, str], most: int) -> dict[str, NDArray[Any]]:
    """Some arrays of a file, each of its kind ("f" floats, "i" whole numbers), of at most `most` bytes together.

    Raises OSError and ValueError, KeyError where one is missing.
    """
    regular_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.getinfo(f"{name}.npy") for name in kinds}
            if sum(member.file_size for member in members.values()) > most:
                raise ValueError(f"its arrays have more than {most:,} bytes")
            found = {}
            for name, member in members.items():
                with archive.open(member) as file:
                    found[name] = _array(file, member.file_size)
                if found[name].dtype.kind != kinds[name]:
                    raise ValueError(f"{name} holds {found[name].dtype}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ValueError(f"it is no whole .npz file: {error}") from None
    return found


def _array(file: IO[bytes], size: int) -> NDArray[Any]:
    """One member, which says that it has `size` bytes and can't be read beyond them."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"it is an array of format {version}")
    shape, in_columns, dtype = HEADERS[version](file)
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"it holds {dtype}, not numbers")
    count = math.prod(shape)
    if any(length < 0 for length in shape) or count * dtype.itemsize > size:
        raise ValueError(f"its header says {shape}, which is more than there is")
    content = bytearray(file.read(count * dtype.itemsize))  # not bytes, which no array may write to
    return np.frombuffer(content, dtype, count).reshape(shape, order="F" if in_columns else "C")
