"""The commands around the server: start it, fill it, ask it, look after it."""

from __future__ import annotations

import logging
import logging.config
import re
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import numpy as np
import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from vireid import keeping, managing
from vireid.client import (
    DEFAULT_URL,
    CropWarning,
    Filter,
    Hit,
    ItemFields,
    SearchAnswer,
    SearchOptions,
)
from vireid.indexing import Labels, Outcome, find_images, upload
from vireid.terminal import (
    Gallery,
    Key,
    Light,
    Url,
    connected,
    counting,
    err,
    naming,
    out,
    require_gallery,
    stop,
    table,
)

if TYPE_CHECKING:
    from server.settings import Settings

__all__ = ["app"]

_PANEL = "Serving"
_PATIENCE = 100  # retries of an import, which may wait as long as others keep the server busy

app = typer.Typer()

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", exists=True, dir_okay=False, help="JPEG, PNG, WebP or BMP files.")
]


@app.command(rich_help_panel=_PANEL)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; stands for VIREID_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0: a free one; stands for VIREID_PORT.")] = None,
) -> None:
    """Start the server. Its settings are environment variables with the prefix VIREID_."""
    with _extra_installed():
        from vireid.hosting import START_ERRORS, Host, InferenceDied, log_config, logging_aside
    settings = _settings(host=host, port=port)
    try:
        server = Host(settings)
        logging.config.dictConfig(log_config(lines_for_people=sys.stderr.isatty()))
        signal.signal(signal.SIGTERM, _leave)
        with logging_aside():
            server.run(lambda: out.print(f"vireid serves {server.url}/; Ctrl-C stops it", soft_wrap=True))
    except START_ERRORS as error:
        stop(f"the server cannot start: {error or type(error).__name__}", 2)
    except InferenceDied as error:
        stop(f"the server has ended: {error}; its log says why. Start it again", 1)
    except KeyboardInterrupt:
        err.print("stopped")


