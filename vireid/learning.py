"""The commands that train, judge and export. What they need is imported when one of them runs."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from vireid import reporting
from vireid.errors import clear_errors
from vireid.translating import translator
from vireid.typed import typed_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.config import Source
    from training.evaluation.result import Result
    from training.judging import EvaluationSet
    from training.subject import Subject

__all__ = ["app", "dataset"]

app = typer.Typer(no_args_is_help=True)
dataset = typer.Typer(no_args_is_help=True, help="Check and prepare training data.")
app.add_typer(dataset, name="dataset")
app.add_typer(translator, name="translator")
app.add_typer(reporting.results, name="results")

CACHE = Path("runs/cache")
CONFIG_HELP = "A YAML file, or METHOD/NAME of those that come with vireid (baseline/light, baseline/sysu_mm01, …)."
PLAN_HELP = (
    "A YAML file, or one that comes with vireid: mtrl, icre, emi (their parts), methods, longer or zoo (compared)."
)
ON_HELP = (
    "KIND:PATH to judge on, KIND one of folder, manifest, pairs, sysu_mm01, regdb, llcm; none: kept-out identities."
)

PRESET_HELP = (
    "Protocol by id instead of the usual ones; may be repeated: sysu-all-10shot-official_perm, "
    "llcm-vis_to_ir-deen_release, …; an unknown id lists all."
)

Run = Annotated[Path, typer.Argument(help="Folder of a run, or of an exported model.")]
On = Annotated[str | None, typer.Option(help=ON_HELP)]
Out = Annotated[Path, typer.Option(help="PNG to write.")]
Cache = Annotated[Path, typer.Option(help="Folder for decoded crops, shared between runs.")]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help=CONFIG_HELP)],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, logs, network.")],
    overrides: Annotated[list[str], typer.Option("--set", help="KEY=VALUE laid over the file; may be repeated.")] = [],  # noqa: B006
    resume: Annotated[bool, typer.Option(help="Go on where the run in OUT stopped.")] = False,
    cache: Cache = CACHE,
) -> None:
    """Train a network; everything needed to go on after an interruption is kept in OUT."""
    with clear_errors():
        from training.config import find_config, read_config
        from training.engine import train as run

        result = run(
            read_config(find_config(config), overrides), out, resume=resume, cache=cache, command=typed_command()
        )
        Console().print(f"trained network: {result}", highlight=False)


@app.command()
def ablate(
    plan: Annotated[str, typer.Argument(help=PLAN_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for the runs and table.md; what is there already is kept.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated: every row is trained with each.")] = "0",
    row: Annotated[list[str], typer.Option(help="Only the row of this name; may be repeated.")] = [],  # noqa: B006
    overrides: Annotated[list[str], typer.Option("--set", help="KEY=VALUE laid over every row.")] = [],  # noqa: B006
    cache: Cache = CACHE,
) -> None:
    """Train and judge variations of a configuration; interrupted, the same command goes on."""
    with clear_errors():
        from training.ablation import ablate as run
        from training.config import find_config
        from training.study import read_plan

        if not re.fullmatch(r"\d+(,\d+)*", seeds):
            raise ValueError(f"--seeds {seeds}: expected numbers separated by commas, for instance 0,1,2")
        path = Path(plan) if Path(plan).is_file() else find_config(f"{plan}/ablation")
        numbers = list(dict.fromkeys(map(int, seeds.split(","))))
        table = run(
            read_plan(path),
            out,
            seeds=numbers,
            only=row,
            overrides=overrides,
            cache=cache,
            command=typed_command(),
            console=Console(stderr=True),
        )
        sys.stdout.write(table)


@app.command()
def evaluate(
    run: Run,
    on: On = None,
    modality: Annotated[str | None, typer.Option(help="Of all crops in a folder:ROOT/IDENTITY/*.")] = None,
    imitate: Annotated[bool, typer.Option(help="Make infrared crops for identities that have none.")] = False,
    misaligned: Annotated[bool, typer.Option(help="Mirror and re-crop infrared, for aligned pairs.")] = False,
    trial: Annotated[int, typer.Option(help="RegDB: which of the ten splits.")] = 1,
    preset: Annotated[list[str] | None, typer.Option(help=PRESET_HELP)] = None,
    flip: Annotated[bool, typer.Option(help="Average each vector with that of the mirror image.")] = False,
    rerank: Annotated[bool, typer.Option(help="Add a row with k-reciprocal re-ranking.")] = False,
    cache: Cache = CACHE,
) -> None:
    """Judge a network under the protocols of a data set; results go to RUN/results, one JSON file each."""
    with clear_errors():
        from training.evaluation.rerank import KReciprocal
        from training.evaluation.table import markdown
        from training.judging import calibrations, evaluation_set, held_out_sets, judge
        from training.release import RESULTS, write_calibrations
        from training.subject import load_subject

        of_a_set = {"--modality": modality, "--imitate": imitate, "--misaligned": misaligned, "--preset": preset}
        if not on and (given := [option for option, value in of_a_set.items() if value]):
            raise ValueError(f"{', '.join(given)}: of the data set that --on names, and --on is not given")
        subject = load_subject(run)
        if on:
            sets = [evaluation_set(_source(on, modality, imitate, trial), misaligned=misaligned, presets=preset or ())]
        else:
            sets = held_out_sets(subject.config)
        method = KReciprocal() if rerank else None
        results = [r for data in sets for r in judge(subject, data, cache, typed_command(), flip=flip, rerank=method)]
        (run / RESULTS).mkdir(exist_ok=True)
        for result in results:
            result.write(run / RESULTS / f"{_file_name(result)}.json")
        if not on and sets:
            write_calibrations(run, calibrations(subject, sets[0], cache))
        Console().print(markdown(results, mixed=True), highlight=False, soft_wrap=True)


@app.command()
def pool(
    runs: Annotated[list[Path], typer.Argument(help="Runs or exported models, one for each fold of leave_out.")],
    pairs: Annotated[Path, typer.Option(help="Folder of the pairs that their configurations leave out.")],
    name: Annotated[str, typer.Option(help="How the networks are called together.")],
    out: Annotated[Path, typer.Option(help="Folder for the results, one JSON file each.")],
    misaligned: Annotated[bool, typer.Option(help="Mirror and re-crop infrared.")] = False,
    cache: Cache = CACHE,
) -> None:
    """Judge networks on real pairs, each on the frames it has not seen, and pool the ranks."""
    with clear_errors():
        from training.config import Pairs
        from training.evaluation.table import markdown
        from training.pooling import judge_pooled
        from training.subject import load_subject

        source = Pairs(kind="pairs", root=pairs, name=pairs.name)
        subjects = [load_subject(run) for run in runs]
        results = judge_pooled(subjects, source, name, cache, typed_command(), misaligned=misaligned)
        out.mkdir(parents=True, exist_ok=True)
        for result in results:
            result.write(out / f"{_file_name(result)}.json")
        Console().print(markdown(results, mixed=True), highlight=False, soft_wrap=True)


@app.command()
def export(
    runs: Annotated[list[Path], typer.Argument(help="Folder of a run; of several with --fuse.")],
    name: Annotated[str, typer.Option(help="Name of the model, for instance baseline-lite.")],
    out: Annotated[Path, typer.Option(help="Folder for model.onnx and card.json; the server loads MODEL_DIR/NAME.")],
    version: Annotated[str, typer.Option(help="Version written into the card.")] = "1",
    fuse: Annotated[bool, typer.Option("--fuse", help="Join the embeddings of all runs in one graph.")] = False,
    weights: Annotated[
        list[float] | None, typer.Option("--weight", help="Of a fused run, in their order; 1 for all without.")
    ] = None,
    half_weights: Annotated[
        bool, typer.Option("--half-weights", help="Store weights as float16: half the size, slightly rounded.")
    ] = False,
) -> None:
    """Export a network to ONNX with its card, if both compute the same; exit code 1 and nothing written otherwise.

    The card holds the results in RUN/results, or of a fused model those in OUT/results: export it, evaluate OUT, and
    export it again.
    """
    with clear_errors():
        from training.export import ParityError
        from training.release import release, release_fused

        if not fuse and (len(runs) > 1 or weights):
            raise ValueError(f"found {len(runs)} runs and {len(weights or ())} weights: more than one run needs --fuse")
        try:
            if fuse:
                factors = weights or [1.0] * len(runs)
                parity = release_fused(runs, factors, name, version, out, typed_command(), half_weights=half_weights)
            else:
                parity = release(runs[0], name, version, out, half_weights=half_weights)
        except ParityError as error:
            Console(stderr=True).print(str(error), style="red", highlight=False)
            raise typer.Exit(1) from error
        Console().print(
            f"{out / 'model.onnx'}: parity at batch {', '.join(map(str, parity.batches))} in both modalities: "
            f"max error {parity.max_error:.1e}, min cosine {parity.min_cosine:.7f}, "
            f"{parity.ranking_differs} of {parity.probes} rankings differ",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def quantise(
    model: Annotated[Path, typer.Argument(help="Folder of an exported model; the file and its entry are added there.")],
    precision: Annotated[str, typer.Option(help="int8 or bf16, for CPUs, or fp16, for GPUs.")] = "int8",
    on: On = None,
    modality: Annotated[str | None, typer.Option(help="Of all crops in a folder:ROOT/IDENTITY/*.")] = None,
    imitate: Annotated[bool, typer.Option(help="Make infrared crops for identities that have none.")] = False,
    misaligned: Annotated[bool, typer.Option(help="Mirror and re-crop infrared, for aligned pairs.")] = False,
    cache: Cache = CACHE,
) -> None:
    """Add int8, bf16 or fp16 to an exported model, with its measured loss in Rank-1 and mAP; bf16 needs no file.

    Ranges are measured on crops of the data that the model's card names, the loss on the identities it kept out. Run
    it after every export: that starts a new card.
    """
    with clear_errors():
        from models.card import MAX_LOSS, Precision
        from training.judging import evaluation_set
        from training.variants import add_variant

        if precision not in {Precision.INT8, Precision.BF16, Precision.FP16}:
            raise ValueError(f"--precision {precision}: expected int8, bf16 or fp16")
        sets = [evaluation_set(_source(on, modality, imitate, 1), misaligned=misaligned)] if on else []
        console = Console()
        say = partial(console.print, highlight=False, soft_wrap=True)
        variant = add_variant(model, Precision(precision), cache, sets, say)
        use = "where it is faster" if variant.accepted else f"when asked for: it loses more than {MAX_LOSS}"
        say(f"{model / variant.file}: used {use}")


@app.command()
def table(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs or exported models, or result files.")],
    latex: Annotated[bool, typer.Option(help="LaTeX instead of Markdown.")] = False,
    mixed: Annotated[bool, typer.Option(help="Allow results of different protocols in one table.")] = False,
    join: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Average the trials of RegDB, a model each, into rows of this name."),
    ] = None,
) -> None:
    """Print one table of any set of results."""
    with clear_errors():
        from training.evaluation import table as tables
        from training.evaluation.result import Result, join_trials
        from training.release import read_results

        results = [r for path in runs for r in (read_results(path) if path.is_dir() else [Result.read(path)])]
        if join is not None:
            results = join_trials(results, join)
        sys.stdout.write((tables.latex if latex else tables.markdown)(results, mixed=mixed) + "\n")


@app.command()
def ranklist(
    run: Run,
    out: Out = Path("ranklist.png"),
    on: On = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries to show.")] = 6,
    hits: Annotated[int, typer.Option(min=1, help="Hits of each.")] = 8,
    cache: Cache = CACHE,
) -> None:
    """Draw queries with their first hits, right and wrong marked."""
    with clear_errors():
        from training.picturing import picture_ranklists

        _save(picture_ranklists(*_judged(run, on), cache, queries, hits), out)


@app.command()
def heatmap(
    run: Annotated[Path, typer.Argument(help="Folder of a run (an exported graph has no gradients).")],
    out: Out = Path("heatmap.png"),
    on: On = None,
    images: Annotated[int, typer.Option(min=1, help="Crops of each modality.")] = 6,
    cache: Cache = CACHE,
) -> None:
    """Draw where the network looks, in each modality."""
    with clear_errors():
        from training.checkpoint import load_trained
        from training.picturing import picture_heatmaps

        network = load_trained(run / "model.pt").network
        _save(picture_heatmaps(network, *_judged(run, on), cache, images), out)


@app.command("embedding-map")
def embedding_map(
    run: Run,
    out: Out = Path("embedding-map.png"),
    on: On = None,
    identities: Annotated[int, typer.Option(min=2, help="Identities to show.")] = 12,
    cache: Cache = CACHE,
) -> None:
    """Draw embeddings in two dimensions by identity and modality (t-SNE)."""
    with clear_errors():
        from training.picturing import picture_embedding_map

        _save(picture_embedding_map(*_judged(run, on), cache, identities), out)


@app.command()
def histograms(run: Run, out: Out = Path("histograms.png"), on: On = None, cache: Cache = CACHE) -> None:
    """Draw the distances of genuine and impostor pairs for each pair of modalities."""
    with clear_errors():
        from training.picturing import picture_histograms

        _save(picture_histograms(*_judged(run, on), cache), out)


@app.command()
def curves(run: Run, out: Out = Path("curves.png")) -> None:
    """Draw losses, rates and validation over the epochs of a run."""
    with clear_errors():
        from training.picturing import picture_curves

        _save(picture_curves(run), out)


@dataset.command()
def check(
    path: Annotated[Path, typer.Argument(help="SYSU-MM01, RegDB, LLCM, a folder of crops or a manifest.")],
    kind: Annotated[str | None, typer.Option(help="Say what it is instead of letting it be guessed.")] = None,
) -> None:
    """Compare a data set on disk with what it should hold; exit code 1 and the first thing wrong if it differs."""
    with clear_errors():
        from training.data.check import check as check_data

        report = check_data(path, kind)
        console = Console()
        shown = Table("", "expected", "found", title=f"{report.kind} in {report.root}")
        for count in report.counts:
            expected = "" if count.expected is None else f"{count.expected:,}"
            shown.add_row(count.what, expected, f"{count.found:,}", style=None if count.ok else "red")
        console.print(shown)
        for problem in report.problems():
            console.print(problem, style="red", highlight=False, soft_wrap=True)
        if not report.ok:
            raise typer.Exit(1)


@dataset.command()
def windows(
    frames: Annotated[Path, typer.Argument(help="Folder with aligned frames of equal name in visible/ and infrared/.")],
    out: Annotated[Path, typer.Argument(help="Folder to write crops to, a folder of its own for each place.")],
    per_frame: Annotated[int, typer.Option(min=0, help="Places drawn in a frame; 0 with --people.")] = 3,
    crops: Annotated[int, typer.Option(min=1, help="Crops of a place in each modality.")] = 3,
    people: Annotated[bool, typer.Option(help="Cut every person that FRAMES/label marks too (MSRS).")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Other windows for another seed.")] = 0,
) -> None:
    """Cut person-shaped windows out of aligned frames: real pairs for training where no identities exist."""
    with clear_errors():
        from training.data.windows import Windows, cut_windows

        places = cut_windows(frames, out, Windows(per_frame=per_frame, crops=crops, people=people), seed)
        Console().print(f"{places} places in {out}", highlight=False)


def _source(on: str, modality: str | None, imitate: bool, trial: int) -> Source:
    """The data set that ``KIND:PATH`` and the options describe, checked as in a configuration."""
    from pydantic import TypeAdapter

    from training.config import Source

    kind, colon, path = on.partition(":")
    if not colon:
        raise ValueError(f"--on {on}: expected KIND:PATH, for instance folder:datasets/crops")
    fields: dict[str, object] = {"kind": kind, "root": path, "name": Path(path).name}
    if modality:
        fields["modality"] = modality
    if imitate:
        fields["imitate"] = "channel"
    if kind == "regdb":
        fields["trial"] = trial
    return TypeAdapter[Source](Source).validate_python(fields)


def _judged(run: Path, on: str | None) -> tuple[Subject, EvaluationSet]:
    """A network and the crops to show it with: its kept-out identities, or what ``on`` names."""
    from training.judging import evaluation_set, held_out_sets
    from training.subject import load_subject

    subject = load_subject(run)
    sets = [evaluation_set(_source(on, None, False, 1))] if on else held_out_sets(subject.config)
    if not sets:
        raise ValueError(f"{run} kept no identities out of training: name a data set with --on")
    return subject, sets[0]


def _save(figure: Figure, out: Path) -> None:
    figure.savefig(out)
    Console().print(str(out), highlight=False)


def _file_name(result: Result) -> str:
    words = f"{result.data.name} {result.protocol_id}".lower()
    return re.sub(r"[^a-z0-9_+]+", "-", words).strip("-")
