"""Adapters made by PEFT and MLX-LM, what models compute with them, and what PEFT blends of them.

Writes tests/golden/adapters:
  plain, other         PEFT, rank 4, every matrix of gemma3-v5; scales 2 and 0.75
  patterns             PEFT, rank-stabilised, ranks and alphas of their own for some matrices of gemma3-v5
  multimodal           PEFT, the text part of gemma3-mm, names as there
  dora                 PEFT, DoRA, some matrices of gemma3-v5
  mlx, mlx-dora        MLX-LM, the last two layers of mlx-4bit-g64
  logits.safetensors   NAME [T, vocab] for each of them, after the first ids of the model's golden.safetensors
  gradients.safetensors  of the adapter dora, in double precision: `loss`, the mean of -log p over those ids that follow
                       another, and its gradients by TARGET.lora_a, .lora_b and .magnitude
  blend.safetensors    METHOD.WEIGHTS.TARGET.A and .B of add_weighted_adapter on plain and other, of two matrices

DARE draws its masks as lapidary does: the random numbers are replaced here, since no other program has them.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from golden_common import load_reference, record_versions
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
OUT = GOLDEN / "adapters"
TOKENS = 24
DENSITY, SEED = 0.6, 7
WEIGHTS = {"both": [0.7, 0.5], "negated": [1.0, -0.6]}
PRUNING = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
METHODS = ("linear", "cat", "svd", *PRUNING, *(f"{name}_svd" for name in PRUNING))
SHOWN = ("model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIGS = {
    "plain": ("gemma3-v5", {"r": 4, "lora_alpha": 8, "target_modules": ALL}),
    "other": ("gemma3-v5", {"r": 4, "lora_alpha": 3, "target_modules": ALL}),
    "patterns": ("gemma3-v5", {
        "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["v_proj", "o_proj", "down_proj"],
        "rank_pattern": {"layers.[02].mlp.down_proj": 2, "o_proj": 5}, "alpha_pattern": {"v_proj": 3},
        "layers_to_transform": [0, 1, 2, 4],
    }),
    "multimodal": ("gemma3-mm", {"r": 3, "lora_alpha": 3, "target_modules": r".*language_model.*\.(q_proj|up_proj)"}),
    "dora": ("gemma3-v5", {
        "r": 4, "lora_alpha": 6, "use_dora": True, "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
        "layers_to_transform": [0, 2, 5],
    }),
}  # fmt: skip


def first_ids(model: str):
    return load_file(GOLDEN / model / "golden.safetensors")["ids"].long()[:TOKENS]


def make_peft(name: str, seed: int):
    """A PEFT adapter whose factors are all random, and the logits of its model in float32."""
    base, options = CONFIGS[name]
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)
    model = get_peft_model(load_reference(GOLDEN / base), config)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "lora_magnitude" in key:
                value.mul_(1 + 0.2 * torch.randn_like(value))
            elif "lora_" in key:
                value.normal_(0, 0.15)
        logits = model(input_ids=first_ids(base)[None], use_cache=False).logits[0].float().contiguous()
    model.save_pretrained(OUT / name)
    (OUT / name / "README.md").unlink()
    path = OUT / name / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["base_model_name_or_path"] = base  # not where it lay
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    if name == "dora":
        save_gradients(model, first_ids(base))
    return logits


def save_gradients(model, ids):
    model = model.double()
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[1:])
    loss.backward()
    names = {".lora_A.default.weight": ".lora_a", ".lora_B.default.weight": ".lora_b",
             ".lora_magnitude_vector.default.weight": ".magnitude"}  # fmt: skip
    out = {"loss": loss.detach().float().reshape(1)}
    for key, value in model.named_parameters():
        for suffix, written in names.items():
            if key.endswith(suffix):
                target = key.removeprefix("base_model.model.").removesuffix(suffix)
                out[target + written] = value.grad.float().contiguous()
    save_file(out, OUT / "gradients.safetensors")


def make_mlx(name: str, seed: int):
    """The same by MLX-LM, on a quantised base."""
    import mlx.core as mx
    from interop import mlx_logits_of
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    mx.random.seed(seed)
    base = "mlx-4bit-g64"
    model, config = load_model(GOLDEN / base)
    model.freeze()
    parameters = {"rank": 4, "scale": 1.5, "dropout": 0.0, "keys": ["self_attn.q_proj", "mlp.gate_proj"]}
    dora = name.endswith("dora")
    linear_to_lora_layers(model, 2, parameters, use_dora=dora)
    factors = {}
    for key, value in tree_flatten(model.trainable_parameters()):
        drawn = mx.random.normal(value.shape, scale=0.15)
        factors[key] = value * (1 + drawn) if key.endswith(".m") else drawn
    model.load_weights(list(factors.items()), strict=False)
    folder = OUT / name
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), factors)
    written = {"fine_tune_type": "dora" if dora else "lora", "model": base, "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=2) + "\n")
    return mlx_logits_of(model, config, first_ids(base).tolist())


def counter_bernoulli():
    """torch.bernoulli on src/base/rng.h: each call is the next stream, element i has number i."""
    mask = (1 << 64) - 1
    stream = 0

    def mix(x):
        with np.errstate(over="ignore"):
            x = x + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return x ^ (x >> np.uint64(31))

    def bernoulli(probability):
        nonlocal stream
        numbers = np.arange(probability.numel(), dtype=np.uint64)
        seed = mix(np.array([SEED], dtype=np.uint64))
        key = mix(seed ^ np.uint64(stream * 0xD6E8FEB86659FD93 & mask))
        with np.errstate(over="ignore"):
            bits = mix(key ^ (numbers * np.uint64(0x9E3779B97F4A7C15)))
        stream += 1
        uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        kept = torch.from_numpy(uniform).reshape(probability.shape) < probability.double()
        return kept.to(probability.dtype)

    return bernoulli


def make_blends():
    model = PeftModel.from_pretrained(load_reference(GOLDEN / "gemma3-v5"), OUT / "plain", adapter_name="plain")
    model.load_adapter(OUT / "other", adapter_name="other")
    original, out = torch.bernoulli, {}
    for method in METHODS:
        for label, weights in WEIGHTS.items():
            options = {"svd_rank": 4} if method.endswith("svd") else {}
            if method.startswith(PRUNING):
                options["density"] = DENSITY
            torch.bernoulli = counter_bernoulli()
            name = f"{method}_{label}"
            try:
                model.add_weighted_adapter(["plain", "other"], weights, name, combination_type=method, **options)
            finally:
                torch.bernoulli = original
            for target in SHOWN:
                module = model.base_model.model.get_submodule(target)
                out[f"{method}.{label}.{target}.A"] = module.lora_A[name].weight.detach().float().contiguous()
                out[f"{method}.{label}.{target}.B"] = module.lora_B[name].weight.detach().float().contiguous()
    save_file(out, OUT / "blend.safetensors")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    logits = {name: make_peft(name, seed) for seed, name in enumerate(CONFIGS)}
    logits |= {name: make_mlx(name, seed) for name, seed in (("mlx", 3), ("mlx-dora", 4))}
    save_file(logits, OUT / "logits.safetensors")
    make_blends()
    record_versions(GOLDEN, Path(__file__), ("torch", "transformers", "peft", "mlx", "mlx-lm", "safetensors"))
    print(f"{OUT}: {sum(f.stat().st_size for f in OUT.rglob('*') if f.is_file())} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
