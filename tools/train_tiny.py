#!/usr/bin/env python3
"""Trains a model like the built-in one with transformers, to compare `lapidary train` (tools/tiny.sh) with.

The first nine tenths of the corpus are for training, the rest for validation. A quarter of the training rows are chats
in Gemma's template, made of consecutive speeches of the play, so that the model also answers. The checkpoint with the
lowest validation loss is kept. An interrupted run goes on from where it was when started again with the same --work.
"""

import argparse
import math
import random
import shutil
import time
from pathlib import Path

import torch
from golden_common import write_json
from tiny_data import split_corpus
from tiny_tokenizer import write_tokenizer
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig
from transformers.utils import logging

VOCAB, CONTEXT, ROW = 4096, 2048, 512
BOS, START, END, NEWLINE = 2, 105, 106, 107

CONFIG = dict(
    vocab_size=VOCAB, hidden_size=256, intermediate_size=640, num_hidden_layers=7, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, query_pre_attn_scalar=64, sliding_window=64, max_position_embeddings=CONTEXT,
    eos_token_id=[1, END],
)  # fmt: skip


class Play:
    """A stretch of the corpus as token rows: running text, or chats between its consecutive speakers."""

    def __init__(self, text: str, tokenizer):
        def encode(s):
            return tokenizer(s, add_special_tokens=False).input_ids

        self.ids, self.starts, self.speeches = [], [], []
        for block in text.split("\n\n"):
            self.starts.append(len(self.ids))
            self.ids += encode(block + "\n\n")
            name, _, speech = block.strip().partition(":\n")
            if speech:
                self.speeches.append((encode(f"You are {name}.\n\n"), encode(speech)))
        self.user, self.model = encode("user\n"), encode("model\n")

    def running_row(self, rng: random.Random):
        """<bos> and the text from the beginning of some speech on."""
        start = rng.choice(self.starts[:-1])
        start = min(start, len(self.ids) - ROW + 1)
        return [BOS] + self.ids[start : start + ROW - 1]

    def chat_row(self, rng: random.Random):
        """Chats of one to three exchanges; in three of ten a system text says who the model is."""
        row = []
        while len(row) < ROW:
            turns = 2 * rng.randint(1, 3)
            first = rng.randrange(len(self.speeches) - turns)
            system = self.speeches[first + 1][0] if rng.random() < 0.3 else []
            row.append(BOS)
            for i in range(turns):
                role, preface = (self.user, system if i == 0 else []) if i % 2 == 0 else (self.model, [])
                row += [START, *role, *preface, *self.speeches[first + i][1], END, NEWLINE]
        return row[:ROW]

    def batch(self, rng: random.Random, rows: int):
        """A batch of which a quarter is chats."""
        chats = rows // 4
        made = [self.chat_row(rng) for _ in range(chats)] + [self.running_row(rng) for _ in range(rows - chats)]
        return torch.tensor(made)

    def all_rows(self):
        """The running text once, in rows that each begin with <bos>."""
        step = ROW - 1
        return torch.tensor([[BOS] + self.ids[i : i + step] for i in range(0, len(self.ids) - step + 1, step)])


def add_dropout(model, p: float):
    """Drops elements of the embedding and of each sublayer's output while training; nothing of it is saved."""
    drop = torch.nn.Dropout(p)

    def hook(module, _, output):
        return drop(output) if module.training else output

    model.model.embed_tokens.register_forward_hook(hook)
    for layer in model.model.layers:
        layer.post_attention_layernorm.register_forward_hook(hook)
        layer.post_feedforward_layernorm.register_forward_hook(hook)


def loss_of(model, rows):
    """Mean nats per token."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), rows[:, 1:].reshape(-1))


@torch.no_grad()
def evaluate(model, rows, batch: int):
    model.eval()
    total = sum(loss_of(model, part).item() * len(part) for part in rows.split(batch))
    model.train()
    return total / len(rows)


def optimiser(model, lr: float, decay: float):
    """AdamW that decays the matrices and leaves the norms alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def rate(step: int, steps: int, peak: float):
    """Linear warm-up over 5 % of the steps, then a cosine down to a twentieth."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def train(model, train_play: Play, valid_rows, args):
    """Trains in place, with the best weights in work/best.pt and the state to go on from in work/last.pt."""
    last, best = args.work / "last.pt", args.work / "best.pt"
    opt = optimiser(model, args.lr, args.weight_decay)
    step, best_loss = 0, math.inf
    if last.exists():
        state = torch.load(last)
        model.load_state_dict(state["model"])
        opt.load_state_dict(state["optimiser"])
        step, best_loss = state["step"], state["best_loss"]
        print(f"going on from step {step}")
    add_dropout(model, args.dropout)
    model.train()
    began, first = time.time(), step
    running = None
    while step < args.steps:
        for group in opt.param_groups:
            group["lr"] = rate(step, args.steps, args.lr)
        torch.manual_seed(args.seed + step)  # a resumed run draws what an uninterrupted one would
        loss = loss_of(model, train_play.batch(random.Random(f"{args.seed} {step}"), args.batch))
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"step {step}: the loss is {loss.item()}")
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        running = loss.item() if running is None else 0.9 * running + 0.1 * loss.item()
        if step % args.every == 0 or step == args.steps:
            valid = evaluate(model, valid_rows, args.batch)
            pace = (time.time() - began) / (step - first)
            print(f"step {step}: train {running:.3f}, valid {valid:.4f}, {pace:.2f} s/step", flush=True)
            if valid < best_loss:
                best_loss = valid
                torch.save({"model": model.state_dict(), "step": step, "valid": valid}, best)
            torch.save(
                {"model": model.state_dict(), "optimiser": opt.state_dict(), "step": step, "best_loss": best_loss}, last
            )
    return torch.load(best)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a play as text: 'NAME:', lines, an empty line")
    parser.add_argument("--out", type=Path, required=True, help="where the model goes")
    parser.add_argument("--work", type=Path, default=Path("build/train_tiny"), help="checkpoints (build/train_tiny)")
    parser.add_argument("--steps", type=int, default=650)
    parser.add_argument("--batch", type=int, default=4, help="rows of 512 tokens in a step (4)")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--every", type=int, default=100, help="steps between validations (100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    args.work.mkdir(parents=True, exist_ok=True)

    train_text, valid_text = split_corpus(args.corpus.read_text(encoding="utf-8"))
    files = args.work / "tokenizer"
    files.mkdir(exist_ok=True)
    write_tokenizer(train_text, VOCAB, CONTEXT, files)
    tokenizer = AutoTokenizer.from_pretrained(files)
    valid = Play(valid_text, tokenizer)

    torch.manual_seed(args.seed)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**CONFIG))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(valid.ids):,} tokens to validate on")
    kept = train(model, Play(train_text, tokenizer), valid.all_rows(), args)

    model.load_state_dict(kept["model"])
    model.to(torch.bfloat16).save_pretrained(args.out)
    for file in files.iterdir():
        shutil.copy(file, args.out)
    generation = {
        "bos_token_id": BOS, "do_sample": True, "eos_token_id": [1, END], "pad_token_id": 0, "temperature": 1.0,
        "top_k": 64, "top_p": 0.95,
    }  # fmt: skip
    write_json(args.out / "generation_config.json", generation)
    rounded = evaluate(model.float(), valid.all_rows(), args.batch)
    per_character = rounded * len(valid.ids) / len(valid_text)
    print(f"kept step {kept['step']}: valid {rounded:.4f} nats per token, {per_character:.4f} per character")


if __name__ == "__main__":
    main()
