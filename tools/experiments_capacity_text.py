#!/usr/bin/env python3
"""Where learning a text by heart ends: docs/experiments/capacity-text.md and its figures.

lapidary does the work; this asks for it and lays out what it says. A run that was stopped goes on.
"""

import argparse
import json
import subprocess
from pathlib import Path

from experiments_capacity import ROOT
from markdown_table import table


def runs(size: dict) -> str:
    rows = []
    for r in [*size["runs"], size["half"]]:
        rows.append([str(r["sequences"]), str(r["steps"]), f"{r['load']:.2f}", f"{r['data_bits'] / size['capacity_bits']:.3g}",
                     f"{r['train_loss']:.3f}", f"{r['test_loss']:.3f}", f"{r['memorized_bits']:.1f}",
                     f"{r['test_memorized_bits']:.1f}", f"{r['memorized_bits_per_parameter']:.2f}",
                     f"{100 * r['extraction_rate']:.1f} %", f"{100 * r['test_extraction_rate']:.1f} %",
                     f"{r['membership']['auc']:.3f}", f"{r['membership']['f1']:.3f}", f"{r['expected_f1']:.3f}"])
    return table(["sequences", "steps", "data, bits per parameter", "over capacity", "loss", "held out", "memorised, bits of a sequence",
                  "held out", "bits per parameter", "extracted", "held out", "AUC", "F1", "by the law"], rows)


def at(size: dict, place: int) -> str:
    run = size["runs"][place]
    return f"{run['sequences']} sequences, {run['data_bits'] / size['capacity_bits']:.3g} times the capacity"


def findings(size: dict) -> str:
    lines = []
    descent = size["double_descent"]
    if descent is None:
        lines.append("No double descent: the loss of what was held out does not rise and then fall by 1 % or more.")
    else:
        lines.append(f"Double descent: the loss of what was held out rises by {descent['rise']:.3f} nats up to "
                     f"{at(size, descent['peak'])}, and falls by {descent['fall']:.3f} after.")
    if size["grokking"] is None:
        lines.append("No grokking point: memorised bits of a sequence were not seen to fall.")
    else:
        lines.append(f"Grokking point: memorised bits of a sequence fall beyond {at(size, size['grokking'])}.")
    for what, key in (("Bits of data", "data_pass"), ("Bits that the reference needs", "reference_pass")):
        lines.append(f"{what} stay within the capacity." if size[key] is None else
                     f"{what} pass the capacity at {size['runs'][size[key]]['sequences']} sequences.")
    most = size["runs"][size["most_memorized"]]
    lines.append(f"Most is memorised at {at(size, size['most_memorized'])}: {most['memorized_bits_per_parameter']:.2f} bits per parameter.")
    if size["gain_of_training"] is not None:
        lines.append(f"Training for all steps brought {100 * size['gain_of_training']:+.1f} % of memorised bits over half of them at "
                     f"{size['half']['sequences']} sequences: {'a plateau' if size['training_plateau'] else 'no plateau'}.")
    return "\n".join(f"* {line}" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="tiny Shakespeare, or another text")
    parser.add_argument("--binary", type=Path, default=ROOT / "build/bin/lapidary")
    parser.add_argument("--work", type=Path, default=ROOT / "build/experiments/capacity-text")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/experiments")
    parser.add_argument("options", nargs="*", help="of lapidary study capacity-text, after --")
    args = parser.parse_args()

    args.work.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([args.binary, "study", "capacity-text", "-f", args.corpus, *args.options, "-o", args.work], check=True)
    result = json.loads((args.work / "capacity-text.json").read_text())
    o = result["options"]
    seconds = sum(r["seconds"] for size in result["sizes"] for r in [*size["runs"], size["half"]])
    command = (f"tools/experiments_capacity_text.py --corpus {o['text']} -- {' '.join(args.options)}" if args.options else
               f"make experiments-capacity-text CORPUS={o['text']}")
    page = f"""# A text learnt by heart, measured

`{command}` made this page and capacity-text.json beside it.
What the figures are is in [study.md](../study.md).

Models of Gemma 3's shape with {o['layers']} layers learn growing amounts of {o['text']}, of whose tokens ({o['tokenizer']}) {result['vocabulary']}
are different: sequences of {o['length']}, {o['steps']} steps of {o['batch']}, {o['optimizer']} at {o['learning_rate']}, weight decay
{o['weight_decay']}, f32, seed {o['seed']}; {o['held_out']} sequences held out, {result['sequences']} to train on, {result['duplicates']} left out that were there
already; {seconds / 60:.0f} minutes of training by one thread each. A capacity of {o['capacity']} bits per parameter is taken from
[the study of random tokens](capacity.md). The reference is the last model, trained on all of the text. The row at the end is
the amount next to the capacity, for half the steps. Single runs.
"""
    for size in result["sizes"]:
        page += f"\n## {size['parameters']:,} parameters\n\n{findings(size)}\n\n{runs(size)}"
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "capacity-text.md").write_text(page)
    (args.output / "capacity-text.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{args.output / 'capacity-text.md'}\n{args.work / 'report.html'}")


if __name__ == "__main__":
    main()
