#!/usr/bin/env python3
"""Makes tests/golden/: small random Gemma checkpoints, and the logits that Hugging Face transformers gives for them.

Every model is built twice over: once in memory with random weights, stored in the dtype and the config dialect that
the folder stands for, and once read back from disk as float32. The logits come from the second. For each model the
script switches off one feature at a time (a window, a softcap, a norm) and refuses to write a golden file that would
not notice.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
)
from transformers.utils import logging

from golden_common import forward, load_reference, record_versions, save_golden, write_json

FAR = 1 << 20  # a window that nothing falls out of
NOTICED = 0.02  # the least change, as rms over the logits' standard deviation, that counts as noticed


# --- random models ---------------------------------------------------------------------------------------------------


def randomise(model, seed: int):
    """Fills every parameter so that attention is uneven, norms differ from 1 and the logits are a few units wide."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "norm" in name and p.ndim == 1:
                values = rng.normal(0.0, 0.2, p.shape)
            elif "embed_tokens" in name:
                values = rng.normal(0.0, 3.0 / p.shape[1] ** 0.5, p.shape)
            elif p.ndim >= 2:
                values = rng.normal(0.0, 1.5 / p.shape[-1] ** 0.5, p.shape)
            else:
                values = rng.normal(0.0, 0.1, p.shape)
            p.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def random_ids(vocab: int, count: int, seed: int):
    """<bos> and then ids drawn from the whole vocabulary, the special ones left out."""
    return [2] + np.random.default_rng(seed).integers(5, vocab, count - 1).tolist()


def store(model, folder: Path, dtype: torch.dtype, **save_args):
    """Saves the model in `dtype`, as save_pretrained lays it out, without the generation defaults."""
    model.to(dtype).save_pretrained(folder, **save_args)
    (folder / "generation_config.json").unlink(missing_ok=True)


