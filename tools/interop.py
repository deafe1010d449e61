#!/usr/bin/env python3
"""Holds lapidary against Hugging Face transformers and mlx-lm on random checkpoints of real shapes.

For each preset `lapidary synth` writes a checkpoint, `lapidary score` writes its logits for fixed random ids, and the
other program reads the same checkpoint. Conversions are compared with mlx_lm's, and run by both programs. Every check
prints one line; the last line counts them. What few positions cannot show, such as a window of 4096, the golden files
do.

The bounds are on rms(difference) / std(logits).
  1e-4  Both compute in float32, whose unit roundoff is 6e-8. A dot product of n terms is off by about sqrt(n) of that,
        which is 6e-6 for the longest here (n = 9216), and the residual stream adds some 4 such errors per layer at
        random: sqrt(4 * 26) * 6e-6 = 6e-5.

Adapters of PEFT and mlx-lm: see tools/interop_adapters.py; text metrics and statistics: tools/interop_metrics.py. Beside
the numbers, the hub's cache is shared with huggingface_hub: see tools/interop_hub.py.

mlx-lm is asked for float32 too: left in bfloat16 it is off from itself by a tenth of the standard deviation, which
would say nothing of lapidary.
"""

import argparse
import gc
import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from interop_adapters import check_adapters
from interop_hub import check_hub
from interop_metrics import check_metrics
from interop_train import check_training
from safetensors.torch import load_file

BOUND_F32 = 1e-4
PRESETS = ("gemma-3-270m", "gemma-2-2b")
MLX_PRESET = "gemma-3-270m"


class Checks:
    """Prints a line for every check and remembers how many passed."""

    def __init__(self):
        self.passed = self.failed = 0

    def report(self, name: str, ok: bool, detail: str):
        self.passed += ok
        self.failed += not ok
        print(f"{'PASS' if ok else 'FAIL'} {name}: {detail}", flush=True)

    def compare(self, name: str, ours, theirs, bound: float):
        """Passes when the two sets of logits [T, vocab] agree within the bound; NaN does not pass."""
        if ours.shape != theirs.shape:
            self.report(name, False, f"logits of shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}")
            return
        difference = ours.double() - theirs.double()
        relative = (difference.pow(2).mean().sqrt() / theirs.double().std()).item()
        largest = difference.abs().max().item()
        agree = (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item()
        detail = f"rms/std {relative:.2e} (bound {bound:.0e}), max abs {largest:.2e}, top-1 agreement {agree:.1%}"
        self.report(name, relative <= bound, detail)


class Lapidary:
    """The program under test."""

    def __init__(self, program: Path):
        self.program = program

    def run(self, *args):
        """Runs a verb and returns its standard output; a failure carries what the program said."""
        command = [str(self.program), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def synth(self, preset: str, folder: Path, *storage, seed=0):
        self.run("synth", "--preset", preset, *storage, "--seed", seed, "-o", folder)

    def logits(self, folder: Path, ids, file: Path):
        """The logits [T, vocab] in float32, and the mean loss that the program reports."""
        listed = ",".join(map(str, ids))
        out = self.run(
            "score", "-m", folder, "--compute", "exact", "--ids", listed, "--logits", file, "--json"
        )  # fmt: skip
        return load_file(file)["logits"], json.loads(out)["nll"]


def fixed_ids(folder: Path, count: int):
    """<bos> and ids drawn from the checkpoint's vocabulary, the same in every run."""
    config = json.loads((folder / "config.json").read_text())
    vocab = config.get("text_config", config)["vocab_size"]
    rng = random.Random(0)
    return [2] + [rng.randrange(5, vocab) for _ in range(count - 1)]


def mean_nll(logits, ids):
    """Nats per token, teacher forced."""
    return torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:])).item()


@torch.no_grad()
def transformers_logits(folder: Path, ids):
    """What transformers computes in float32 with eager attention. The model is freed before this returns."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", low_cpu_mem_usage=True
    )
    logits = model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().clone()
    del model
    gc.collect()
    return logits


def mlx_logits(folder: Path, ids):
    """What mlx-lm computes in float32."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    return mlx_logits_of(*load_model(folder), ids)


def mlx_logits_of(model, config, ids):
    """The same of a model that is loaded.

    It multiplies the embedding by sqrt(hidden) rounded to bfloat16, where transformers and lapidary round in float32:
    it is handed embeddings that undo this.
    """
    import mlx.core as mx
    import numpy as np

    tokens = mx.array([ids])
    model.set_dtype(mx.float32)
    scale = config["hidden_size"] ** 0.5
    rounded = mx.array(scale, mx.bfloat16).astype(mx.float32).item()
    out = model(tokens, input_embeddings=model.model.embed_tokens(tokens) * (scale / rounded))
    return torch.from_numpy(np.array(out[0].astype(mx.float32)))


