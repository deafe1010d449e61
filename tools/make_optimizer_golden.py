#!/usr/bin/env python3
"""Writes tests/golden/optimizers.safetensors: 20 steps of torch.optim's AdamW, SGD and Muon on small random tensors.

    python tools/make_optimizer_golden.py

Three parameters: a matrix, a taller matrix that takes no decay, a vector. `value.NAME` is where they begin, `grad.NAME`,
[20, ...], the gradient of each step, as given in f32. For each optimizer: `OPTIMIZER.NAME` after 20 steps, and the state
as `OPTIMIZER.STATE.NAME`. The step t has the rate 1e-2 * (t + 1) / 20. Beside each, `.exact`: the same in float64.
PyTorch's Muon iterates in bf16; here it is made to iterate in the type of its input.
"""
from pathlib import Path

import torch
import torch.optim._muon as torch_muon
from golden_common import record_versions
from safetensors.torch import save_file

STEPS = 20
SHAPES = {"wide": (6, 40), "tall": (33, 5), "vector": (17,)}
GOLDEN = Path(__file__).parent.parent / "tests/golden"


class InFullPrecision:
    """The module torch as torch_muon sees it, where bfloat16 is the type of the tensors."""

    def __init__(self, dtype):
        self.bfloat16 = dtype

    def __getattr__(self, name):
        return getattr(torch, name)


def make_optimizer(kind, parameters):
    groups = [{"params": [p], "weight_decay": 0.0 if name == "tall" else 0.1} for name, p in parameters.items()]
    if kind == "adamw":
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    if kind == "plain_sgd":
        return torch.optim.SGD(groups)
    return torch.optim.Muon(groups[:2], momentum=0.95, adjust_lr_fn="match_rms_adamw")


def run(kind, begin, grads, dtype):
    """All parameters and their state after the steps."""
    torch_muon.torch = InFullPrecision(dtype)
    parameters = {name: torch.nn.Parameter(value.to(dtype).clone()) for name, value in begin.items()}
    optimizer = make_optimizer(kind, parameters)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (step + 1) / STEPS
        for name, p in parameters.items():
            p.grad = grads[name][step].to(dtype).clone()
        optimizer.step()
    made = {}
    for name, p in parameters.items():
        if kind == "muon" and name == "vector":
            continue
        made[f"{kind}.{name}"] = p.detach()
        for key, value in optimizer.state[p].items():
            if key != "step" and value is not None:
                made[f"{kind}.{key}.{name}"] = value
    return made


def main():
    torch.manual_seed(11)
    torch.set_num_threads(1)
    begin = {name: torch.randn(shape) * 0.05 for name, shape in SHAPES.items()}
    # Gradients of sizes from 1e-7 to 10, with zeros: eps and the corrections show.
    grads = {name: torch.randn(STEPS, *shape) * 10 ** (torch.rand(shape) * 8 - 7) for name, shape in SHAPES.items()}
    grads["wide"][:, 0, :3] = 0
    tensors = {f"value.{name}": value for name, value in begin.items()}
    tensors |= {f"grad.{name}": value for name, value in grads.items()}
    for kind in ("adamw", "sgd", "plain_sgd", "muon"):
        tensors |= run(kind, begin, grads, torch.float32)
        tensors |= {f"{name}.exact": value.float() for name, value in run(kind, begin, grads, torch.float64).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, GOLDEN / "optimizers.safetensors")
    record_versions(GOLDEN, Path(__file__), ("torch", "numpy", "safetensors"))


if __name__ == "__main__":
    main()
