"""Names of crop files: which files are read, which are ignored and why, and the item id of a path.

One rule for every reader of folders and archives: imports of the server, folder uploads of the client, datasets of
training. Needs the standard library only.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

__all__ = [
    "BROKEN_LINK",
    "DEEPEST_FOLDER",
    "IMAGE_SUFFIXES",
    "LINKED_FOLDER",
    "LONGEST_PATH",
    "LOOPING_LINK",
    "MANIFEST_NAMES",
    "NESTED_TOO_DEEPLY",
    "UNREADABLE_FILE",
    "UNREADABLE_FOLDER",
    "InvalidPath",
    "apart_id",
    "display_name",
    "id_of",
    "ignored_because",
    "is_manifest",
    "may_hide_crops",
    "of_system_because",
    "relative_path",
]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""Suffixes of image files, in lower case."""

MANIFEST_NAMES = ("manifest.csv", "manifest.jsonl")
"""File names, in lower case, of the manifest that describes the crops below its folder."""

LONGEST_PATH = 1024
"""Characters of a path."""

DEEPEST_FOLDER = 200
"""Folders in folders that are read."""

UNREADABLE_FOLDER = "unreadable folder"
UNREADABLE_FILE = "unreadable file"
BROKEN_LINK = "broken link"
LINKED_FOLDER = "link to a folder, which is not followed"
LOOPING_LINK = "link to a folder that contains it"
NESTED_TOO_DEEPLY = "folder nested too deeply"

_HIDING_CROPS = frozenset({UNREADABLE_FOLDER, UNREADABLE_FILE, BROKEN_LINK, LINKED_FOLDER, NESTED_TOO_DEEPLY})
_LONGEST_ID = 128
_LONGEST_DISPLAY_NAME = 256
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9._-]")
_DRIVE = re.compile(r"[A-Za-z]:")
_STRAY_BYTE = re.compile("[\udc80-\udcff]")

_SYSTEM_FOLDERS = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle", "@sharebin", "@sharesnap",
        "@synoeastream", "@synoresource", "@tmp", "__macosx", "lost+found", "network trash folder", "recycled",
        "recycler", "system volume information", "temporary items", "~snapshot",
    }
)  # fmt: skip
_SYSTEM_FILES = frozenset(
    {
        "$logfile", "$mft", "desktop.ini", "ehthumbs.db", "ehthumbs_vista.db", "folder.htt", "icon\r", "picasa.ini",
        "synophoto_thumb_xl.jpg", "thumbs.db", "thumbs.db:encryptable",
    }
)  # fmt: skip
_OTHER_SUFFIXES = frozenset(
    {
        ".avi", ".bak", ".cfg", ".csv", ".db", ".doc", ".docx", ".htm", ".html", ".ini", ".json", ".jsonl", ".lnk",
        ".log", ".m", ".mat", ".md", ".md5", ".mkv", ".mov", ".mp4", ".npy", ".npz", ".onnx", ".pdf", ".pkl", ".pptx",
        ".pt", ".pth", ".py", ".rst", ".rtf", ".sh", ".sha256", ".tmp", ".toml", ".tsv", ".txt", ".url", ".xls",
        ".xlsx", ".xml", ".yaml", ".yml",
    }
)  # fmt: skip
"""Suffixes of other files that are common beside crops. A file with any other suffix is tried as an image."""


class InvalidPath(ValueError):
    """An external name that is not a valid relative path of a file. The message may be shown to users."""


def relative_path(name: str) -> str:
    """Normalise a name from an archive, a folder or a manifest to a relative path in NFC with single forward slashes.

    Backslashes, decomposed accents and ``.`` parts are normalised: they do not distinguish two paths. A byte that is
    not UTF-8 (``surrogateescape``) becomes ``%`` and its two hexadecimal digits.

    Raises:
        InvalidPath: it is absolute, too long, empty, or contains ``..`` or control characters.
    """
    name = _STRAY_BYTE.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", name)
    if len(name) > LONGEST_PATH:
        raise InvalidPath(f"its path has {len(name):,} characters; at most {LONGEST_PATH:,} are taken")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise InvalidPath("its path has control characters")
    path = unicodedata.normalize("NFC", name.replace("\\", "/"))
    if path.startswith("/") or (_DRIVE.match(path) and path[2:3] == "/"):
        raise InvalidPath("its path is absolute; paths below the archive are taken")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidPath("its path leads out of the archive")
    if not parts:
        raise InvalidPath("its path is empty")
    return "/".join(parts)


def of_system_because(path: str, *, folder: bool = False) -> str | None:
    """Return why the file (or folder) at ``path`` is hidden or written by a system or NAS box; None if it is not."""
    *folders, name = path.casefold().split("/")
    if folder:
        folders.append(name)
    if any(part in _SYSTEM_FOLDERS for part in folders):
        return "in a system folder"
    if not folder and name in _SYSTEM_FILES:
        return "system file"
    if any(part.startswith(".") for part in (*folders, name)):
        return "hidden file or folder"
    return None


def ignored_because(path: str, *, folder: bool = False) -> str | None:
    """Return why the file (or folder) at ``path`` is ignored; None if it is to be read."""
    if folder or of_system_because(path):
        return of_system_because(path, folder=folder)
    name = path.casefold().rpartition("/")[2]
    suffix = name[name.rfind(".") :] if "." in name else ""
    if suffix in _OTHER_SUFFIXES and name not in MANIFEST_NAMES:
        return f"not an image by its suffix {suffix}"
    return None


def may_hide_crops(reason: str) -> bool:
    """Return whether entries ignored for this reason may contain crops that a user expects to be read."""
    return reason in _HIDING_CROPS


def is_manifest(path: str) -> bool:
    """Return whether the file at ``path`` is a manifest, in any folder and any letter case."""
    return path.rpartition("/")[2].casefold() in MANIFEST_NAMES


def id_of(path: str) -> str:
    """Return the item id of a relative path: the same for equal paths, different for different ones.

    Slashes are replaced by colons. If the path is too long for an id or has characters that ids cannot have, the id
    ends in a hash of the path.
    """
    plain = path.replace("/", ":")
    if len(plain) <= _LONGEST_ID and not any(_NOT_IN_ID.search(part) for part in path.split("/")):
        return plain
    return _with_mark(re.sub(r"[^A-Za-z0-9._:-]", "_", plain), path.encode("utf-8", "surrogatepass"), 16)


def apart_id(id: str, content: str) -> str:
    """Return the id of an item with the digest ``content`` whose own ``id`` is taken by another item."""
    return _with_mark(id, content.encode(), 8)


def display_name(name: str) -> str:
    """Return an external name for display: unprintable characters are replaced, long names are truncated."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:_LONGEST_DISPLAY_NAME])


def _with_mark(id: str, content: bytes, digits: int) -> str:
    mark = "." + hashlib.sha256(content).hexdigest()[:digits]
    return id[: _LONGEST_ID - len(mark)] + mark
