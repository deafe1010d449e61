#!/usr/bin/env python3
"""Makes tests/golden/eval/: perplexity in windows, divergences and statistics, by transformers and numpy in float64.

perplexity.json      the loss of each token of tiny/greedy.json's text in windows of the built-in model
comparison.json      gemma2-gqa and gemma3-mm, which have as many ids, on random tokens: every figure of `compare`
rows.safetensors     pairs of rows of logits, near and far; rows.json: their `kld`
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from golden_common import forward, load_reference, record_versions, write_json
from safetensors.numpy import save_file

CONTEXT, STRIDE = 64, 24


def log_softmax(logits):
    """In float64, whatever comes in."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def predictions(model, ids, bos, context, stride):
    """Logits that predict each id, or without a `bos` each but the first: windows of `context` positions."""
    front = [] if bos is None else [bos]
    rows, done, begin = [], 1 - len(front), 0
    while done < len(ids):
        end = min(len(ids), begin + context - len(front))
        logits = forward(model, front + ids[begin:end])  # row j predicts what stands at j + 1
        before = begin + 1 - len(front)
        rows.extend(logits[done - before : end - before].double().numpy())
        done, begin = end, begin + stride
    return np.stack(rows)


def error_of_mean(values):
    """Batch means with blocks of floor(sqrt(n)), by the formula for a ratio: the last block may be shorter."""
    values = np.asarray(values, np.float64)
    blocks = np.split(values, range(int(len(values) ** 0.5), len(values), int(len(values) ** 0.5)))
    sums = np.array([(block - values.mean()).sum() for block in blocks])
    k = len(blocks)
    return float(np.sqrt(k / (k - 1) * (sums**2).sum()) / len(values))


def estimate(values):
    return {"value": float(np.mean(values)), "error": error_of_mean(values)}


def exponential(e):
    return {"value": float(np.exp(e["value"])), "error": float(np.exp(e["value"]) * e["error"])}


def compare(a, b, ids):
    """What src/eval/compare.cc computes, straight from the definitions."""
    log_a, log_b, at = log_softmax(a), log_softmax(b), np.arange(len(ids))
    kld = (np.exp(log_a) * (log_a - log_b)).sum(axis=-1)
    nll_a, nll_b, top = -log_a[at, ids], -log_b[at, ids], log_a.argmax(axis=-1)
    dp = np.exp(-nll_b) - np.exp(-nll_a)
    return {
        "kld": estimate(kld),
        "kld_median": float(np.median(kld)),
        "kld_p90": float(np.percentile(kld, 90)),
        "kld_p99": float(np.percentile(kld, 99)),
        "kld_max": float(kld.max()),
        "top1": estimate(top == log_b.argmax(axis=-1)),
        "nll_a": estimate(nll_a),
        "nll_b": estimate(nll_b),
        "ppl_a": exponential(estimate(nll_a)),
        "ppl_b": exponential(estimate(nll_b)),
        "ppl_ratio": exponential(estimate(nll_b - nll_a)),
        "dp_top": float(np.abs(np.exp(log_b[at, top]) - np.exp(log_a[at, top])).mean()),
        "dp_mean": float(dp.mean()),
        "dp_rms": float(np.sqrt((dp**2).mean())),
        "logit_difference": float(np.abs(a - b).max()),
    }


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=root / "tests/golden")
    golden = parser.parse_args().golden
    folder = golden / "eval"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)

    bos, *ids = json.loads((golden / "tiny/greedy.json").read_text())["nll_ids"]
    logits = predictions(load_reference(root / "models/tiny"), ids, bos, CONTEXT, STRIDE)
    nll = -log_softmax(logits)[np.arange(len(ids)), ids]
    windows = {"context": CONTEXT, "stride": STRIDE}
    figures = {"nll": estimate(nll), "ppl": exponential(estimate(nll))}
    write_json(folder / "perplexity.json", {"bos": bos, "ids": ids, **windows, **figures}, indent=None)

    rng = np.random.default_rng(5)
    ids = rng.integers(5, 320, 150).tolist()
    a, b = (predictions(load_reference(golden / name), ids, 2, 40, 20) for name in ("gemma2-gqa", "gemma3-mm"))
    figures = {"bos": 2, "ids": ids, "context": 40, "stride": 20, **compare(a, b, ids)}
    write_json(folder / "comparison.json", figures, indent=None)

    rows, vocab = 6, 900
    a = rng.normal(0, 3, (rows, vocab)).astype(np.float32)
    far = rng.normal(0, 1, (rows, 1)) * np.array([[0], [1e-6], [1e-3], [0.1], [1], [10]])
    b = (a + far * rng.normal(0, 1, (rows, vocab)) + np.array([[0], [0], [50], [-50], [0], [0]])).astype(np.float32)
    log_a, log_b = log_softmax(a), log_softmax(b)
    kld = (np.exp(log_a) * (log_a - log_b)).sum(axis=-1)
    save_file({"a": a, "b": b}, folder / "rows.safetensors")
    write_json(folder / "rows.json", {"kld": kld.tolist()}, indent=None)
    record_versions(golden, Path(__file__), ("torch", "transformers", "numpy", "safetensors"))


if __name__ == "__main__":
    main()
