#!/usr/bin/env python3
"""What Set Block Decoding brings, measured: docs/experiments/set_block.md and its figures, with lapidary alone.

The built-in model learns tasks with one right answer, and a play, once by the ordinary objective and once by that of set
blocks, from the same data in as many steps. Then each way of decoding answers prompts that were not learnt.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from experiments_train import table  # noqa: E402
from set_block_tasks import TASKS, examples  # noqa: E402
from tiny_data import split_corpus  # noqa: E402

ROW = 256  # tokens of a row, of which several examples fill one
BATCH = 4
EXAMPLES = 6000  # of each task, to learn from
ASKED = 40  # of each, to answer
BLOCKS = (4, 8, 16)
GAMMAS = (0, 0.1, 0.35, 1, "inf")


class Lab:
    def __init__(self, args):
        self.program, self.work, self.steps = args.lapidary, args.work, args.steps

    def run(self, *args):
        command = [str(self.program), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr.strip()}")
        return json.loads(done.stdout)

    def train(self, name: str, data: Path, method: str, rate: float):
        """The model's folder and what training says. A run that is there goes on, or is taken as it is."""
        run = self.work / name
        began = time.time()
        result = self.run(
            "train", "--data", data, "-o", run, "--method", method, "--iters", self.steps, "--batch-size", BATCH,
            "--micro-batch", BATCH, "--sequence-length", ROW, "--lr", rate, "--warmup", 50, "--beta2", 0.98,
            "--long-documents", "split", "--save-every", 200, "--json", "-q", *(["--resume"] if run.exists() else []),
        )  # fmt: skip
        print(f"{name}: {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        return run / "model", result

    def decode(self, model, prompts: Path, ways, *options, limit=None):
        return self.run(
            "bench", "decode", "-m", model, "--prompts", prompts, "--ways", ",".join(ways), "--blocks",
            ",".join(map(str, BLOCKS)), "--gammas", ",".join(map(str, GAMMAS)), "-o", "json", "-q",
            *(["--limit", limit] if limit else []), *options,
        )  # fmt: skip


def write_lines(file: Path, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tasks(lab: Lab, _):
    data = lab.work / "tasks"
    data.mkdir(parents=True, exist_ok=True)
    asked = examples(ASKED, seed=1)
    prompts = {e["prompt"] for e in asked}
    learnt = examples(EXAMPLES, seed=2, avoid=prompts)
    pairs = [{"prompt": e["prompt"], "completion": e["completion"]} for e in learnt]
    write_lines(data / "valid.jsonl", pairs[:200])
    write_lines(data / "train.jsonl", pairs[200:])
    plain, plain_said = lab.train("tasks-plain", data, "full", 1e-3)
    sbd, sbd_said = lab.train("tasks-sbd", data, "sbd", 1e-3)
    rows = {"loss": losses(plain_said, sbd_said), "tasks": {}}
    for name in TASKS:
        file = lab.work / f"ask-{name}.jsonl"
        write_lines(file, [e for e in asked if e["category"] == name])
        rows["tasks"][name] = {
            "plain": lab.decode(plain, file, ("ngram",), "--chat"),
            "sbd": lab.decode(sbd, file, ("ngram", "set-block"), "--chat"),
        }
    file = lab.work / "ask-all.jsonl"
    write_lines(file, asked)
    rows["all"] = {
        "plain": lab.decode(plain, file, ("ngram",), "--chat"),
        "sbd": lab.decode(sbd, file, ("ngram", "set-block"), "--chat"),
    }
    # What blocks do to a model that never learnt to fill them in.
    rows["untrained"] = lab.decode(plain, file, ("set-block",), "--chat", "-r", 1, "--mask-token", "<mask>", limit=50)
    return rows


def play(lab: Lab, corpus: Path):
    data = lab.work / "play"
    data.mkdir(parents=True, exist_ok=True)
    train, valid = split_corpus(corpus.read_text(encoding="utf-8"))
    (data / "train.txt").write_text(train, encoding="utf-8")
    (data / "valid.txt").write_text(valid, encoding="utf-8")
    plain, plain_said = lab.train("play-plain", data, "full", 5e-4)
    sbd, sbd_said = lab.train("play-sbd", data, "sbd", 5e-4)
    blocks = [b for b in valid.split("\n\n") if len(b) > 80][:20]
    file = lab.work / "ask-play.jsonl"
    write_lines(file, [{"prompt": b[:60].rsplit(" ", 1)[0]} for b in blocks])
    return {
        "loss": losses(plain_said, sbd_said),
        "plain": lab.decode(plain, file, ("ngram",), "-n", 96),
        "sbd": lab.decode(sbd, file, ("ngram", "set-block"), "-n", 96),
    }


def losses(plain, sbd):
    return {
        "plain_next": plain["valid_loss"],
        "sbd_next": sbd["valid_ntp_loss"],
        "sbd_masked": sbd.get("valid_matp_loss"),
    }


def way(r):
    if r["decode"] == "set-block":
        return f"blocks of {r['block']}, gamma {r['gamma']}"
    return r["decode"] + (f", {r['draft_max']} at once" if r["decode"] == "ngram" else "")


def decoding_table(plain, sbd):
    """The plain model by ordinary decoding first: speed and passes are compared with it."""
    base = plain[0]
    rows = []
    for model, results in (("plain", plain), ("sbd", sbd)):
        for r in results:
            rows.append(
                (model, way(r), f"{r['forward_passes'] / r['tokens']:.3f}",
                 f"{base['forward_passes'] / base['tokens'] * r['tokens'] / r['forward_passes']:.2f}x",
                 f"{r['tokens_per_second']:.0f}", f"{r['tokens_per_second'] / base['tokens_per_second']:.2f}x",
                 f"{100 * r['accuracy']:.1f} %" if r["accuracy"] is not None else "", f"{r['nll']:.3f}")
            )  # fmt: skip
    return table(("trained", "decoding", "passes a token", "fewer", "t/s", "faster", "right", "nll"), rows)


def loss_text(loss):
    change = loss["sbd_next"] / loss["plain_next"] - 1
    return (
        f"Next-token loss on what was not learnt: plain {loss['plain_next']:.4f}, sbd {loss['sbd_next']:.4f}\n"
        f"({100 * change:+.1f} %); of masked tokens {loss['sbd_masked']:.4f}. Nats per token.\n\n"
    )


def document(results, steps):
    parts = [
        "# Set Block Decoding, measured\n\n"
        "`make experiments-sbd CORPUS=tinyshakespeare.txt` made this page and set_block.json beside it. What it means is in\n"
        "[decoding.md](../decoding.md).\n\n"
        f"The built-in model learns for {results['steps']} steps of {BATCH} x {ROW} tokens, by the ordinary objective and by that of set\n"
        f"blocks. Passes are those after the prompt's. Temperature 0; one run each; speeds are medians of three rounds in\nturns, on {results['cpu']}.\n\n"
    ]  # fmt: skip
    if "tasks" in results:
        t = results["tasks"]
        parts += [f"## Tasks with one right answer\n\n{ASKED} prompts of each of {', '.join(TASKS)}.\n\n",
                  loss_text(t["loss"]), decoding_table(t["all"]["plain"], t["all"]["sbd"])]  # fmt: skip
        for name, rows in t["tasks"].items():
            parts += [f"\n### {name}\n\n", decoding_table(rows["plain"], rows["sbd"])]
        parts += ["\n## Blocks without training for them\n\nThe plain model, 50 prompts.\n\n",
                  decoding_table(t["untrained"][:1], t["untrained"][1:])]  # fmt: skip
    if "play" in results:
        p = results["play"]
        parts += ["\n## A play\n\n96 tokens after the beginnings of 20 speeches.\n\n", loss_text(p["loss"]),
                  decoding_table(p["plain"], p["sbd"])]  # fmt: skip
    return "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lapidary", type=Path, default=ROOT / "build/bin/lapidary")
    parser.add_argument("--corpus", type=Path, required=True, help="a play as text, as tools/tiny_data.py takes it")
    parser.add_argument("--work", type=Path, default=ROOT / "build/experiments-sbd", help="where runs go meanwhile")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments", help="set_block.md and set_block.json")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--only", action="append", choices=("tasks", "play"), help="one of them; may be repeated")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    lab = Lab(args)
    file = args.out / "set_block.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    parts = {"tasks": tasks, "play": play}
    for name in args.only or parts:
        results[name] = parts[name](lab, args.corpus)
        results["steps"] = args.steps
        results["cpu"] = results[name]["plain"][0]["cpu_info"] if name == "play" else results[name]["untrained"][0]["cpu_info"]
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (args.out / "set_block.md").write_text(document(results, args.steps), encoding="utf-8")


if __name__ == "__main__":
    main()
