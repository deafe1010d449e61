#!/usr/bin/env python3
"""The isolation experiment on all examples and under all conditions: docs/experiments/isolation.md and its figures.

lapidary does the work and the statistics; this asks for it and lays out what it says. A run that was stopped goes on.
"""

import argparse
import json
import subprocess
from pathlib import Path

from markdown_table import table

ROOT = Path(__file__).resolve().parent.parent
CONDITIONS = ("sequential", "prompted", "turn_based", "semantic", "random_clusters", "length_matched", "message_only",
              "mask")
SHOWN = {
    "outputs": ("leak_nats", "contamination", "foreign_facts", "expected_nll", "rougeL", "similarity"),
    "questions": ("leak_nats", "contamination", "foreign_facts", "expected_nll", "rougeL", "similarity"),
    "synthesis": ("coverage", "expected_nll", "rougeL", "similarity"),
}


def figures(result: dict, group: str, measures: tuple) -> str:
    found = {(m["measure"], m["condition"]): m for m in result["metrics"] if m["group"] == group}
    rows = []
    for measure in measures:
        if (measure, "semantic") not in found:
            continue
        rows.append([f"`{measure}`"] + [f"{found[measure, c]['mean']:.3f}" for c in CONDITIONS])
    return table(["mean over examples", *CONDITIONS], rows)


def differences(result: dict) -> str:
    rows = []
    for d in result["statistics"]:
        if d["measure"] not in SHOWN[d["group"]] or d["p_holm"] is None or d["p_holm"] > 0.05:
            continue
        rows.append([d["group"], f"`{d['measure']}`", d["b"], f"{d['mean_difference']:+.3f}",
                     f"{d['ci95'][0]:.3f} … {d['ci95'][1]:.3f}", f"{d['p_holm']:.1e}", f"{d['cohens_dz']:+.2f}",
                     str(d["pairs_needed"] or "")])
    return table(["group", "figure", "against", "difference", "95 %", "p, Holm", "d_z", "examples needed"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "build/bin/lapidary")
    parser.add_argument("--model", type=Path, default=ROOT / "models/tiny")
    parser.add_argument("--work", type=Path, default=ROOT / "build/experiments/isolation")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/experiments")
    args = parser.parse_args()

    args.work.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([args.binary, "isolate", "run", ROOT / "data/isolation", "-m", args.model, "-o", args.work, "-n",
                    str(args.tokens), "--conditions", ",".join(CONDITIONS)], check=True)
    result = json.loads((args.work / "result.json").read_text())
    run = json.loads((args.work / "run.json").read_text())
    count = len(result["statistics"])
    costs = []
    for condition in CONDITIONS:
        contexts = [c for c in result["contexts"] if c["condition"] == condition]
        outputs = [o for o in result["outputs"] if o["condition"] == condition]
        costs.append([condition, str(sum(c["prefilled"] for c in contexts) + sum(o["prompt_tokens"] for o in outputs)),
                      str(sum(o["reused_tokens"] for o in outputs)), str(sum(len(o["tokens"]) for o in outputs)),
                      f"{sum(c['bytes'] for c in contexts) / 2**20:.0f}",
                      f"{sum(c['end'] - c['begin'] for c in contexts) + sum(o['seconds'] for o in outputs):.0f}"])
    page = f"""# Isolation, measured

`make experiments-isolate` made this page and isolation.json beside it. What the figures are is in
[isolation.md](../isolation.md).

{run['model']} ({run['compute']}, keys and values {run['kv_type']}), {len(run['examples'])} examples of
`data/isolation`, {len(result['outputs'])} outputs of at most {args.tokens} tokens, temperature {run['temperature']},
seed {run['seed']}.

## Outputs of working clusters

{figures(result, "outputs", SHOWN["outputs"])}
## Questions

{figures(result, "questions", SHOWN["questions"])}
## Synthesis

{figures(result, "synthesis", SHOWN["synthesis"])}
## Semantic isolation against the others

Differences, semantic minus the other, that chance does not explain: Wilcoxon signed-rank, Holm over all {count}
differences of all figures, p <= 0.05.

{differences(result)}
## Costs

{table(["condition", "tokens prefilled", "reused", "decoded", "K/V MiB", "seconds"], costs)}"""
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "isolation.md").write_text(page)
    kept = {"run": run, "metrics": result["metrics"], "statistics": result["statistics"]}
    (args.output / "isolation.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{args.output / 'isolation.md'}\n{args.work / 'report.html'}")


if __name__ == "__main__":
    main()
