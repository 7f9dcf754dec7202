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
"""Suffixes of files that lie beside crops and are known not to be images. A file of any other name is tried."""


class InvalidPath(ValueError):
    """A name from outside that cannot be the relative path of a file. The text is fit to be shown."""


def relative_path(name: str) -> str:
    """Return a name from an archive, a folder or a manifest as a relative path in NFC with single forward slashes.

    Two writers may spell one name differently: backslashes, composed or decomposed accents and ``.`` parts make no
    difference. A byte that is not UTF-8 (``surrogateescape``) becomes ``%`` and its two digits.

    Raises:
        InvalidPath: it is absolute, leads upwards, is too long, empty, or has control characters.
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
        raise InvalidPath("it has no name")
    return "/".join(parts)


def ignored_because(path: str, *, folder: bool = False) -> str | None:
    """Return why the file (or folder) at ``path`` is not a crop and is ignored; None if it is to be read."""
    *folders, name = path.casefold().split("/")
    if folder:
        folders.append(name)
    if any(part in _SYSTEM_FOLDERS for part in folders):
        return "in a system folder"
    if not folder and name in _SYSTEM_FILES:
        return "system file"
    if any(part.startswith(".") for part in (*folders, name)):
        return "hidden file or folder"
    suffix = name[name.rfind(".") :] if "." in name else ""
    if not folder and suffix in _OTHER_SUFFIXES and name not in MANIFEST_NAMES:
        return f"not an image by its suffix {suffix}"
    return None


def may_hide_crops(reason: str) -> bool:
    """Whether what is ignored for this reason may hold crops that somebody expects to be read."""
    return reason in _HIDING_CROPS


def is_manifest(path: str) -> bool:
    """Whether the file at ``path`` is a manifest, in any folder and any letter case."""
    return path.rpartition("/")[2].casefold() in MANIFEST_NAMES


def id_of(path: str) -> str:
    """Return the item id of a relative path: one path always has one id, and two paths never share one.

    Slashes become colons. A path that is too long for an id, or has characters that ids cannot have, ends in a hash of
    itself.
    """
    plain = path.replace("/", ":")
    if len(plain) <= _LONGEST_ID and not any(_NOT_IN_ID.search(part) for part in path.split("/")):
        return plain
    return _with_mark(re.sub(r"[^A-Za-z0-9._:-]", "_", plain), path.encode("utf-8", "surrogatepass"), 16)


def apart_id(id: str, content: str) -> str:
    """Return the id under which ``content`` (a digest) is stored beside another item that has ``id``."""
    return _with_mark(id, content.encode(), 8)


def display_name(name: str) -> str:
    """Return a name from outside fit for a list: unprintable characters are replaced, long names are cut."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:_LONGEST_DISPLAY_NAME])


def _with_mark(id: str, content: bytes, digits: int) -> str:
    mark = "." + hashlib.sha256(content).hexdigest()[:digits]
    return id[: _LONGEST_ID - len(mark)] + mark
