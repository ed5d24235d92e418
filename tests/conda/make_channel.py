"""Make a conda channel of two packages, python and pip: the interpreter that runs this, repackaged.

    python make_channel.py FOLDER

Prints the packages' versions as JSON. Needs py-rattler and patchelf (the program).
"""

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

import pip
from rattler.index import index_fs

#: Left out: other packages, and what no study needs.
SKIPPED = {"site-packages", "test", "tests", "idlelib", "__pycache__", "turtledemo", "lib2to3", "ensurepip"}
BUILD = "local_0"


def build(channel: Path, index: dict, files: dict[str, Path | bytes], links: dict[str, str]) -> None:
    """Write one package: ``files`` by their place in an environment, and ``links`` with what they point to."""
    folder = channel / index["subdir"]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with tarfile.open(
        folder / f"{index['name']}-{index['version']}-{BUILD}.tar.bz2", "w:bz2", compresslevel=1
    ) as archive:

        def add(name: str, content: bytes, mode: int) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, 1_700_000_000
            archive.addfile(entry, io.BytesIO(content))

        for name, source in sorted(files.items()):
            content = source if isinstance(source, bytes) else source.read_bytes()
            executable = name.startswith("bin/") or (isinstance(source, Path) and os.access(source, os.X_OK))
            add(name, content, 0o755 if executable else 0o644)
            paths.append({"_path": name, "path_type": "hardlink", "sha256": hashlib.sha256(content).hexdigest()})
            paths[-1]["size_in_bytes"] = len(content)
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
            paths.append({"_path": name, "path_type": "softlink", "size_in_bytes": 0})
        whole = {**index, "build": BUILD, "build_number": 0, "timestamp": 1_700_000_000_000}
        add("info/index.json", json.dumps(whole).encode(), 0o644)
        add("info/paths.json", json.dumps({"paths": paths, "paths_version": 1}).encode(), 0o644)
        add("info/files", "\n".join(path["_path"] for path in paths).encode(), 0o644)


def python_files(scratch: Path) -> dict[str, Path | bytes]:
    """The interpreter, its library, its headers (torch compiles with them) and the standard library."""
    base, name = Path(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    files: dict[str, Path | bytes] = {}
    for path in (base / "lib" / name).rglob("*"):
        place = path.relative_to(base)
        if path.is_file() and not SKIPPED & {*place.parts}:
            files[str(place)] = path
    for path in (base / "include" / name).rglob("*.h"):
        files[str(path.relative_to(base))] = path
    for path in (base / "lib").glob("libpython*"):
        if path.is_file():
            files[f"lib/{path.name}"] = path
    moved = scratch / name
    shutil.copy(base / "bin" / name, moved)
    subprocess.run(["patchelf", "--set-rpath", "$ORIGIN/../lib", moved], check=True)
    files[f"bin/{name}"] = moved
    files[f"lib/{name}/site-packages/README.txt"] = b"Packages.\n"
    return files


def main(channel: Path) -> None:
    """Make the channel."""
    version, name = sysconfig.get_python_version(), f"python{sysconfig.get_python_version()}"
    full = sys.version.split()[0]
    with tempfile.TemporaryDirectory() as scratch:
        index = {
            "name": "python",
            "version": full,
            "depends": [],
            "subdir": "linux-64",
            "arch": "x86_64",
            "platform": "linux",
        }
        links = {"bin/python": name, "bin/python3": name}
        build(channel, index, python_files(Path(scratch)), links)
    root = Path(pip.__file__).parent
    info = next(root.parent.glob(f"pip-{pip.__version__}.dist-info"))
    files = {
        f"site-packages/{path.relative_to(root.parent)}": path
        for folder in (root, info)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    index = {
        "name": "pip",
        "version": pip.__version__,
        "depends": [f"python >={version}"],
        "subdir": "noarch",
        "noarch": "python",
    }
    build(channel, index, files, {})
    asyncio.run(index_fs(channel))
    print(json.dumps({"python": full, "pip": pip.__version__}))


main(Path(sys.argv[1]))