def edit_config(folder: Path, edit):
    """Applies `edit` to the parsed config.json in place."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    write_json(path, config)


def to_v4(config: dict):
    """Rewrites a config.json of transformers 5 in the words of transformers 4."""
    rope = config.pop("rope_parameters")
    config.pop("layer_types", None)
    if "full_attention" in rope:  # Gemma 3: one set of parameters for each kind of layer
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        scaling = {k: v for k, v in rope["full_attention"].items() if k != "rope_theta"}
        config["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
    else:
        config["rope_theta"] = rope["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.50.0"


# --- does the golden file notice? ------------------------------------------------------------------------------------


def relative_rms(a, b):
    """Root mean square of a - b over the standard deviation of b."""
    return ((a - b).pow(2).mean().sqrt() / b.std()).item()


def text_config(config):
    return getattr(config, "text_config", config)


def check_noticed(folder: Path, ids, logits, switches: dict):
    """Fails unless every switched-off feature changes the logits.

    `switches` maps a config field to the value that disables it. Besides, each kind of norm and projection is zeroed in
    turn, whatever the model.
    """
    effects = {}
    for field, value in switches.items():
        config = AutoConfig.from_pretrained(folder)
        setattr(text_config(config), field, value)
        model = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, attn_implementation="eager"
        )
        effects[field] = relative_rms(forward(model.eval(), ids), logits)
    model = load_reference(folder)
    parameters = {n: p for n, p in model.named_parameters() if "layers." in n and "vision" not in n}
    kinds = {n.split(".")[-2] for n in parameters}
    for kind in sorted(kinds):
        saved = {n: p.clone() for n, p in parameters.items() if f".{kind}." in n}
        with torch.no_grad():
            for n in saved:
                parameters[n].zero_()
            effects[kind] = relative_rms(forward(model, ids), logits)
            for n, p in saved.items():
                parameters[n].copy_(p)
    weak = {k: v for k, v in effects.items() if not v > NOTICED}
    print("   ", ", ".join(f"{k} {v:.2f}" for k, v in effects.items()))
    if weak:
        raise RuntimeError(f"{folder.name}: switching these off would go unnoticed: {weak}")


def finish(folder: Path, ids, switches=None, hidden=False):
    """Reads the folder back, writes its golden file and checks that the golden file is worth having."""
    out = forward(load_reference(folder), ids, hidden=hidden)
    logits, states = out if hidden else (out, ())
    save_golden(folder, ids, logits, states)
    print(f"{folder.name}: {len(ids)} tokens, logits std {logits.std():.2f}")
    check_noticed(folder, ids, logits, switches or {})
    return logits


# --- dense models ----------------------------------------------------------------------------------------------------


def gemma1_mqa(folder: Path):
    """Gemma 1, one key/value head, head_dim that hidden/heads does not give, "gelu" that means its tanh form."""
    config = GemmaConfig(
        vocab_size=300, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=256,
    )  # fmt: skip
    store(randomise(GemmaForCausalLM(config), 1), folder, torch.bfloat16)

    def as_published(c):
        to_v4(c)
        c["hidden_act"] = "gelu"

    edit_config(folder, as_published)
    finish(folder, random_ids(300, 24, 1))


def gemma1_mha(folder: Path):
    """Gemma 1 with as many key/value heads as query heads, another rope base, the dialect of transformers 5."""
    config = GemmaConfig(
        vocab_size=300, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, head_dim=16, max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )  # fmt: skip
    store(randomise(GemmaForCausalLM(config), 2), folder, torch.float32)
    finish(folder, random_ids(300, 24, 2), {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}})


def gemma2_gqa(folder: Path):
    """Gemma 2: alternating windows, both softcaps low enough to bite, a query scalar of its own, several shards."""
    config = Gemma2Config(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=256, sliding_window=16,
        attn_logit_softcapping=5.0, final_logit_softcapping=3.0, query_pre_attn_scalar=3,
    )  # fmt: skip
    store(randomise(Gemma2ForCausalLM(config), 3), folder, torch.float16, max_shard_size="100KB")
    finish(
        folder,
        random_ids(320, 55, 3),
        {
            "sliding_window": FAR,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "query_pre_attn_scalar": 16,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
        },
        hidden=True,
    )


def gemma3_config(**changes):
    """A seven-layer Gemma 3 (layer 5 global), everything that the generation introduced away from its default."""
    fields = dict(
        vocab_size=300, hidden_size=48, intermediate_size=64, num_hidden_layers=7, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=512, sliding_window=16, query_pre_attn_scalar=5,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    )  # fmt: skip
    return Gemma3TextConfig(**(fields | changes))


def rope(full: float, sliding: float, factor: float | None):
    """The rope_parameters of transformers 5."""
    scaling = {"rope_type": "linear", "factor": factor} if factor else {"rope_type": "default"}
    return {
        "full_attention": scaling | {"rope_theta": full},
        "sliding_attention": {"rope_type": "default", "rope_theta": sliding},
    }


GEMMA3_SWITCHES = {
    "sliding_window": FAR,
    "query_pre_attn_scalar": 16,
    "rope_parameters": rope(5000.0, 100.0, None),
}


def gemma3_v4(folder: Path):
    """Gemma 3 in the config dialect of transformers 4: pattern 6, linear scaling on the global layer."""
    store(randomise(Gemma3ForCausalLM(gemma3_config()), 4), folder, torch.float32)
    ids = random_ids(300, 60, 4)
    before = forward(load_reference(folder), ids)
    edit_config(folder, to_v4)
    logits = finish(folder, ids, GEMMA3_SWITCHES | {"layer_types": ["sliding_attention"] * 7})
    if not torch.equal(before, logits):
        raise RuntimeError("the two config dialects do not load to the same model")


def gemma3_v5(folder: Path):
    """Gemma 3 as transformers 5 writes it, with an end-of-sequence list and an irregular list of layer kinds."""
    kinds = ["full_attention" if i in (2, 5) else "sliding_attention" for i in range(7)]
    config = gemma3_config(
        layer_types=kinds, rope_parameters=rope(20000.0, 300.0, 4.0), query_pre_attn_scalar=7, rms_norm_eps=0.1,
        eos_token_id=[1, 106], sliding_window=20,
    )  # fmt: skip
    store(randomise(Gemma3ForCausalLM(config), 5), folder, torch.bfloat16)
    switches = GEMMA3_SWITCHES | {
        "rope_parameters": rope(20000.0, 300.0, None),
        "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
        "rms_norm_eps": 1e-6,
    }
    finish(folder, random_ids(300, 64, 5), switches, hidden=True)


TEXT_DEFAULTS = Gemma3TextConfig().to_dict()


def gemma3_mm(folder: Path):
    """A multimodal checkpoint; like the published 4B its text_config leaves out the heads and the head size."""
    config = Gemma3Config(
        text_config=dict(
            vocab_size=320, hidden_size=16, intermediate_size=24, num_hidden_layers=2, sliding_window=16,
            sliding_window_pattern=2, rope_scaling={"rope_type": "linear", "factor": 8.0},
        ),
        vision_config=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16,
            patch_size=8, vision_use_head=False,
        ),
        image_token_index=300, boi_token_index=298, eoi_token_index=299, mm_tokens_per_image=4, eos_token_id=[1, 106],
    )  # fmt: skip
    store(randomise(Gemma3ForConditionalGeneration(config), 6), folder, torch.bfloat16)

    def as_published(c):
        text = c["text_config"]
        text["dtype"] = c["dtype"]
        to_v4(text)
        text.pop("torch_dtype"), text.pop("transformers_version")
        defaults = TEXT_DEFAULTS | {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6}
        c["text_config"] = {k: v for k, v in text.items() if k == "model_type" or k not in defaults or defaults[k] != v}
        c["torch_dtype"] = c.pop("dtype")
        c["transformers_version"] = "4.50.0"

    edit_config(folder, as_published)
    names = load_file(folder / "model.safetensors").keys()
    expected = ("language_model.model.", "vision_tower.", "multi_modal_projector.")
    if not all(n.startswith(expected) for n in names):
        raise RuntimeError(f"unexpected names on disk: {sorted(names)}")
    finish(folder, random_ids(320, 40, 6), {"sliding_window": FAR, "rope_parameters": rope(1e6, 1e4, None)})


def gemma3_prefixes(out: Path):
    """The same text weights three times, under the three prefixes that checkpoints in circulation use."""
    config = gemma3_config(num_hidden_layers=2, vocab_size=256, layer_types=["sliding_attention", "full_attention"])
    plain = out / "gemma3-prefix-model"
    store(randomise(Gemma3ForCausalLM(config), 7), plain, torch.bfloat16)
    edit_config(plain, to_v4)
    edit_config(plain, lambda c: c.update(sliding_window_pattern=2))
    finish(plain, random_ids(256, 32, 7), GEMMA3_SWITCHES)
    weights = load_file(plain / "model.safetensors")
    for name, prefix in (
        ("gemma3-prefix-language-model-model", "language_model.model."),
        ("gemma3-prefix-model-language-model", "model.language_model."),
    ):
        folder = out / name
        folder.mkdir()
        renamed = {prefix + n.removeprefix("model."): w for n, w in weights.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        for file in ("config.json", "golden.safetensors"):
            shutil.copy(plain / file, folder / file)


# --- MLX affine quantisation -----------------------------------------------------------------------------------------


def unpack(words: np.ndarray, bits: int):
    """uint32 [..., in*bits/32] -> the unsigned values [..., in]: one little-endian stream, lowest bit first."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    fields = stream.reshape(*words.shape[:-1], -1, bits).astype(np.uint32)
    return (fields << np.arange(bits, dtype=np.uint32)).sum(-1)


