"""Training: adapters that lapidary and PEFT trained run in the other, and TensorBoard reads a run's events.

Called by interop.py. The base is the built-in model.
"""

import json
from pathlib import Path

import torch
from interop_adapters import BOUND, peft_logits

TINY = Path(__file__).parent.parent / "models/tiny"
TEXT = "The lapidary cuts the stone along its grain, turns it to the light, and looks. "
EVERYTHING = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS = 8


def train_with_peft(folder: Path, ids):
    """Saves an adapter that PEFT trained for a few steps, and returns the losses."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=EVERYTHING))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    row = torch.tensor([ids])
    losses = []
    for _ in range(STEPS):
        loss = model(input_ids=row, labels=row, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.save_pretrained(folder)
    return losses


def read_events(run: Path):
    """{tag: [(step, value)]} of the run's event files, as TensorBoard has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def check_training(checks, lapidary, work: Path):
    """The checks; `checks` and `lapidary` are interop.py's."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    text, run = work / "text.txt", work / "run"
    text.write_text(TEXT * 8)
    ids = AutoTokenizer.from_pretrained(TINY)(TEXT).input_ids

    def logits(adapter):
        listed, out = ",".join(map(str, ids)), work / "logits.safetensors"
        lapidary.run("score", "-m", TINY, "--adapter", adapter, "--compute", "exact", "--ids", listed, "--logits", out)
        return load_file(out)["logits"]

    lapidary.run("train", "-m", TINY, "--data", text, "-o", run, "--iters", STEPS, "--rank", 4, "--lr", 1e-2,
                 "--sequence-length", 64)  # fmt: skip
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    learned = lines[-1]["loss"] < lines[0]["loss"] - 0.5
    checks.report("lapidary trains an adapter", learned, f"loss {lines[0]['loss']:.3f} to {lines[-1]['loss']:.3f}")
    checks.compare("its logits, PEFT", logits(run / "adapter"), peft_logits(TINY, run / "adapter", ids), BOUND)

    theirs = work / "peft"
    losses = train_with_peft(theirs, ids)
    checks.report("PEFT trains an adapter", losses[-1] < losses[0] - 0.5, f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
    checks.compare("its logits, lapidary", logits(theirs), peft_logits(TINY, theirs, ids), BOUND)

    events = read_events(run)
    for tag in ("loss", "lr", "grad_norm", "tokens_per_second"):
        expected = [(line["step"], line[tag]) for line in lines]
        got = events.get(tag, [])
        same = len(got) == len(expected) and all(
            a == c and abs(b - d) <= 1e-6 * abs(d) for (a, b), (c, d) in zip(got, expected, strict=True)
        )
        checks.report(f"TensorBoard reads {tag}", same, f"{len(got)} values, {len(expected)} in metrics.jsonl")
