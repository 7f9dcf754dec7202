"""One example for each command, shown at the end of its help."""

from __future__ import annotations

from collections.abc import Mapping

import typer

__all__ = ["EXAMPLES", "add_examples"]

EXAMPLES: Mapping[str, str] = {
    "serve": "vireid serve --port 8000",
    "demo": "vireid demo",
    "status": "vireid status",
    "search": "vireid search day.png -g night --among opposite -k 5",
    "compare": "vireid compare day.png night.png",
    "embed": "vireid embed day.png night.png -o vectors.npy",
    "index": "vireid index night/ -g night --modality infrared --camera-pattern '_(c[0-9])_'",
    "import": "vireid import night.tar -g night",
    "calibrate": "vireid calibrate night --disjoint-cameras c1,c7",
    "gallery list": "vireid gallery list",
    "gallery create": "vireid gallery create night --retention-days 30",
    "gallery show": "vireid gallery show night",
    "gallery summary": "vireid gallery summary night",
    "gallery change": "vireid gallery change night --retention-days 14",
    "gallery duplicates": "vireid gallery duplicates night --min-score 0.99",
    "gallery delete": "vireid gallery delete night",
    "gallery erase": "vireid gallery erase night --identity p17",
    "gallery aliases": "vireid gallery aliases",
    "gallery alias": "vireid gallery alias latest night-2026-11",
    "gallery unalias": "vireid gallery unalias latest",
    "gallery snapshot": "vireid gallery snapshot night night.tar",
    "gallery restore": "vireid gallery restore night-copy night.tar",
    "gallery reembed": "vireid gallery reembed night --model baseline",
    "items list": "vireid items list -g night --camera c3 --from 2026-11-21T20:00:00Z",
    "items show": "vireid items show c3:0001.png -g night",
    "items change": "vireid items change c3:0001.png -g night --identity p17",
    "items image": "vireid items image c3:0001.png -g night -o crop.jpg",
    "items delete": "vireid items delete c3:0001.png -g night",
    "items receipts": "vireid items receipts",
    "models list": "vireid models list",
    "models show": "vireid models show baseline",
    "keys list": "vireid keys list",
    "keys create": "vireid keys create desk --scope search --gallery night --expires 90d",
    "keys rotate": "vireid keys rotate KEY_ID --overlap-hours 24",
    "keys delete": "vireid keys delete KEY_ID",
    "audit list": "vireid audit list --limit 20",
    "audit verify": "vireid audit verify",
    "audit export": "vireid audit export --output audit.jsonl",
    "audit confirm-clock": "vireid audit confirm-clock",
    "jobs": "vireid jobs --state failed",
    "mcp": "vireid mcp --images crops/",
    "doctor": "vireid doctor",
    "weights": "vireid weights weights/",
    "train": "vireid train baseline/imagenet --out runs/mine --set data.0.root=crops",
    "ablate": "vireid ablate methods --out runs/methods --seeds 0,1,2",
    "evaluate": "vireid evaluate runs/mine --on sysu_mm01:datasets/SYSU-MM01",
    "pool": "vireid pool runs/fold-0 runs/fold-1 --pairs pairs --name folds --out runs/pooled",
    "table": "vireid table runs/mine runs/other",
    "export": "vireid export runs/mine --name mine --out zoo/mine",
    "quantise": "vireid quantise zoo/mine --precision int8",
    "ranklist": "vireid ranklist runs/mine --out ranks.png",
    "heatmap": "vireid heatmap runs/mine --out heatmap.png",
    "embedding-map": "vireid embedding-map runs/mine --out map.png",
    "histograms": "vireid histograms runs/mine --out histograms.png",
    "curves": "vireid curves runs/mine --out curves.png",
    "dataset check": "vireid dataset check crops/",
    "dataset windows": "vireid dataset windows frames/ windows/ --per-frame 4",
    "translator train": "vireid translator train frames/ --out translator.pt",
    "translator compare": "vireid translator compare translator.pt",
    "translator show": "vireid translator show translator.pt --out people.png",
    "results collect": "vireid results collect runs/mine --out results/mine",
    "results render": "vireid results render",
}
"""Example by command, without ``vireid``."""


def add_examples(app: typer.Typer, prefix: str = "") -> None:
    """Add its example to the help of each command of ``app`` that has one; ``prefix`` names its group."""
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", ""))
        if example := EXAMPLES.get(prefix + name):
            command.epilog = f"Example: {example}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_examples(group.typer_instance, f"{group.name} " if isinstance(group.name, str) else prefix)