def to_f32(array: mx.array):
    return np.array(array.astype(mx.float32))


def dequantise(words, scales, biases, group: int, bits: int):
    """scale * q + bias in float32, checked against MLX's own."""
    q = unpack(np.array(words), bits).astype(np.float32)
    s, b = (np.repeat(to_f32(x), group, axis=-1) for x in (scales, biases))
    values = s * q + b
    theirs = mx.dequantize(words, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group, bits=bits)
    np.testing.assert_allclose(values, np.array(theirs), rtol=1e-6, atol=1e-6)
    return values


def to_torch(array: mx.array):
    """An MLX array as a torch tensor of the same dtype."""
    if array.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(array.view(mx.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def mlx_model(out: Path, name: str, seed: int, dtype: mx.Dtype, group: int, bits: int, overrides=None, unsaid=()):
    """One folder as mlx-lm writes it: packed Linear and Embedding weights, the rest in `dtype`.

    `overrides` are the per-path entries of the config's quantization block; the paths in `unsaid` stay dense without
    a word in the config. The golden logits are those of the dequantised weights in float32.
    """
    config = Gemma3TextConfig(
        vocab_size=192, hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=256, sliding_window=12, query_pre_attn_scalar=10,
        layer_types=["sliding_attention", "full_attention"], rope_parameters=rope(5000.0, 100.0, None),
    )  # fmt: skip
    overrides = overrides or {}
    model = randomise(Gemma3ForCausalLM(config), seed)
    stored, dense = {}, {}
    for key, value in model.model.state_dict(prefix="model.").items():
        path = key.removesuffix(".weight")
        choice = False if path in unsaid else overrides.get(path, {"group_size": group, "bits": bits})
        array = mx.array(value.numpy()).astype(dtype)
        if value.ndim < 2 or choice is False:
            stored[key] = array
            dense[key] = torch.from_numpy(to_f32(array))
            continue
        packed = mx.quantize(array, group_size=choice["group_size"], bits=choice["bits"])
        stored |= dict(zip((key, f"{path}.scales", f"{path}.biases"), packed))
        dense[key] = torch.from_numpy(dequantise(*packed, choice["group_size"], choice["bits"]))

    folder = out / name
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), stored, metadata={"format": "mlx"})
    index = {
        "metadata": {
            "total_size": sum(a.nbytes for a in stored.values()),
            "total_parameters": sum(t.numel() for t in dense.values()),
        },
        "weight_map": {k: "model.safetensors" for k in sorted(stored)},
    }
    write_json(folder / "model.safetensors.index.json", index)
    described = json.loads(config.to_json_string())
    write_json(folder / "config.json", described | {"dtype": str(dtype).removeprefix("mlx.core.")})
    edit_config(folder, to_v4)
    block = {"group_size": group, "bits": bits, "mode": "affine"} | overrides
    edit_config(
        folder,
        lambda c: c.update(
            architectures=["Gemma3ForCausalLM"], sliding_window_pattern=2, quantization=block, quantization_config=block
        ),
    )

    ids = random_ids(192, 24, seed)
    with tempfile.TemporaryDirectory() as scratch:
        model.load_state_dict(dense | {"lm_head.weight": dense["model.embed_tokens.weight"]})
        model.save_pretrained(scratch)
        logits = forward(load_reference(Path(scratch)), ids)
    save_golden(folder, ids, logits)
    theirs = run_mlx_lm(folder, ids)
    print(f"{name}: logits std {logits.std():.2f}, mlx-lm differs by {relative_rms(theirs, logits):.1e}")
    if not relative_rms(theirs, logits) < (1e-4 if dtype == mx.float32 else 5e-2):
        raise RuntimeError(f"{name}: mlx-lm computes something else from this folder")