def check_transformers(checks: Checks, lapidary: Lapidary, preset: str, work: Path, positions: int):
    """A bfloat16 checkpoint against transformers."""
    folder = work / preset
    lapidary.synth(preset, folder, "--dtype", "bf16")
    ids = fixed_ids(folder, positions)
    ours, nll = lapidary.logits(folder, ids, work / f"{preset}.safetensors")
    theirs = transformers_logits(folder, ids)
    checks.compare(f"{preset} bf16, transformers", ours, theirs, BOUND_F32)
    expected = mean_nll(theirs, ids)
    difference = abs(nll - expected)
    checks.report(f"{preset} bf16, nll", difference <= 1e-4 * expected, f"{nll:.6f}, expected {expected:.6f}")


def check_mlx(checks: Checks, lapidary: Lapidary, preset: str, work: Path, positions: int):
    """A 4-bit MLX checkpoint against mlx-lm."""
    folder = work / f"{preset}-4bit"
    lapidary.synth(preset, folder, "--bits", 4, "--group-size", 64)
    ids = fixed_ids(folder, positions)
    ours, _ = lapidary.logits(folder, ids, work / f"{preset}-4bit.safetensors")
    checks.compare(f"{preset} 4-bit, mlx-lm", ours, mlx_logits(folder, ids), BOUND_F32)


def check_shared_cache(checks: Checks, lapidary: Lapidary, name: str, work: Path, _positions: int):
    check_hub(checks, lapidary.program, work)


def check_all_adapters(checks: Checks, lapidary: Lapidary, name: str, work: Path, positions: int):
    """Adapters, against PEFT and mlx-lm."""
    check_adapters(checks, lapidary, work, positions)


def check_all_training(checks: Checks, lapidary: Lapidary, name: str, work: Path, _positions: int):
    """Runs of `train`, against PEFT and TensorBoard."""
    check_training(checks, lapidary, work)


def check_all_metrics(checks: Checks, lapidary: Lapidary, name: str, work: Path, _positions: int):
    """Text metrics and statistics, against sacrebleu, rouge-score and scipy."""
    check_metrics(checks, lapidary.program, work)


