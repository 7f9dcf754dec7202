"""The commands that send query crops: search, compare and embed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import (
    AsJson,
    GalleryOption,
    Key,
    ModalityChoice,
    ModalityOption,
    Url,
    connected,
    print_image_errors,
)
from vireid.cli.console import print_json, print_table
from vireid.cli.filters import FilterValues, to_filter, with_filter
from vireid.cli.rates import NOT_CALIBRATED, describe_calibrations, describe_used, false_hits_text, rate_text

if TYPE_CHECKING:
    from vireid.client import Client, SearchAnswer, SearchGroup, SearchHit, SearchOptions

__all__ = ["app"]

_STDIN = Path("-")
_HIT_COLUMNS = ("rank", "score", "false matches", "false hits", "id", "identity", "camera", "captured", "modality")
_GROUP_COLUMNS = ("rank", "identity", "score", "false matches", "false hits", "hits", "best item")

app = typer.Typer()

Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...", exists=True, dir_okay=False, help="JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF files."
    ),
]
QueryImages = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGE...", help="Crops of one person; -: the standard input."),
]
Hits = Annotated[int, typer.Option("-k", min=1, help="Maximum number of hits.")]
Item = Annotated[str | None, typer.Option("--item", help="Search by this item of the gallery instead of images.")]
MinScore = Annotated[float | None, typer.Option(min=-1, max=1, help="Only hits with at least this score.")]
MaxRate = Annotated[
    float | None,
    typer.Option(max=1, help="Only hits with at most this false match rate; needs --among and a calibration."),
]
MaxFalseHits = Annotated[
    float | None,
    typer.Option(help="Only hits with at most so many expected false hits; needs --among and a calibration."),
]
Fusion = Annotated[
    Literal["mean", "max"], typer.Option(help="How several images of one person are combined into one ranking.")
]
GroupHits = Annotated[bool, typer.Option("--group", help="One row for each identity.")]
Rerank = Annotated[bool, typer.Option("--rerank", help="Re-rank the best 100 by their common neighbours.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="Compare with every item, even where the server would search approximately.")
]
CaseReference = Annotated[str | None, typer.Option(help="Reference of the case, for the audit log.")]
Reason = Annotated[str | None, typer.Option(help="Reason of the search, for the audit log.")]
FirstImage = Annotated[Path, typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="The first crop.")]
SecondImage = Annotated[Path, typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="The second crop.")]


@app.command()
@with_filter
def search(
    gallery: GalleryOption,
    where: FilterValues,
    images: QueryImages = None,
    item: Item = None,
    k: Hits = 10,
    modality: ModalityOption = "auto",
    min_score: MinScore = None,
    max_false_match_rate: MaxRate = None,
    max_expected_false_hits: MaxFalseHits = None,
    fusion: Fusion = "mean",
    group: GroupHits = False,
    rerank: Rerank = False,
    exact: Exact = False,
    case_reference: CaseReference = None,
    reason: Reason = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Find the person of crops, or of an item, in a gallery."""
    paths = images or []
    if bool(paths) == (item is not None):
        raise typer.BadParameter("give the images of one person, or --item", param_hint="IMAGE")
    contents = [_read(path) for path in paths]
    options: SearchOptions = {
        "k": k,
        "filter": to_filter(where),
        "fusion": fusion,
        "group_by": "identity" if group else None,
        "rerank": rerank,
        "min_score": min_score,
        "max_false_match_rate": max_false_match_rate,
        "max_expected_false_hits": max_expected_false_hits,
        "exact": exact,
    }
    with connected(url, key, case_reference=case_reference, reason=reason) as client, print_image_errors(paths):
        answer = _search_pages(client, gallery, contents, item, modality, options)
    if as_json:
        print_json(answer)
    else:
        _print_answer(answer)