@app.command(rich_help_panel=_PANEL)
def demo(
    people: Annotated[int, typer.Option(min=2, max=200, help="People to draw.")] = 24,
    picture: Annotated[
        Path, typer.Option("--out", dir_okay=False, help="Picture of queries and hits to write, PNG.")
    ] = Path("vireid-demo.png"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave all as it is, to go on with the page.")] = False,
    url: Annotated[str | None, typer.Option(help="A running server to use instead of one of its own.")] = None,
    key: Key = None,
) -> None:
    """Draw people, index their infrared crops, and search them with visible ones."""
    from vireid import demo as play

    with (
        tempfile.TemporaryDirectory(prefix="vireid-demo-") as folder,
        nullcontext(url) if url else _own_server(Path(folder)) as address,
        connected(address, key) as client,
    ):
        with err.status(f"drawing, indexing and searching {people} people …"):
            result = play.enact(client, people, keep=keep)
        out.print(play.table(result))
        out.print(result.verdict)
        play.draw(result).save(picture, "PNG")
        out.print(f"Picture of these queries and hits: {picture}", soft_wrap=True)
        if not keep:
            out.print("Nothing is left behind; with --keep you can go on with the page.")
            return
        out.print(f"Open {address}/ in a browser and choose the gallery {result.gallery}.", soft_wrap=True)
        if url is None:
            crops = play.write_queries(result, Path(folder) / "crops")
            out.print(f"Crops to drop there: {crops}\nCtrl-C ends the server and takes all away.", soft_wrap=True)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


@app.command(rich_help_panel=_PANEL)
def index(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder of crops, of any depth.")
    ],
    gallery: Gallery,
    modality: Light = "auto",
    camera_pattern: Annotated[
        str | None, typer.Option(help="Regular expression; its first group, in the path below DIR, is the camera.")
    ] = None,
    identity_pattern: Annotated[str | None, typer.Option(help="The same for the identity.")] = None,
    create: Annotated[bool, typer.Option(help="Create the gallery if it is missing.")] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Send again what is there already.")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests at a time.")] = 4,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Add a folder of crops to a gallery. Run it again after an interruption: it goes on where it stopped.

    The id of an item is its path below DIR with colons for slashes.
    """
    labels = Labels(modality, _pattern(camera_pattern), _pattern(identity_pattern))
    paths = find_images(folder)
    if not paths:
        stop(f"there is no image below {folder}", 1)
    files = [(path, labels.of(path.relative_to(folder).as_posix())) for path in paths]
    _warn_of_gaps(labels, [fields for _, fields in files])
    with connected(url, key, retries=_PATIENCE) as client:
        require_gallery(client, gallery, create)
        if not replace:
            known = {item.id for item in client.items(gallery)}
            files = [(path, fields) for path, fields in files if fields.id not in known]
        outcomes: list[Outcome] = []
        try:
            with counting("images") as progress:
                task = progress.add_task("indexing", total=len(paths), completed=len(paths) - len(files))
                for done in upload(client, gallery, files, parallel=parallel):
                    outcomes += done
                    progress.advance(task, len(done))
        except KeyboardInterrupt:
            err.print("interrupted; run the same command again to go on")
            raise typer.Exit(130) from None
        finally:
            _report(gallery, outcomes, len(paths) - len(files))
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


@app.command(rich_help_panel=_PANEL)
def search(
    images: Images,
    gallery: Gallery,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits to ask for.")] = 10,
    modality: Light = "auto",
    among: Annotated[
        Literal["visible", "infrared", "opposite"] | None,
        typer.Option(help="Search among these crops only; opposite: of the modality that the query is not of."),
    ] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera; may be repeated.")] = None,
    exclude_camera: Annotated[list[str] | None, typer.Option(help="Not this camera; may be repeated.")] = None,
    exclude_identity: Annotated[list[str] | None, typer.Option(help="Not this identity; may be repeated.")] = None,
    exclude_warning: Annotated[
        list[CropWarning] | None, typer.Option(help="No crop with this warning; may be repeated.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(min=-1, max=1, help="Only hits with at least this score.")] = None,
    fusion: Annotated[
        Literal["mean", "max"], typer.Option(help="How several images of the person make one ranking.")
    ] = "mean",
    group: Annotated[bool, typer.Option("--group", help="One row for each identity.")] = False,
    rerank: Annotated[bool, typer.Option("--rerank", help="Order the best 100 by their neighbours too.")] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Look at every crop, also where the server would approximate.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The server's answer as JSON.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Find the person of one or more crops in a gallery."""
    where = Filter(
        modality=among,
        cameras=tuple(camera) if camera else None,
        exclude_cameras=tuple(exclude_camera) if exclude_camera else None,
        exclude_identities=tuple(exclude_identity) if exclude_identity else None,
        exclude_warnings=tuple(exclude_warning) if exclude_warning else None,
    )
    options: SearchOptions = {
        "filter": where,
        "fusion": fusion,
        "group_by": "identity" if group else None,
        "rerank": rerank,
        "min_score": min_score,
        "exact": exact,
    }
    with connected(url, key) as client, naming(images):
        options["k"] = k if group or rerank else min(k, client.limits().max_k)
        answer = client.search(gallery, images, modality=modality, **options)
        while answer.next_cursor is not None and len(answer.hits) < k:
            options["cursor"], options["k"] = answer.next_cursor, min(k - len(answer.hits), options["k"])
            more = client.search(gallery, images, modality=modality, **options)
            answer = more.model_copy(update={"hits": answer.hits + more.hits})
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
        return
    light = " and ".join(sorted(set(answer.modality)))
    took = f"{answer.timing_ms.total:.0f} ms, model {answer.model}"
    share = "" if answer.recall is None else f", about {answer.recall:.1%} of the nearest"
    out.print(f"{light} query among {answer.searched:,} items of {answer.gallery}: {took}{share}", soft_wrap=True)
    out.print(_groups(answer) if group else _hits(answer.hits))


