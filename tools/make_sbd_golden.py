"""Losses and gradients of training on set blocks (arXiv 2509.04185), by the reference in double precision.

Writes tests/golden/sbd.json. For each of the small golden models: `documents`, each with its `tokens`, which of them are
`masked` in its noisy copy, and the tokens of a `block`; `ntp_nats` and `matp_nats`, the two sums of -log p; and of the
loss (ntp_nats + matp_nats) / targets the gradient by every parameter: its `norm`, and `values`, every `step`-th of it.

The reference sees one sequence, [clean ; noisy] of each document after the other, under masks that are written out here
pair by pair.
"""

import sys
from pathlib import Path

import torch

from golden_common import load_reference, record_versions, write_json

MODELS = ("gemma2-gqa", "gemma3-v5")
MASK = 4
# Tokens and block of each document: longer than a window, with a short last block; shorter than a block; a multiple.
DOCUMENTS = ((41, 6), (3, 5), (24, 4))
ETAS = (0.6, 1.0, 0.3)
VALUES = 48  # of each gradient, about


def make_documents(vocab):
    chance = torch.Generator().manual_seed(20250904)
    documents = []
    for (length, block), eta in zip(DOCUMENTS, ETAS, strict=True):
        tokens = torch.randint(5, vocab, (length,), generator=chance)
        tokens[0] = 2
        masked = torch.rand(length, generator=chance) < eta
        masked[0] = False
        documents.append({"tokens": tokens.tolist(), "masked": [int(m) for m in masked], "block": block})
    return documents


def rows_of(documents):
    """(document, noisy, position, token, block) of each row."""
    rows = []
    for number, d in enumerate(documents):
        for noisy in (False, True):
            for position, token in enumerate(d["tokens"]):
                hidden = noisy and d["masked"][position]
                rows.append((number, noisy, position, MASK if hidden else token, position // d["block"]))
    return rows


def sees(query, key, window):
    document, noisy, position, _, block = query
    key_document, key_noisy, key_position, _, key_block = key
    if document != key_document:
        return False
    if key_noisy:
        return noisy and block == key_block
    if window is not None and position - key_position >= window:
        return False
    return key_block < block if noisy else key_position <= position


def additive_mask(rows, window):
    seen = torch.tensor([[sees(query, key, window) for key in rows] for query in rows])
    mask = torch.zeros(seen.shape, dtype=torch.float64)
    return mask.masked_fill(~seen, torch.finfo(torch.float64).min)[None, None]


def losses(model, documents):
    rows = rows_of(documents)
    masks = {
        "full_attention": additive_mask(rows, None),
        "sliding_attention": additive_mask(rows, model.config.sliding_window),
    }
    logits = model(
        input_ids=torch.tensor([[row[3] for row in rows]]),
        position_ids=torch.tensor([[row[2] for row in rows]]),
        attention_mask=masks,
        use_cache=False,
    ).logits[0]
    log_p = torch.log_softmax(logits, dim=-1)
    ntp = matp = 0.0
    targets = 0
    for at, (number, noisy, position, _, _) in enumerate(rows):
        document = documents[number]
        if noisy and document["masked"][position]:
            matp = matp - log_p[at, document["tokens"][position]]
        elif not noisy and position + 1 < len(document["tokens"]):
            ntp = ntp - log_p[at, document["tokens"][position + 1]]
            targets += 1
    return ntp, matp, targets


def main():
    golden = Path(__file__).resolve().parent.parent / "tests" / "golden"
    out = {}
    for name in MODELS:
        model = load_reference(golden / name).double()
        documents = make_documents(model.config.vocab_size)
        ntp, matp, targets = losses(model, documents)
        ((ntp + matp) / targets).backward()
        gradients = {}
        for parameter, value in model.named_parameters():
            flat = value.grad.flatten()
            step = max(1, flat.numel() // VALUES)
            gradients[parameter] = {"norm": flat.norm().item(), "step": step, "values": flat[::step].tolist()}
        out[name] = {
            "mask_token_id": MASK,
            "documents": documents,
            "targets": targets,
            "ntp_nats": ntp.item(),
            "matp_nats": matp.item(),
            "gradients": gradients,
        }
        print(name, "ntp", ntp.item(), "matp", matp.item(), "targets", targets, file=sys.stderr)
    write_json(golden / "sbd.json", out, indent=None)
    record_versions(golden, Path(__file__), ("torch", "transformers"))


if __name__ == "__main__":
    main()