@app.command()
def compare(
    first: FirstImage,
    second: SecondImage,
    modality: ModalityOption = "auto",
    model: Annotated[str | None, typer.Option(help="Name of the model; without: the server's default.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Compare two crops: score and false match rate."""
    with connected(url, key) as client, print_image_errors([first, second]):
        found = client.compare(first, second, modality, model)
    if as_json:
        print_json(found)
        return
    typer.echo(f"score {found.score:.3f} ({' and '.join(found.modality)}, model {found.model})")
    if found.calibration is None:
        typer.echo(f"These modalities are {NOT_CALIBRATED}.")
        return
    interval = found.false_match_rate_interval
    between = "" if interval is None else f" (95% interval {interval[0]:.2g} to {interval[1]:.2g})"
    rate = rate_text(found.false_match_rate, found.below)
    typer.echo(f"false match rate {rate}{between}: pairs of different people that score at least as high")
    typer.echo(f"Measured on {describe_used(found.calibration)}.")


@app.command()
def embed(
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: NumPy, float32 [images, dimension].")],
    modality: ModalityOption = "auto",
    model: Annotated[str | None, typer.Option(help="Name of the model; without: the server's default.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Write the embeddings of crops to a file.

    Rows are in the order of the images.
    """
    import numpy as np

    with connected(url, key) as client, print_image_errors(images):
        vectors = client.embed(images, modality, model)
    with output.open("wb") as file:  # np.save appends .npy to a name
        np.save(file, vectors)
    typer.echo(f"{output}: {vectors.shape[0]} embeddings of dimension {vectors.shape[1]}")


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == _STDIN else path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="IMAGE") from None


def _search_pages(
    client: Client,
    gallery: str,
    images: Sequence[bytes],
    item: str | None,
    modality: ModalityChoice,
    options: SearchOptions,
) -> SearchAnswer:
    """Search; where ``k`` exceeds the server's limit, fetch page after page and join them."""
    k = options["k"]
    if not (options["group_by"] or options["rerank"]):  # these have no further pages, so the server refuses a large k
        options["k"] = min(k, client.limits().max_k)
        options["paginate"] = k > options["k"]
    answer = client.search(gallery, images, item_id=item, modality=modality, **options)
    while answer.next_cursor is not None and len(answer.hits) < k:
        options["cursor"], options["k"] = answer.next_cursor, min(k - len(answer.hits), options["k"])
        page = client.search(gallery, images, item_id=item, modality=modality, **options)
        answer = page.model_copy(update={"hits": answer.hits + page.hits})
    return answer


def _print_answer(answer: SearchAnswer) -> None:
    modality = " and ".join(sorted(set(answer.modality)))
    recall = "" if answer.recall is None else f", about {answer.recall:.1%} of the nearest"
    typer.echo(
        f"{modality} query among {answer.searched:,} items of {answer.gallery}: {answer.timing_ms.total:.0f} ms, "
        f"model {answer.model}{recall}"
    )
    if answer.groups is None:
        print_table(_HIT_COLUMNS, _hit_rows(answer.hits))
    else:
        print_table(_GROUP_COLUMNS, _group_rows(answer.groups))
    for line in describe_calibrations(answer):
        typer.echo(line)


def _hit_rows(hits: Sequence[SearchHit]) -> Iterator[Sequence[str]]:
    for hit in hits:
        item = hit.item
        captured = "" if item.captured_at is None else f"{item.captured_at:%Y-%m-%d %H:%M:%S}"
        labels = (item.identity or "", item.camera or "", captured, item.modality)
        yield str(hit.rank), f"{hit.score:.3f}", *_rates(hit), item.id, *labels


def _group_rows(groups: Sequence[SearchGroup]) -> Iterator[Sequence[str]]:
    for rank, group in enumerate(groups, 1):
        best = group.hits[0]
        score, count = f"{group.score:.3f}", str(len(group.hits))
        yield str(rank), group.identity or "", score, *_rates(best), count, best.item.id


def _rates(hit: SearchHit) -> tuple[str, str]:
    rate = rate_text(hit.false_match_rate, hit.below)
    return rate, false_hits_text(hit.expected_false_hits, hit.below)
