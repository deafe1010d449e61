#!/usr/bin/env python3
"""Writes tests/golden/matrices.json: what numpy and MLX say of the matrices of some models' layers, for
tests/study/matrix_study_test.cc.

    python tools/make_matrix_golden.py

For each matrix, in double: singular values by numpy.linalg.svd, what is made of them, and, of the built-in model, by how
much mlx.core.quantize to 4 bits in groups of 64 changes it and what it makes of the activations that the reference has on
`ids`. `diff` is the built-in model and the one so rounded, embedding included: how the reference reads the ids with each.
"""
import copy
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import torch

from golden_common import load_reference, record_versions, write_json

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden"
MODELS = {"tiny": ROOT / "models/tiny", "gemma2-gqa": GOLDEN / "gemma2-gqa", "mlx-4bit-g64": GOLDEN / "mlx-4bit-g64"}
IDS = [2] + [300 + i * i % 97 for i in range(47)]  # of tiny
VALUES = 6
DIRECTIONS = 8


def dense(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def matrices(folder: Path):
    """(layer, name) -> [rows, cols] in double; of a quantised folder scale * code + bias."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= mx.load(str(file))
    found = {}
    for layer in range(config["num_hidden_layers"]):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                     "mlp.up_proj", "mlp.down_proj"):
            path = f"model.layers.{layer}.{name}."
            weight = tensors[path + "weight"]
            if path + "scales" in tensors:
                quantization = config["quantization"]
                weight = mx.dequantize(weight, tensors[path + "scales"].astype(mx.float32),
                                       tensors[path + "biases"].astype(mx.float32),
                                       quantization["group_size"], quantization["bits"])
            found[layer, name] = weight
    return found


def spectrum(weight: np.ndarray) -> dict:
    values = np.linalg.svd(weight, compute_uv=False)
    real = values[values > max(weight.shape) * 2.0**-23 * values[0]]
    shares = real / real.sum()
    squares, k = real**2, len(real) // 2
    return {
        "rows": weight.shape[0], "cols": weight.shape[1],
        "norm": np.linalg.norm(weight),
        "stable_rank": (values**2).sum() / values[0]**2,
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
        "tail_exponent": 1 + k / np.log(squares[:k] / squares[k]).sum(),
        "values": values[:VALUES].tolist(),
    }


def inputs_of(folder: Path, ids) -> dict:
    """(layer, name) -> what the matrix multiplies, [T, cols]."""
    model, inputs = load_reference(folder), {}
    for path, module in model.named_modules():
        if path.startswith("model.layers.") and path.endswith("_proj"):
            layer, name = path.removeprefix("model.layers.").split(".", 1)
            module.register_forward_pre_hook(
                lambda _, args, key=(int(layer), name): inputs.__setitem__(key, args[0][0].double().numpy()))
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    return inputs


def rounded(weight: mx.array) -> np.ndarray:
    codes, scales, biases = mx.quantize(weight, group_size=64, bits=4)
    return dense(mx.dequantize(codes, scales.astype(mx.float32), biases.astype(mx.float32), 64, 4))


def errors(weight: mx.array, x: np.ndarray) -> dict:
    """What rounding changes: of the matrix, of its products, and the change as `study diff` describes it."""
    a, b = dense(weight), rounded(weight)
    change = b - a
    u_a, _, v_a = np.linalg.svd(a, full_matrices=False)
    u_b, _, v_b = np.linalg.svd(b, full_matrices=False)
    overlap = lambda x, y: np.mean(np.linalg.svd(x.T @ y, compute_uv=False)**2)
    described = spectrum(change)
    return {"weights": np.linalg.norm(change) / np.linalg.norm(a),
            "outputs": np.linalg.norm(x @ change.T) / np.linalg.norm(x @ a.T),
            "stable_rank": described["stable_rank"], "effective_rank": described["effective_rank"],
            "largest": described["values"][0],
            "cosine": (a * change).sum() / np.linalg.norm(a) / np.linalg.norm(change),
            "overlap_out": overlap(u_a[:, :DIRECTIONS], u_b[:, :DIRECTIONS]),
            "overlap_in": overlap(v_a[:DIRECTIONS].T, v_b[:DIRECTIONS].T)}


def round_all(module):
    """Embedding and matrices of a reference model, or a layer of one, as 4 bits leave them."""
    for part in module.modules():
        if isinstance(part, (torch.nn.Linear, torch.nn.Embedding)):
            weight = mx.array(part.weight.detach().numpy()).astype(mx.bfloat16)
            part.weight.data = torch.tensor(rounded(weight), dtype=torch.float32)


@torch.no_grad()
def read(model, ids):
    """Streams after the layers, attention weights, ln of the likelihoods of what follows each token."""
    streams = []
    hooks = [layer.register_forward_hook(lambda _, args, out: streams.append(
        (out[0] if isinstance(out, tuple) else out).reshape(len(ids), -1).double().numpy()))
        for layer in model.model.layers]
    out = model(input_ids=torch.tensor([ids]), use_cache=False, output_attentions=True)
    for hook in hooks:
        hook.remove()
    return streams, [a[0].double().numpy() for a in out.attentions], out.logits[0, :-1].double().log_softmax(-1)


def nll(log_p, ids) -> float:
    return -log_p[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].mean().item()


def cka(x, y) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(y.T @ x)**2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def diff(folder: Path, ids) -> dict:
    a, b = load_reference(folder), load_reference(folder)
    round_all(b.model)
    streams_a, patterns_a, log_a = read(a, ids)
    streams_b, patterns_b, log_b = read(b, ids)
    layers = []
    for i, (x, y) in enumerate(zip(streams_a, streams_b)):
        swapped = copy.deepcopy(a)
        round_all(swapped.model.layers[i])
        layers.append({
            "stream": np.mean(np.linalg.norm(y - x, axis=1) / np.linalg.norm(x, axis=1)), "similarity": cka(x, y),
            "attention": (np.abs(patterns_b[i] - patterns_a[i]).sum(-1) / 2)[:, 1:].mean(1).tolist(),
            "swapped_nll": nll(read(swapped, ids)[2], ids)})
    return {"nll_a": nll(log_a, ids), "nll_b": nll(log_b, ids),
            "kld": (log_a.exp() * (log_a - log_b)).sum(-1).mean().item(), "layers": layers}


def main() -> None:
    golden = {"ids": IDS, "models": {}}
    for name, folder in MODELS.items():
        inputs = inputs_of(folder, IDS) if name == "tiny" else {}
        golden["models"][name] = []
        for (layer, matrix), weight in matrices(folder).items():
            entry = {"layer": layer, "name": matrix, **spectrum(dense(weight))}
            if inputs:
                entry["at_4_bits"] = errors(weight, inputs[layer, matrix])
            golden["models"][name].append(entry)
    golden["diff"] = diff(MODELS["tiny"], IDS)
    write_json(GOLDEN / "matrices.json", golden, indent=None)
    record_versions(GOLDEN, Path(__file__), ("numpy", "mlx", "torch", "transformers"))


if __name__ == "__main__":
    main()
