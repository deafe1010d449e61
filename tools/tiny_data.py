#!/usr/bin/env python3
"""Writes what the built-in model learns from: train.txt and valid.txt, of a play as text.

The first nine tenths of the corpus are for training, the rest for validation. train.txt goes through the running text
several times, each time from another place, so that windows are cut elsewhere; between the passes, a quarter of the
whole, come chats in Gemma's format that are made of consecutive speeches of the play, so that the model also answers.
"""

import argparse
import random
from pathlib import Path

EXCHANGES = (1, 3)  # of a chat, from and to
NAMED = 0.3  # chats whose system text says who the model is


def split_corpus(text: str):
    """The training part, cut at the end of a speech, and the rest."""
    cut = text.rindex("\n\n", 0, len(text) * 9 // 10) + 2
    return text[:cut], text[cut:]


def speeches(text: str):
    """(name, speech) of each speech, in order."""
    parts = (block.strip().partition(":\n") for block in text.split("\n\n"))
    return [(name, speech) for name, _, speech in parts if speech]


def chat(spoken, rng: random.Random):
    turns = 2 * rng.randint(*EXCHANGES)
    first = rng.randrange(len(spoken) - turns)
    system = f"You are {spoken[first + 1][0]}.\n\n" if rng.random() < NAMED else ""
    text = "<bos>"
    for i in range(turns):
        role = "model" if i % 2 else "user"
        text += f"<start_of_turn>{role}\n{system if i == 0 else ''}{spoken[first + i][1]}<end_of_turn>\n"
    return text


def training_text(text: str, passes: int, rng: random.Random):
    spoken = speeches(text)
    out = []
    for _ in range(passes):
        start = text.index("\n\n", rng.randrange(len(text) // 2)) + 2
        out.append("<bos>" + text[start:] + text[:start])
        size, wanted = 0, len(text) // 3  # a quarter of all
        while size < wanted:
            out.append(chat(spoken, rng))
            size += len(out[-1])
    return "".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a play as text: 'NAME:', lines, an empty line")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--passes", type=int, default=4, help="through the running text (4)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    train, valid = split_corpus(args.corpus.read_text(encoding="utf-8"))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "train.txt").write_text(training_text(train, args.passes, random.Random(args.seed)), encoding="utf-8")
    (args.out / "valid.txt").write_text(valid, encoding="utf-8")


if __name__ == "__main__":
    main()
