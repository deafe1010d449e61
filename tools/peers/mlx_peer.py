#!/usr/bin/env python3
"""mlx-lm as a peer of `lapidary bench peers`, on the CPU.

    mlx_peer.py MODEL_FOLDER
"""
import pathlib
import sys

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model
from protocol import serve


def load():
    mx.set_default_device(mx.cpu)
    model, _ = load_model(pathlib.Path(sys.argv[1]))
    mx.eval(model.parameters())

    def greedy(ids):
        cache = make_prompt_cache(model)
        step = mx.array([ids])
        while True:
            step = mx.argmax(model(step, cache=cache)[:, -1], axis=-1, keepdims=True)
            yield step.item()

    return greedy


serve(load)
