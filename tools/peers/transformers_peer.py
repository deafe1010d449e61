#!/usr/bin/env python3
"""HF transformers as a peer of `lapidary bench peers`.

    transformers_peer.py MODEL_FOLDER [THREADS]
"""
import sys

import torch
import transformers
from protocol import serve


def load():
    if len(sys.argv) > 2:
        torch.set_num_threads(int(sys.argv[2]))
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)

    def greedy(ids):
        cache = transformers.DynamicCache(config=model.config)
        step = torch.tensor([ids])
        while True:
            with torch.inference_mode():
                out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            step = out.logits[:, -1].argmax(-1, keepdim=True)
            yield int(step)

    return greedy


serve(load)
