#!/usr/bin/env python3
"""What the ways of training do, measured: docs/experiments/training.md and its figures, with lapidary alone.

A model of the built-in one's shape learns a play from random weights, in every way for the same tokens: the ablation of
ReLoRA's parts, the rank of what each method adds up to, whether steps of full rank are plain gradient steps, and what
the bookkeeping of each method costs.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from markdown_table import table  # noqa: E402
from tiny_data import split_corpus  # noqa: E402

SHAPE = {"layers": 7, "hidden": 256, "ffn": 640, "heads": 4, "kv-heads": 2, "head-dim": 64, "vocab": 4096, "window": 64}
STEPS, BATCH, ROW = 400, 4, 128
WARM = 100  # steps of full training before, where there is a warm start
RESET = 100  # steps between merges
FULL_LR, LOW_LR = 2e-3, 4e-3  # ReLoRA's authors take twice the rate for adapters
RANK = 16

RESTARTS = ("--reset-every", RESET)
NONE = ("--reset-every", STEPS)
JAGGED = ("--schedule", "jagged", "--reset-warmup", 15)
SMOOTH = ("--schedule", "cosine")
KEEP, PRUNE = ("--prune", 0), ("--prune", 0.99)
BESIDE = ("--train-embeddings", "--train-norms", "--rank", RANK, "--alpha", 2 * RANK)

# name: (method, options), in the order of the paper's table 6
ABLATION = {
    "full": ("full", ("--lr", FULL_LR)),
    "LoRA": ("relora", (*BESIDE, *NONE, *SMOOTH, *KEEP)),
    "restarts": ("relora", (*BESIDE, *RESTARTS, *SMOOTH, *KEEP)),
    "restarts, reset": ("relora", (*BESIDE, *RESTARTS, *SMOOTH, *PRUNE)),
    "restarts, re-warm-up": ("relora", (*BESIDE, *RESTARTS, *JAGGED, *KEEP)),
    "restarts, reset, re-warm-up": ("relora", (*BESIDE, *RESTARTS, *JAGGED, *PRUNE)),
    "warm start, LoRA": ("relora", (*BESIDE, "--warm-start", WARM, *NONE, *SMOOTH, *KEEP)),
    "warm start, everything": ("relora", (*BESIDE, "--warm-start", WARM, *RESTARTS, *JAGGED, *PRUNE)),
}

# What rank the updates of each method reach.
RANKS = {
    "full": ("full", ("--lr", FULL_LR)),
    "lora": ("lora", ("--rank", RANK, "--alpha", 2 * RANK)),
    "relora": ("relora", (*BESIDE, "--reset-every", STEPS // 8, *JAGGED, *PRUNE)),
    "rank1, random": ("rank1", ("--rank", RANK, "--directions", "random")),
    "rank1, top": ("rank1", ("--rank", RANK, "--directions", "top")),
    "rank1, top, of one direction": ("rank1", ("--rank", 1, "--directions", "top")),
}


class Lapidary:
    def __init__(self, program: Path, work: Path, data: Path):
        self.program, self.work, self.data = program, work, data
        self.base = work / "base"

    def run(self, *args):
        command = [str(self.program), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr.strip()}")
        return done.stdout

    def make_base(self):
        sizes = [x for key, value in SHAPE.items() for x in (f"--{key}", value)]
        self.run("synth", "--preset", "gemma-3-270m", *sizes, "--dtype", "f32", "-o", self.base)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "models/tiny" / name, self.base)

    def train(self, name: str, method: str, *options, steps=STEPS, lr=LOW_LR, base=None):
        """The lines of metrics.jsonl, and of ranks.jsonl where there is one."""
        run = self.work / name.replace(", ", "-").replace(" ", "_")
        shutil.rmtree(run, ignore_errors=True)
        usual = {"--lr": lr, "--warmup": min(30, steps // 2)}
        if "sgd" not in options:
            usual["--beta2"] = 0.98
        usual = [x for flag, value in usual.items() if flag not in options for x in (flag, value)]
        began = time.time()
        self.run(
            "train", "-m", base or self.base, "--data", self.data, "-o", run, "--method", method, "--iters", steps,
            "--batch-size", BATCH, "--micro-batch", BATCH, "--sequence-length", ROW,
            "-q", *usual, *options,
        )  # fmt: skip
        print(f"{name}: {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        return lines(run / "metrics.jsonl"), lines(run / "ranks.jsonl")


def lines(file: Path):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def ablation(lapidary: Lapidary):
    rows = {}
    for name, (method, options) in ABLATION.items():
        try:
            metrics, _ = lapidary.train(name, method, *options)
        except RuntimeError as error:  # a loss that is no number ends a run; that is a result
            if "the loss is" not in str(error) and "not finite" not in str(error):
                raise
            rows[name] = {"diverged": str(error).splitlines()[1]}
            continue
        rows[name] = {
            "valid_loss": metrics[-1]["valid_loss"],
            "train_loss": statistics.mean(m["loss"] for m in metrics[-20:]),
            "highest_after_first_merge": max(m["loss"] for m in metrics[RESET:]),
        }
    return rows


def rank_curves(lapidary: Lapidary):
    """Means over all matrices, at each measurement, of runs on the built-in model."""
    rows = {}
    for name, (method, options) in RANKS.items():
        _, ranks = lapidary.train(
            f"rank of {name}", method, *options, "--rank-every", STEPS // 8, steps=STEPS // 2,
            base=ROOT / "models/tiny", lr=5e-4,
        )  # fmt: skip
        rows[name] = [
            {
                "step": step,
                "effective_rank": statistics.mean(r["effective_rank"] for r in at),
                "numerical_rank": statistics.mean(r["numerical_rank"] for r in at),
                "stable_rank": statistics.mean(r["stable_rank"] for r in at),
            }
            for step in sorted({r["step"] for r in ranks})
            for at in [[r for r in ranks if r["step"] == step]]
        ]
    return rows


def sanity(lapidary: Lapidary):
    """Losses of plain gradient descent against those of rank1 with as many directions as a matrix can have."""
    plain = ("--optimizer", "sgd", "--schedule", "constant", "--warmup", 0, "--max-grad-norm", 0, "--weight-decay", 0)
    steps, lr = 10, 0.05
    beside = ("--train-embeddings", "--train-norms")
    full, _ = lapidary.train("sgd", "full", *plain, steps=steps, lr=lr)
    rows = {}
    for rank in (256, 32, 1):
        for directions in ("aligned", "random") if rank == 256 else ("aligned", "top", "random"):
            got, _ = lapidary.train(f"sgd, rank {rank}, {directions}", "rank1", *plain, "--rank", rank, "--directions",
                                    directions, *beside, steps=steps, lr=lr)  # fmt: skip
            rows[f"{directions}, {rank}"] = {
                "loss": got[-1]["loss"],
                "largest_difference": max(abs(x["loss"] - y["loss"]) for x, y in zip(got, full, strict=True)),
            }
    return {"sgd": full[-1]["loss"], "first": full[0]["loss"], "rank1": rows}


def bookkeeping(lapidary: Lapidary):
    """Tokens per second of the last 40 of 60 steps, merges included; medians of three runs in turns."""
    runs = {
        "full": ("full", ()),
        "rank1 every step": ("rank1", ("--rank", 1, "--train-embeddings", "--train-norms")),
        "relora without merges": ("relora", (*BESIDE, *NONE, *SMOOTH, *KEEP)),
        "relora, a merge every 20 steps": ("relora", (*BESIDE, "--reset-every", 20, "--schedule", "jagged",
                                                     "--reset-warmup", 5, *PRUNE)),
    }  # fmt: skip
    speeds = {name: [] for name in runs}
    for turn in range(3):
        for name, (method, options) in runs.items():
            metrics, _ = lapidary.train(f"cost of {name} {turn}", method, *options, steps=60)
            measured = metrics[20:]
            seconds = sum(m["tokens"] / m["tokens_per_second"] for m in measured)
            speeds[name].append(sum(m["tokens"] for m in measured) / seconds)
    return {name: statistics.median(values) for name, values in speeds.items()}


def document(results):
    full = results["ablation"]["full"]["valid_loss"]
    parts = [
        "# Ways of training, compared\n\n"
        "`make experiments-train CORPUS=tinyshakespeare.txt` made this page and training.json beside it. What it means is\n"
        "in [training.md](../training.md).\n\n"
        f"The model has the built-in one's shape; {STEPS} steps of {BATCH} x {ROW} tokens; AdamW; full training at a rate of\n"
        f"{FULL_LR}, adapters of rank {RANK} at {LOW_LR}, with embeddings and norms trained beside them; a merge every {RESET}\n"
        f"steps, of relora {PRUNE[1]} of the state reset; a warm start of {WARM} steps. Losses are nats per token on the last\n"
        "tenth of the play. One run each.\n\n## Parts of ReLoRA, from random weights\n\n",
        table(
            ("condition", "valid loss", "above full", "training loss, last 20 steps", "highest after the first merge"),
            [
                (name, f"{row['valid_loss']:.3f}", f"{row['valid_loss'] - full:+.3f}", f"{row['train_loss']:.3f}",
                 f"{row['highest_after_first_merge']:.2f}")
                if "valid_loss" in row else (name, row["diverged"], "", "", "")
                for name, row in results["ablation"].items()
            ],
        ),
        "\n## Rank of what the updates add up to\n\nFrom the built-in model, on more of the same text, relora with a merge at\neach measurement; means over all\n"
        "matrices of the effective rank, in brackets of the singular values above rounding.\n\n",
        table(
            ("step", *results["ranks"]),
            [
                (step, *(next((f"{r['effective_rank']:.1f} ({r['numerical_rank']:.0f})" for r in rows if r["step"] == step), "")
                         for rows in results["ranks"].values()))
                for step in sorted({r["step"] for rows in results["ranks"].values() for r in rows})
            ],
        ),
        "\n## Steps of low rank against gradient descent\n\n"
        f"10 steps of plain SGD from random weights; it goes from {results['sanity']['first']:.4f} to {results['sanity']['sgd']:.4f}.\n"
        "No matrix has a rank above 256.\n\n",
        table(
            ("directions, rank", "loss in the end", "largest difference of a step's loss"),
            [(name, f"{row['loss']:.4f}", f"{row['largest_difference']:.1e}")
             for name, row in results["sanity"]["rank1"].items()],
        ),
        "\n## What bookkeeping costs\n\nTokens per second of 40 steps, medians of three runs in turns.\n\n",
        table(("run", "tok/s"), [(name, f"{value:.0f}") for name, value in results["bookkeeping"].items()]),
    ]  # fmt: skip
    return "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lapidary", type=Path, default=ROOT / "build/bin/lapidary")
    parser.add_argument("--corpus", type=Path, required=True, help="a play as text, as tools/tiny_data.py takes it")
    parser.add_argument("--work", type=Path, default=ROOT / "build/experiments-train", help="where runs go meanwhile")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments", help="training.md and training.json")
    parser.add_argument("--only", action="append", help="of ablation, ranks, sanity, bookkeeping; may be repeated")
    args = parser.parse_args()
    data = args.work / "data"
    data.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("train", "valid"), split_corpus(args.corpus.read_text(encoding="utf-8")), strict=True):
        (data / f"{name}.txt").write_text(text, encoding="utf-8")
    lapidary = Lapidary(args.lapidary, args.work, data)
    if not lapidary.base.exists():
        lapidary.make_base()
    file = args.out / "training.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    parts = {"ablation": ablation, "ranks": rank_curves, "sanity": sanity, "bookkeeping": bookkeeping}
    for name in args.only or parts:
        results[name] = parts[name](lapidary)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if all(name in results for name in parts):
        (args.out / "training.md").write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    main()
