#!/usr/bin/env python3
"""Writes what mlx.core.quantize makes of a few rows, for tests/quant/affine_test.cc.

    python tools/make_affine_golden.py tests/golden/mlx_encode.safetensors

For each dtype in f32, f16, bf16: `DTYPE.values`, and for each width and group size
`DTYPE.b{bits}.g{group}.{weight,scales,biases}`.
"""
import sys

import mlx.core as mx
import numpy as np

COLS = 256


def rows() -> np.ndarray:
    rng = np.random.default_rng(7)
    normal = rng.normal(0, 0.02, COLS)
    steps = rng.integers(-16, 16, COLS) / 2.0  # halves between codes: ties
    edges = np.concatenate([
        np.zeros(32), np.full(32, 0.125), np.full(32, -0.125), rng.normal(0, 1e-8, 32),
        rng.normal(0, 1000, 64), np.where(np.arange(64) % 2, 1.0, -1.0)])
    return np.stack([normal, np.abs(normal), -np.abs(normal) - 0.01, steps, edges]).astype(np.float32)


def main() -> None:
    tensors = {}
    for dtype, name in ((mx.float32, "f32"), (mx.float16, "f16"), (mx.bfloat16, "bf16")):
        values = mx.array(rows()).astype(dtype)
        tensors[f"{name}.values"] = values
        for bits in (2, 3, 4, 5, 6, 8):
            for group in (32, 64, 128):
                parts = mx.quantize(values, group_size=group, bits=bits)
                for part, array in zip(("weight", "scales", "biases"), parts):
                    tensors[f"{name}.b{bits}.g{group}.{part}"] = array
    mx.save_safetensors(sys.argv[1], tensors, metadata={"mlx": mx.__version__})


if __name__ == "__main__":
    main()
