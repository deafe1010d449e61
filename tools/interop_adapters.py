"""Adapters between lapidary and PEFT, MLX-LM: each runs what the other wrote. Called by interop.py.

The adapters are random, on every matrix of a small random checkpoint; the bound is that of interop.py.
"""

import importlib.util
import json
from pathlib import Path

import torch

BOUND = 1e-4


def make_peft_adapter(base: Path, folder: Path, **options):
    """Saves a PEFT adapter whose factors are all random."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.normal_(0, 0.1)
    model.save_pretrained(folder)


@torch.no_grad()
def peft_logits(base: Path, adapter: Path, ids):
    """What transformers computes in float32 with the adapter that PEFT loads; every one of its tensors must be used."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, adapter).eval()
    stored = load_file(adapter / "adapter_model.safetensors")
    loaded = [name for name, _ in model.named_parameters() if "lora_" in name]
    if len(loaded) != len(stored):
        raise RuntimeError(f"{adapter}: {len(stored)} factors stored, {len(loaded)} in the model")
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().clone()


def mlx_logits(base: Path, adapter: Path, ids):
    """What mlx-lm computes in float32 with the adapter that it loads."""
    import mlx.core as mx
    from interop import mlx_logits_of
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, config = load_model(base)
    return mlx_logits_of(load_adapters(model, str(adapter)), config, ids)


def check_adapters(checks, lapidary, work: Path, positions: int):
    """The checks; `checks` and `lapidary` are interop.py's."""
    ids = [2] + [(i * 7919 + 13) % 4000 + 50 for i in range(min(positions, 32) - 1)]
    base, codes = work / "base", work / "codes"
    shape = {"layers": 7, "hidden": 256, "ffn": 512, "heads": 4, "kv-heads": 2, "head-dim": 64, "vocab": 4096}
    lapidary.synth("gemma-3-270m", base, "--dtype", "f32", *(x for k, v in shape.items() for x in (f"--{k}", v)))
    lapidary.synth("gemma-3-270m", codes, "--bits", 4, "--group-size", 64)

    def logits(model, adapter):
        from safetensors.torch import load_file

        listed, out = ",".join(map(str, ids)), work / "logits.safetensors"
        lapidary.run("score", "-m", model, "--adapter", adapter, "--compute", "exact", "--ids", listed, "--logits", out)
        return load_file(out)["logits"]

    everything = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    kinds = {
        "plain": {"r": 4, "lora_alpha": 8, "target_modules": everything},
        "rank-stabilised, of several ranks": {
            "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj", "down_proj"],
            "rank_pattern": {"q_proj": 7}, "alpha_pattern": {"layers.1.mlp.down_proj": 2},
            "layers_to_transform": [1, 2, 5],
        },
    }  # fmt: skip
    for name, options in kinds.items():
        theirs = work / name
        make_peft_adapter(base, theirs, **options)
        expected = peft_logits(base, theirs, ids)
        checks.compare(f"adapter of PEFT, {name}", logits(base, theirs), expected, BOUND)
        for form in ("mlx", "peft"):
            lapidary.run("adapter", "convert", theirs, "-o", work / f"{name}-{form}", "--to", form)
        checks.compare(f"written again, {name}", peft_logits(base, work / f"{name}-peft", ids), expected, BOUND)
        if importlib.util.find_spec("mlx_lm"):
            checks.compare(f"as MLX-LM's, {name}", mlx_logits(base, work / f"{name}-mlx", ids), expected, BOUND)

    if importlib.util.find_spec("mlx_lm"):
        wide = work / "wide"
        make_wide_adapter(codes, wide)
        short = ids[:8]
        listed, out = ",".join(map(str, short)), work / "logits.safetensors"
        lapidary.run("score", "-m", codes, "--adapter", wide, "--compute", "exact", "--ids", listed, "--logits", out)
        from safetensors.torch import load_file

        checks.compare("4-bit base, MLX-LM", load_file(out)["logits"], mlx_logits(codes, wide, short), BOUND)


def make_wide_adapter(base: Path, folder: Path):
    """Saves an MLX adapter of the last four layers whose factors are all random."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    mx.random.seed(0)
    model, _ = load_model(base)
    model.freeze()
    parameters = {"rank": 8, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.v_proj", "mlp.up_proj"]}
    linear_to_lora_layers(model, 4, parameters)
    factors = {k: mx.random.normal(v.shape, scale=0.1) for k, v in tree_flatten(model.trainable_parameters())}
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), factors)
    config = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
