#!/usr/bin/env python3
"""How many bits small models hold: docs/experiments/capacity.md and its figures.

lapidary does the work; this asks for it and lays out what it says. A run that was stopped goes on.
"""

import argparse
import json
import subprocess
from pathlib import Path

from markdown_table import table

ROOT = Path(__file__).resolve().parent.parent


def sizes(result: dict) -> str:
    rows = []
    for s in result["sizes"]:
        plateau = [name for name, reached in (("data", s["data_plateau"]), ("training", s["training_plateau"])) if reached]
        rows.append([f"{s['parameters']:,}", f"{s['capacity_bits']:,.0f}", f"{s['bits_per_parameter']:.3f}",
                     "" if s["gain_of_data"] is None else f"{100 * s['gain_of_data']:+.1f} %", f"{100 * s['gain_of_training']:+.1f} %",
                     ", ".join(plateau) or "none"])
    return table(["parameters", "capacity, bits", "per parameter", "gain of data", "gain of training", "plateau over"], rows)


def runs(result: dict) -> str:
    rows = []
    for r in sorted(result["runs"] + result["halves"], key=lambda r: (r["parameters"], r["load"], r["epochs"])):
        rows.append([f"{r['parameters']:,}", str(r["sequences"]), f"{r['data_bits'] / r['parameters']:.2f}", str(r["epochs"]),
                     str(r["steps"]), f"{100 * r['memorized_bits'] / r['data_bits']:.1f} %",
                     f"{r['bits_per_parameter']:.3f}", f"{r['control_bits'] / r['parameters']:.4f}", f"{r['seconds']:.0f}"])
    return table(["parameters", "sequences", "data, bits per parameter", "epochs", "steps", "memorised", "bits per parameter",
                  "of unseen data", "seconds"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "build/bin/lapidary")
    parser.add_argument("--work", type=Path, default=ROOT / "build/experiments/capacity")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/experiments")
    parser.add_argument("options", nargs="*", help="of lapidary study capacity, after --")
    args = parser.parse_args()

    args.work.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([args.binary, "study", "capacity", *args.options, "-o", args.work], check=True)
    result = json.loads((args.work / "capacity.json").read_text())
    o = result["options"]
    seconds = sum(r["seconds"] for r in result["runs"] + result["halves"])
    command = f"tools/experiments_capacity.py -- {' '.join(args.options)}" if args.options else "make experiments-capacity"
    page = f"""# Capacity, measured

`{command}` made this page and capacity.json beside it.
What the figures are is in [study.md](../study.md).

Models of Gemma 3's shape with {o['layers']} layers learn sequences of {o['length']} tokens, uniform over {o['vocabulary']}:
{o['epochs']} epochs, {o['batch']} sequences a step, {o['optimizer']} at {o['learning_rate']}, weight
decay {o['weight_decay']}, f32, seed {o['seed']}; {seconds / 60:.0f} minutes
of training by one thread each.

**{result['bits_per_parameter']:.2f} bits per parameter**; sizes differ from that by at most {100 * result['largest_residual']:.1f} %.

{sizes(result)}
A gain below 3 % counts as a plateau. Without one over training, capacities are at least what is said here.

## Runs

{runs(result)}"""
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "capacity.md").write_text(page)
    (args.output / "capacity.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{args.output / 'capacity.md'}\n{args.work / 'report.html'}")


if __name__ == "__main__":
    main()
