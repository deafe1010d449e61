#!/usr/bin/env python3
"""What Set Block Decoding brings, measured: docs/experiments/set_block.md and its figures, with lapidary alone.

The built-in model learns tasks with one right answer, and a play, once by the ordinary objective and once by that of set
blocks, from the same data in as many steps. Then each way of decoding answers prompts that were not learnt. A larger
model, whose weights do not fit a cache, learns the tasks from random weights.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from markdown_table import table  # noqa: E402
from set_block_tasks import TASKS, examples  # noqa: E402
from tiny_data import split_corpus  # noqa: E402

ROW = 256  # tokens of a row, of which several examples fill one
BATCH = 4
EXAMPLES = 6000  # of each task, to learn from
ASKED = 40  # of each, to answer
LEARNT = 8  # tokens of a block, at most
BLOCKS = (4, 8)
GAMMAS = (0, 0.0001, 0.001, 0.01, 0.1, "inf")
BY_TASK = {"blocks": (4, 8), "gammas": (0.001, 0.01, 0.1)}  # what each task by itself and the larger model are asked with
PLAY_SHARE = 6  # the play, whose loss settles sooner, has a sixth of the steps
LARGER_SHARE = 5  # and the larger model a fifth
LARGER_ASKED = 100  # of the prompts
LARGER = {"layers": 10, "hidden": 512, "ffn": 2048, "heads": 4, "kv-heads": 2, "head-dim": 128, "vocab": 4096}
KINDS = ("bf16", "4 bits")  # of weights
SHAPE = "gemma-3-1b"
SHAPE_BLOCKS = (4, 8, 16)
CAREFUL = 0.001  # the gamma whose passes are put on a real shape
# What a way may lose to be among the best: a share of the right answers, or nats of a token.
LOST, NATS = 0.01, 0.02
# Of what `bench decode` says of a way.
KEPT = ("model_filename", "decode", "draft_max", "block", "gamma", "prompts", "tokens", "forward_passes",
        "tokens_per_second", "accuracy", "nll")  # fmt: skip


class Lab:
    def __init__(self, args):
        self.program, self.work, self.steps = args.lapidary, args.work, args.steps
        self.cpu = ""  # of the last measurement

    def run(self, *args):
        command = [str(self.program), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout else None

    def train(self, name: str, data: Path, method: str, rate: float, steps: int, start=()):
        """The model's folder and the last step's figures. A run that is there goes on, or is taken as it is."""
        run = self.work / name
        began = time.time()
        self.run(
            "train", "--data", data, "-o", run, "--method", method, "--iters", steps, "--batch-size", BATCH,
            "--micro-batch", BATCH, "--sequence-length", ROW, "--optimizer", "muon", "--lr", rate, "--warmup", 50,
            "--beta2", 0.98, "--long-documents", "split", "--save-every", 200, "--json", "-q",
            *(("--block-max", LEARNT) if method == "sbd" else ()), *start, *(["--resume"] if run.exists() else []),
        )  # fmt: skip
        print(f"{name}: {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        last = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return run / "model", json.loads(last)

    def convert(self, model: Path, bits: int):
        out = self.work / f"{model.parent.name}-{bits}bit"
        if not out.exists():
            self.run("convert", model, "-o", out, "--bits", bits, "--no-check", "--json", "-q")
        return out

    def decode(self, model, prompts: Path, ways, *options, blocks=BLOCKS, gammas=GAMMAS):
        ways_taken = self.run(
            "bench", "decode", "-m", model, "--prompts", prompts, "--ways", ",".join(("plain", *ways)), "--blocks",
            ",".join(map(str, blocks)), "--gammas", ",".join(map(str, gammas)), "-o", "json", "-q", *options,
        )  # fmt: skip
        for r in ways_taken:
            r["model_filename"] = str(Path(r["model_filename"]).relative_to(self.work))
        self.cpu = f"{ways_taken[0]['cpu_info']} ({ways_taken[0]['isa']})"
        return [{key: r[key] for key in KEPT if key in r} for r in ways_taken]

    def both(self, plain, sbd, prompts: Path, *options, **sizes):
        return {
            "plain": self.decode(plain, prompts, ("ngram",), *options),
            "sbd": self.decode(sbd, prompts, ("ngram", "set-block", "block-draft"), *options, **sizes),
        }


def write_lines(file: Path, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def task_data(lab: Lab):
    """A folder to learn from, what is asked, and the file of it."""
    data = lab.work / "tasks"
    data.mkdir(parents=True, exist_ok=True)
    asked = examples(ASKED, seed=1)
    prompts = {e["prompt"] for e in asked}
    learnt = examples(EXAMPLES, seed=2, avoid=prompts)
    pairs = [{"prompt": e["prompt"], "completion": e["completion"]} for e in learnt]
    write_lines(data / "valid.jsonl", pairs[:200])
    write_lines(data / "train.jsonl", pairs[200:])
    file = lab.work / "ask-all.jsonl"
    write_lines(file, asked)
    return data, asked, file


def learn_tasks(lab: Lab, name: str, data: Path, steps: int, start=()):
    """The models that learnt by either objective, and what is said of them."""
    plain, plain_said = lab.train(f"{name}-plain", data, "full", 2e-3, steps, start)
    sbd, sbd_said = lab.train(f"{name}-sbd", data, "sbd", 2e-3, steps, start)
    return plain, sbd, {"steps": steps, "loss": losses(plain_said, sbd_said)}


def ask_both_kinds(lab: Lab, plain: Path, sbd: Path, file: Path, *options, **sizes):
    return {
        "bf16": lab.both(plain, sbd, file, "--chat", *options, **sizes),
        "4 bits": lab.both(lab.convert(plain, 4), lab.convert(sbd, 4), file, "--chat", *options, **sizes),
    }


def tasks(lab: Lab, _):
    data, asked, file = task_data(lab)
    plain, sbd, rows = learn_tasks(lab, "tasks", data, lab.steps)
    rows |= ask_both_kinds(lab, plain, sbd, file)
    rows["tasks"] = {}
    for name in TASKS:
        one = lab.work / f"ask-{name}.jsonl"
        write_lines(one, [e for e in asked if e["category"] == name])
        rows["tasks"][name] = lab.both(plain, sbd, one, "--chat", **BY_TASK)
    # What blocks do to a model that never learnt to fill them in.
    rows["untrained"] = lab.decode(plain, file, ("set-block", "block-draft"), "--chat", "-r", 1, "--limit", 50, "--mask-token", "<mask>")
    return rows


def larger(lab: Lab, _):
    """A model that a pass reads from memory, as it does a real one, and that learnt what it is asked."""
    data, _, file = task_data(lab)
    start = lab.work / "larger-start"
    if not start.exists():
        sizes = [a for size, value in LARGER.items() for a in (f"--{size}", value)]
        lab.run("synth", "--preset", "gemma-3-270m", *sizes, "--seed", 1, "-o", start, "-q")
        copy_tokenizer(start)
    plain, sbd, rows = learn_tasks(lab, "larger", data, lab.steps // LARGER_SHARE, ("-m", start))
    rows |= ask_both_kinds(lab, plain, sbd, file, "--limit", LARGER_ASKED, **BY_TASK)
    return rows | {"bytes": (start / "model.safetensors").stat().st_size}


def copy_tokenizer(model: Path):
    for file in (ROOT / "models/tiny").glob("tokenizer*"):
        shutil.copy(file, model)


def play(lab: Lab, corpus: Path):
    data = lab.work / "play"
    data.mkdir(parents=True, exist_ok=True)
    train, valid = split_corpus(corpus.read_text(encoding="utf-8"))
    (data / "train.txt").write_text(train, encoding="utf-8")
    (data / "valid.txt").write_text(valid, encoding="utf-8")
    steps = lab.steps // PLAY_SHARE
    plain, plain_said = lab.train("play-plain", data, "full", 1e-3, steps)
    sbd, sbd_said = lab.train("play-sbd", data, "sbd", 1e-3, steps)
    blocks = [b for b in valid.split("\n\n") if len(b) > 80][:20]
    file = lab.work / "ask-play.jsonl"
    write_lines(file, [{"prompt": b[:60].rsplit(" ", 1)[0]} for b in blocks])
    return {"loss": losses(plain_said, sbd_said), "steps": steps, **lab.both(plain, sbd, file, "-n", 96)}


def shape(lab: Lab, _):
    """Passes of a real shape, whose weights do not fit a cache: random weights decide a token a pass, or by force a block."""
    rows = {}
    for kind, options in (("bf16", ()), ("4 bits", ("--bits", 4))):
        model = lab.work / f"{SHAPE}-{kind.replace(' ', '-')}"
        if not model.exists():
            lab.run("synth", "--preset", SHAPE, "-o", model, *options, "-q")
            copy_tokenizer(model)  # its prompts; the logits are the shape's
        rows[kind] = lab.decode(model, lab.work / "ask-all.jsonl", ("set-block",), "--limit", 2, "-n", 48, "-r", 2,
                                "--mask-token", "<mask>", blocks=SHAPE_BLOCKS, gammas=(0, "inf"))  # fmt: skip
    return rows


def losses(plain, sbd):
    return {
        "plain_next": plain["valid_loss"],
        "sbd_next": sbd["valid_ntp_loss"],
        "sbd_masked": sbd["valid_matp_loss"],
    }


def way(r):
    if r["decode"] == "set-block":
        return f"blocks of {r['block']}, gamma {r['gamma']}"
    if r["decode"] == "block-draft":
        return f"guesses by blocks of {r['block']}"
    return r["decode"] + (f", {r['draft_max']} at once" if r["decode"] == "ngram" else "")


def shares(r, plain):
    """Of a way of decoding, how many times fewer passes a token takes than by `plain`, and how much faster it is."""
    passes = plain["forward_passes"] / plain["tokens"] * r["tokens"] / r["forward_passes"]
    return passes, r["tokens_per_second"] / plain["tokens_per_second"]


def decoding_table(results):
    rows = []
    for model, ways in results.items():
        for r in ways:
            fewer, faster = shares(r, ways[0])  # ordinary decoding of the same model, in turns with the others
            rows.append((
                model, way(r), f"{r['forward_passes'] / r['tokens']:.3f}", f"{fewer:.2f}x", f"{r['tokens_per_second']:.0f}",
                f"{faster:.2f}x", f"{100 * r['accuracy']:.1f} %" if r["accuracy"] is not None else "", f"{r['nll']:.3f}",
            ))  # fmt: skip
    return table(("trained", "decoding", "passes a token", "fewer", "t/s", "faster", "right", "nll"), rows)


def best_text(results):
    """What blocks bring while they lose next to nothing of what the plain model does by ordinary decoding."""
    plain, ordinary = results["plain"][0], results["sbd"][0]
    ways = [r for r in results["sbd"] if r["decode"] in ("set-block", "block-draft")]
    limits = (
        (f"keep {100 * (1 - LOST):.0f} % of the plain model's right answers", [r for r in ways if r["accuracy"] >= (1 - LOST) * plain["accuracy"]]),
        (f"cost {NATS} nats a token more than its answers, or less", [r for r in ways if r["nll"] <= plain["nll"] + NATS]),
    )  # fmt: skip
    text = ""
    for what, kept in limits:
        if kept:
            fewer = max(kept, key=lambda r: shares(r, ordinary)[0])
            faster = max(kept, key=lambda r: shares(r, ordinary)[1])
            text += (
                f"Of the ways that {what},\n{way(fewer)} takes {shares(fewer, ordinary)[0]:.2f}x fewer passes, and {way(faster)}\n"
                f"is {shares(faster, ordinary)[1]:.2f}x as fast as ordinary decoding.\n\n"
            )
        else:
            text += f"There is no way of filling in blocks that would {what}.\n\n"
    return text


def shape_table(results, tasks):
    """The wall clock of a real shape at the passes that blocks of the trained model took: (first + (l - 1) later) / k."""
    rows = []
    for kind in KINDS:
        ways = results[kind]
        plain = 1 / ways[0]["tokens_per_second"]
        for block in SHAPE_BLOCKS:
            seconds = {r["gamma"]: block / r["tokens_per_second"] for r in ways[1:] if r["block"] == block}
            first, later = seconds["inf"], (seconds["0"] - seconds["inf"]) / (block - 1)
            row = [kind, block, *(f"{1000 * s:.0f}" for s in (plain, first, later)), f"{plain * block / first:.2f}x"]
            learnt = [r for r in tasks[kind]["sbd"] if r.get("block") == block and r["gamma"] == str(CAREFUL)]
            for r in learnt:
                passes = r["forward_passes"] * block / r["tokens"]
                row += [f"{passes:.2f}", f"{plain * block / (first + (passes - 1) * later):.2f}x", f"{100 * r['accuracy']:.1f} %"]
            rows.append(row + [""] * (0 if learnt else 3))
    return table(("weights", "block", "ms of a token", "first pass", "each other", "faster with one pass a block",
                  f"passes at gamma {CAREFUL}", "faster with these", "right"), rows)  # fmt: skip


def loss_text(loss):
    change = loss["sbd_next"] / loss["plain_next"] - 1
    return (
        f"Next-token loss on what was not learnt: plain {loss['plain_next']:.3g}, sbd {loss['sbd_next']:.3g}\n"
        f"({100 * change:+.1f} %); of masked tokens {loss['sbd_masked']:.3g}. Nats per token.\n\n"
    )


def both_kinds(t):
    yield loss_text(t["loss"])
    for kind in KINDS:
        yield f"### Weights in {kind}\n\n{best_text(t[kind])}{decoding_table(t[kind])}\n"


def document(results):
    parts = [
        "# Set Block Decoding, measured\n\n"
        "`make experiments-sbd CORPUS=tinyshakespeare.txt` made this page and set_block.json beside it. What it means is in\n"
        "[decoding.md](../decoding.md).\n\n"
        f"A model learns by the ordinary objective and by that of set blocks, in steps of {BATCH} x {ROW} tokens by Muon, and\n"
        f"in blocks of 2 to {LEARNT} tokens. Passes are those after the prompt's; `fewer` and `faster` are over ordinary decoding\n"
        "of the same model, in turns with it. Temperature 0; one run of training each; speeds are medians of three rounds.\n\n"
    ]  # fmt: skip
    if "tasks" in results:
        t = results["tasks"]
        parts += [f"## Tasks with one right answer\n\nThe built-in model, {t['steps']} steps; {ASKED} prompts of each of {', '.join(TASKS)};\n"
                  f"on {t['cpu']}.\n\n", *both_kinds(t)]  # fmt: skip
        for name, rows in t["tasks"].items():
            parts += [f"### {name}, bf16\n\n", decoding_table(rows), "\n"]
        parts += ["## Blocks without training for them\n\nThe plain model, 50 prompts.\n\n",
                  decoding_table({"plain": t["untrained"]})]  # fmt: skip
    if "larger" in results:
        t = results["larger"]
        parts += [f"\n## A model that does not fit a cache\n\nThe same tasks, learnt from random weights in {t['steps']} steps by a model of {LARGER['layers']} layers that\n"
                  f"are {LARGER['hidden']} wide, {t['bytes'] / 1e6:.0f} MB in bf16; {LARGER_ASKED} of the prompts; on {t['cpu']}.\n\n", *both_kinds(t)]  # fmt: skip
    if "shape" in results:
        parts += [f"\n## On a real shape\n\n{SHAPE} with random weights, on {results['shape']['cpu']}, whose passes were timed: one that decides a whole block, and each that\n"
                  f"follows where one does not. The passes that a block of the trained model took at gamma {CAREFUL} then say what the same\n"
                  "blocks would bring there.\n\n", shape_table(results["shape"], results["tasks"])]  # fmt: skip
    if "play" in results:
        p = results["play"]
        parts += [f"\n## A play\n\nThe built-in model, {p['steps']} steps; 96 tokens after the beginnings of 20 speeches; on {p['cpu']}.\n\n", loss_text(p["loss"]),
                  decoding_table({"plain": p["plain"], "sbd": p["sbd"]})]  # fmt: skip
    return "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lapidary", type=Path, default=ROOT / "build/bin/lapidary")
    parser.add_argument("--corpus", type=Path, required=True, help="a play as text, as tools/tiny_data.py takes it")
    parser.add_argument("--work", type=Path, default=ROOT / "build/experiments-sbd", help="where runs go meanwhile")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments", help="set_block.md and set_block.json")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only", action="append", choices=("tasks", "larger", "shape", "play"), help="one of them; may be repeated")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    lab = Lab(args)
    file = args.out / "set_block.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    parts = {"tasks": tasks, "larger": larger, "shape": shape, "play": play}
    for name in args.only or parts:
        results[name] = parts[name](lab, args.corpus) | {"cpu": lab.cpu}
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (args.out / "set_block.md").write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    main()
