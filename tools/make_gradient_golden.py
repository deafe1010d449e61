"""Gradients and a short training run of the small golden models, by the reference in double precision.

Writes tests/golden/MODEL/gradients.safetensors: for the ids of golden.safetensors, `loss` (mean of
-log p over the tokens that follow another), grad.NAME of every parameter, and `adamw.loss` of 20
steps of AdamW on all parameters.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from golden_common import load_reference, record_versions

MODELS = ("gemma1-mqa", "gemma2-gqa", "gemma3-v5")
STEPS, LEARNING_RATE, WEIGHT_DECAY = 20, 1e-3, 0.1


def loss_of(model, ids):
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:])


def main():
    golden = Path(__file__).resolve().parent.parent / "tests" / "golden"
    for name in MODELS:
        folder = golden / name
        model = load_reference(folder).double()
        ids = load_file(folder / "golden.safetensors")["ids"].long()[None]
        loss = loss_of(model, ids)
        loss.backward()
        out = {"loss": loss.detach().float().reshape(1)}
        for parameter, value in model.named_parameters():
            out["grad." + parameter] = value.grad.float().contiguous()
        matrices = [p for p in model.parameters() if p.dim() > 1]
        norms = [p for p in model.parameters() if p.dim() == 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}],
            lr=LEARNING_RATE,
        )
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of(model, ids)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        out["adamw.loss"] = torch.tensor(losses, dtype=torch.float32)
        save_file(out, folder / "gradients.safetensors")
        print(name, "loss", losses[0], "->", losses[-1], file=sys.stderr)
    record_versions(golden, Path(__file__), ("torch", "transformers", "safetensors"))


if __name__ == "__main__":
    main()