@app.command(rich_help_panel=_PANEL)
def embed(
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: NumPy, float32 [images, dimension].")],
    modality: Light = "auto",
    model: Annotated[str | None, typer.Option(help="Name of the model; the default one without.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Embed crops, in the order given."""
    with connected(url, key) as client, naming(images):
        vectors = client.embed(images, modality, model)
    with output.open("wb") as file:  # given a name, np.save would append .npy to it
        np.save(file, vectors)
    out.print(f"{output}: {vectors.shape[0]} vectors of {vectors.shape[1]} numbers", soft_wrap=True)


@app.command(rich_help_panel=_PANEL)
def doctor() -> None:
    """Check this machine, its settings, models and data, and say what to do."""
    from vireid.doctor import Status, examine

    shown = table("", "check", "found", "what to do")
    colours = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
    failed = False
    with err.status("looking …"):
        for check in examine():
            mark = Text(check.status, colours[check.status])
            shown.add_row(mark, check.name, Text(check.found), Text(check.advice))
            failed |= check.status is Status.FAIL
    out.print(shown)
    if failed:
        raise typer.Exit(1)


managing.galleries.add_typer(keeping.app)
app.add_typer(managing.galleries, name="gallery", rich_help_panel=_PANEL)
app.add_typer(managing.keys, name="keys", rich_help_panel=_PANEL)


def _warn_of_gaps(labels: Labels, files: Sequence[ItemFields]) -> None:
    for name in ("camera", "identity"):
        pattern = getattr(labels, name)
        without = sum(getattr(fields, name) is None for fields in files)
        if pattern and without:
            text = f"warning: {pattern.pattern} finds no {name} in {without:,} of {len(files):,} files"
            err.print(text, markup=False, soft_wrap=True, style="yellow")


def _report(gallery: str, outcomes: Sequence[Outcome], skipped: int) -> None:
    counts = Counter(outcome.status for outcome in outcomes)
    out.print(
        f"{gallery}: {counts['added']:,} added, {counts['updated']:,} replaced, {skipped:,} there already, "
        f"{counts['failed']:,} failed",
        soft_wrap=True,
    )
    if counts["failed"]:
        shown = table("failed file", "reason")
        for outcome in sorted(outcomes, key=lambda outcome: outcome.path):
            if outcome.status == "failed":
                shown.add_row(Text(str(outcome.path)), Text(outcome.reason or ""))
        out.print(shown)


def _hits(hits: Sequence[Hit]) -> Table:
    shown = table("rank", "score", "false matches", "id", "identity", "camera", "captured", "modality")
    for hit in hits:
        item = hit.item
        captured = "" if item.captured_at is None else f"{item.captured_at:%Y-%m-%d %H:%M:%S}"
        identity, camera = Text(item.identity or ""), Text(item.camera or "")
        shown.add_row(str(hit.rank), f"{hit.score:.3f}", _rate(hit), item.id, identity, camera, captured, item.modality)
    return shown


def _groups(answer: SearchAnswer) -> Table:
    shown = table("rank", "identity", "score", "false matches", "hits", "best item")
    for rank, group in enumerate(answer.groups or (), 1):
        best, identity = group.hits[0], Text(group.identity or "")
        shown.add_row(str(rank), identity, f"{group.score:.3f}", _rate(best), str(len(group.hits)), best.item.id)
    return shown


def _rate(hit: Hit) -> str:
    """Share of pairs of strangers that score as high."""
    return "" if hit.false_match_rate is None else f"{hit.false_match_rate:.2%}"


@contextmanager
def _own_server(folder: Path) -> Iterator[str]:
    with _extra_installed():
        from vireid.hosting import START_ERRORS, in_background
    logging.basicConfig(level=logging.ERROR)
    settings = _settings(data_dir=folder / "data", host="127.0.0.1", port=0, auth="off")
    try:
        with in_background(settings) as url:
            yield url
    except START_ERRORS as error:
        stop(f"the server cannot start: {error or type(error).__name__}", 2)


@contextmanager
def _extra_installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        stop(f"{error.name} is not installed: the server needs vireid[cpu] or vireid[gpu]", 2)


def _settings(**given: Any) -> Settings:
    """The settings of the environment, with those ``given`` (and not None) in their place."""
    with _extra_installed():
        from server.settings import Settings
        from vireid.doctor import faults
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        stop("; ".join(faults(error)), 2)


def _leave(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(0)  # unwinds, so that everything is closed


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        stop(f"{text} is no regular expression: {error}", 2)