def run_mlx_lm(folder: Path, ids):
    """The logits that mlx-lm gives for the folder, in the dtype it chooses."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    return torch.from_numpy(to_f32(model(mx.array([ids]))[0]))


def mlx_models(out: Path):
    """One folder for each width, the three scale dtypes and the two ways of leaving a layer dense."""
    bf16, f16, f32 = mx.bfloat16, mx.float16, mx.float32
    mlx_model(out, "mlx-2bit-g32", 20, f16, 32, 2)
    mlx_model(out, "mlx-3bit-g64", 21, bf16, 64, 3)
    mlx_model(out, "mlx-4bit-g64", 22, bf16, 64, 4)
    overrides = {
        "model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 6},
        "model.layers.1.self_attn.v_proj": {"group_size": 64, "bits": 8},
        "model.layers.1.self_attn.o_proj": False,
    }
    mlx_model(out, "mlx-4bit-g32-mixed", 23, bf16, 32, 4, overrides=overrides)
    unsaid = ("model.layers.0.mlp.gate_proj", "model.layers.1.self_attn.k_proj")
    mlx_model(out, "mlx-4bit-g64-unsaid-dense", 24, bf16, 64, 4, unsaid=unsaid)
    mlx_model(out, "mlx-5bit-g64", 25, f16, 64, 5)
    mlx_model(out, "mlx-6bit-g32", 26, f32, 32, 6)
    mlx_model(out, "mlx-8bit-g128", 27, bf16, 128, 8)


def dequant_table(path: Path):
    """Every width and group size on a [3, 256] matrix, the three scale dtypes in turn, one group all zero."""
    rng = np.random.default_rng(30)
    tensors = {}
    dtypes = {32: mx.float16, 64: mx.bfloat16, 128: mx.float32}
    for bits in (2, 3, 4, 5, 6, 8):
        for group, dtype in dtypes.items():
            matrix = rng.normal(0.0, 1.0, (3, 256)).astype(np.float32)
            matrix[0, :128] = 0.0
            matrix[1] = np.abs(matrix[1]) + 0.5  # never reaches 0: scale counts down from the maximum
            matrix[2] = -np.abs(matrix[2])
            packed = mx.quantize(mx.array(matrix).astype(dtype), group_size=group, bits=bits)
            key = f"b{bits}.g{group}"
            tensors |= {f"{key}.{k}": to_torch(v) for k, v in zip(("weight", "scales", "biases"), packed)}
            tensors[f"{key}.values"] = torch.from_numpy(dequantise(*packed, group, bits))
    save_file(tensors, path)


DENSE = {
    "gemma1-mqa": gemma1_mqa,
    "gemma1-mha": gemma1_mha,
    "gemma2-gqa": gemma2_gqa,
    "gemma3-v4": gemma3_v4,
    "gemma3-v5": gemma3_v5,
    "gemma3-mm": gemma3_mm,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tests/golden"), help="the golden folder (tests/golden)")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    mx.set_default_device(mx.cpu)
    args.out.mkdir(parents=True, exist_ok=True)
    for stale in [p for pattern in ("gemma*", "mlx-*") for p in args.out.glob(pattern)]:
        shutil.rmtree(stale)
    for name, make in DENSE.items():
        make(args.out / name)
    gemma3_prefixes(args.out)
    mlx_models(args.out)
    dequant_table(args.out / "dequant.safetensors")
    record_versions(args.out, Path(__file__), ("transformers", "torch", "mlx", "mlx-lm", "numpy", "safetensors"))


if __name__ == "__main__":
    main()