def check_quality(checks: Checks, lapidary: Lapidary, preset: str, work: Path, positions: int):
    """Perplexity in windows and divergence of two bfloat16 checkpoints, against transformers and numpy."""
    from golden_common import load_reference
    from make_eval_golden import compare, predictions

    context, stride = 24, 12
    folders = [work / f"{preset}-{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        lapidary.synth(preset, folder, "--dtype", "bf16", seed=seed)
    ids = fixed_ids(folders[0], positions)  # as they are, without a <bos> before each window
    options = ("-c", context, "--stride", stride, "--compute", "exact", "--json", "-q")
    ours = json.loads(lapidary.run("compare", *folders, "--ids", ",".join(map(str, ids)), *options))
    theirs = compare(*(predictions(load_reference(f), ids, None, context, stride) for f in folders), ids[1:])
    for key, expected in (
        ("kld_mean", theirs["kld"]["value"]),
        ("kld_stderr", theirs["kld"]["error"]),
        ("kld_p99", theirs["kld_p99"]),
        ("top1_agreement", theirs["top1"]["value"]),
        ("ppl_a", theirs["ppl_a"]["value"]),
        ("ppl_b", theirs["ppl_b"]["value"]),
        ("ppl_ratio_stderr", theirs["ppl_ratio"]["error"]),
    ):
        good = abs(ours[key] - expected) <= 1e-4 * abs(expected)
        checks.report(f"{preset} bf16, {key}", good, f"{ours[key]:.6g}, expected {expected:.6g}")


def check_conversion(checks: Checks, lapidary: Lapidary, preset: str, work: Path, positions: int):
    """What `convert` writes: the bytes of mlx_lm.convert, logits as mlx-lm has them, weights that transformers loads."""
    from mlx_lm.convert import convert

    dense, ours, theirs, back = (work / name for name in ("dense", "ours", "theirs", "back"))
    lapidary.synth(preset, dense, "--dtype", "bf16")
    ids = fixed_ids(dense, positions)
    flags = {"4-bit": (["--bits", 4], {"q_bits": 4, "q_group_size": 64}),
             "mixed_3_6 in groups of 32": (["--recipe", "mixed_3_6", "--group-size", 32],
                                           {"quant_predicate": "mixed_3_6", "q_group_size": 32})}  # fmt: skip
    for name, (arguments, options) in flags.items():
        for folder in (ours, theirs):
            shutil.rmtree(folder, ignore_errors=True)
        lapidary.run("convert", dense, "-o", ours, "--no-check", *arguments)
        convert_with_mlx(convert, dense, theirs, options)
        compare_files(checks, f"{preset} {name}, bytes of mlx_lm.convert", ours, theirs)
        mine, _ = lapidary.logits(ours, ids[:8], work / "ours.safetensors")
        checks.compare(f"{preset} {name}, mlx-lm runs it", mine, mlx_logits(ours, ids[:8]), BOUND_F32)
    lapidary.run("convert", ours, "-o", back, "--dequantize", "--dtype", "f32")
    mine, _ = lapidary.logits(ours, ids, work / "ours.safetensors")
    checks.compare(f"{preset} dequantised, transformers loads it", mine, transformers_logits(back, ids), BOUND_F32)


def check_gguf_folder(checks: Checks, lapidary: Lapidary, name: str, work: Path, positions: int):
    """The folder made of a GGUF file: transformers computes what lapidary does from the file, with the same ids."""
    from transformers import AutoTokenizer

    tiny = Path(__file__).parent.parent / "models/tiny"
    file, folder = work / "tiny.gguf", work / "tiny-of-gguf"
    for kind in ("bf16", "q8_0"):
        lapidary.run("convert", tiny, "-o", file, "--type", kind, "--force")
        lapidary.run("convert", file, "-o", folder, "--dtype", "f32", "--force")
        ids = fixed_ids(folder, positions)
        ours, _ = lapidary.logits(file, ids, work / "tiny.safetensors")
        checks.compare(f"{name} {kind}, transformers runs its folder", ours, transformers_logits(folder, ids), BOUND_F32)
    source = work / "tokenizer-model"  # what the tokenizer.json was made from, which transformers reads otherwise
    source.mkdir()
    for file in (tiny / "tokenizer.model", folder / "config.json"):
        shutil.copy(file, source)
    original, made = (AutoTokenizer.from_pretrained(path) for path in (source, folder))
    texts = [text for text in json.loads((tiny.parent.parent / "tests/golden/tokenizer/strings.json").read_text())
             if "\u2581" not in text]  # fmt: skip
    wrong = [text for text in texts if original(text).input_ids != made(text).input_ids]
    detail = f"{len(texts)} texts, {len(wrong)} with other ids" + (f", as {wrong[0]!r}" if wrong else "")
    checks.report(f"{name}, tokenizer.model in transformers", not wrong, detail)
    turns = [{"role": "user", "content": "Hello"}]
    shown = [tokenizer.apply_chat_template(turns, tokenize=False)
             for tokenizer in (AutoTokenizer.from_pretrained(tiny), made)]  # fmt: skip
    checks.report(f"{name}, chat template in transformers", shown[0] == shown[1], repr(shown[1]))


def convert_with_mlx(convert, source: Path, target: Path, options):
    """mlx_lm.convert of a folder without a tokenizer: it is handed one that has nothing to save."""
    from mlx_lm.utils import load_model

    module = sys.modules["mlx_lm.convert"]

    class Tokenizer:
        def save_pretrained(self, folder):
            pass

    def load(path, **_):
        model, config = load_model(Path(path), lazy=True)
        return model, Tokenizer(), config

    original, module.load = module.load, load
    card, utils = None, sys.modules["mlx_lm.utils"]
    card, utils.create_model_card = utils.create_model_card, lambda *_: None
    try:
        convert(str(source), str(target), quantize=True, **options)
    finally:
        module.load, utils.create_model_card = original, card


def compare_files(checks: Checks, name: str, ours: Path, theirs: Path):
    """Passes when both folders hold the same tensors, byte for byte."""
    import mlx.core as mx

    mine, other = (mx.load(str(folder / "model.safetensors")) for folder in (ours, theirs))
    wrong = [key for key in set(mine) | set(other)
             if key not in mine or key not in other or mine[key].dtype != other[key].dtype
             or not mx.array_equal(mine[key], other[key]).item()]  # fmt: skip
    checks.report(name, not wrong, f"{len(other)} tensors" + (f", not {sorted(wrong)[:3]}" if wrong else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lapidary", type=Path, required=True, help="the program, say build/bin/lapidary")
    parser.add_argument("--work", type=Path, default=Path("build/interop"), help="where checkpoints go meanwhile")
    parser.add_argument("--preset", action="append", help=f"may be repeated (default: {', '.join(PRESETS)})")
    parser.add_argument("--positions", type=int, default=64, help="tokens to compare with transformers (64)")
    parser.add_argument("--mlx-positions", type=int, default=8, help="tokens to compare with mlx-lm (8)")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    checks, lapidary = Checks(), Lapidary(args.lapidary)
    runs = [(check_shared_cache, "hub", 0)]
    runs += [(check_transformers, preset, args.positions) for preset in args.preset or PRESETS]
    runs.append((check_gguf_folder, "tiny.gguf", args.positions))
    runs.append((check_all_adapters, "adapters", args.positions))
    runs.append((check_all_training, "training", args.positions))
    runs.append((check_all_metrics, "metrics", 0))
    runs.append((check_quality, (args.preset or PRESETS)[0], args.positions))
    if importlib.util.find_spec("mlx_lm"):
        runs.append((check_mlx, MLX_PRESET, args.mlx_positions))
        runs.append((check_conversion, MLX_PRESET, args.positions))
    else:
        print("mlx-lm is not installed: not compared")
    for check, preset, positions in runs:
        scratch = args.work / "checkpoint"  # one at a time on disk: the larger takes 5 GB
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            check(checks, lapidary, preset, scratch, positions)
        except Exception as error:  # one program's failure must not hide the others' results
            checks.report(f"{preset}, {check.__name__}", False, f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(scratch)
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(checks.failed > 0 or checks.passed == 0)


if __name__ == "__main__":
    main()
