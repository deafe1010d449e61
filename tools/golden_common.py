"""What the golden-file scripts share: writing tensors, running the reference model, recording versions."""

import datetime
import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def load_reference(folder: Path):
    """Loads a folder as the reference sees it: float32, eager attention, every weight accounted for."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # A text checkpoint has no lm_head: it is tied, and not reported as missing.
        if info[kind]:
            raise RuntimeError(f"{folder}: {kind}: {sorted(info[kind])}")
    return model.eval()


@torch.no_grad()
def forward(model, ids, hidden: bool = False):
    """Teacher-forced logits [T, vocab] without a cache; with `hidden`, also the list of residual streams [T, D]."""
    out = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=hidden)
    logits = out.logits[0].float().contiguous()
    return (logits, [h[0].float().contiguous() for h in out.hidden_states]) if hidden else logits


def save_golden(folder: Path, ids, logits, hidden=()):
    """Writes golden.safetensors: ids int32 [T], logits f32 [T, vocab], hidden.{i} f32 [T, D] where asked for."""
    tensors = {"ids": torch.tensor(ids, dtype=torch.int32), "logits": logits}
    tensors |= {f"hidden.{i}": h for i, h in enumerate(hidden)}
    save_file(tensors, folder / "golden.safetensors")


def write_json(path: Path, value, indent: int | None = 2):
    """Writes JSON as UTF-8 with a final newline."""
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def record_versions(golden: Path, script: Path, packages):
    """Sets this script's entry in VERSIONS.json: its hash, the date and the versions of what it called."""
    path = golden / "VERSIONS.json"
    entries = json.loads(path.read_text()) if path.exists() else {}
    entries[script.name] = {
        "sha256": hashlib.sha256(script.read_bytes()).hexdigest(),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in packages},
    }
    write_json(path, dict(sorted(entries.items())))
