#!/usr/bin/env python3
"""Writes what ggml makes of a few blocks of 256 weights as Q4_K and Q6_K, for tests/quant/k_test.cc.

    python tools/make_k_golden.py LIBGGML [FILE]     with the package gguf; tests/golden/ggml_k.safetensors unless given

LIBGGML is libggml-base.so of llama.cpp, for instance of node-llama-cpp (node_modules/@node-llama-cpp/linux-x64/bins/):
it quantises, and the package gguf dequantises. The file has `values` f32 [blocks, 256], and for each of `q4_k` and
`q6_k` the blocks as bytes and `.values`.
"""
import ctypes
import pathlib
import sys

import gguf
import numpy as np
from gguf.quants import dequantize
from make_gguf_golden import safetensors

TYPES = {"q4_k": gguf.GGMLQuantizationType.Q4_K, "q6_k": gguf.GGMLQuantizationType.Q6_K}


def blocks() -> np.ndarray:
    rng = np.random.default_rng(5)
    normal = rng.normal(0, 0.02, (48, 256))
    special = np.stack([
        np.zeros(256), np.full(256, 0.125), np.full(256, -0.125), np.where(np.arange(256) % 2, 1.0, -1.0),
        np.arange(256) - 128.0, np.abs(rng.normal(0, 1, 256)), -np.abs(rng.normal(0, 1, 256)),
        rng.normal(0, 1e-8, 256), rng.normal(0, 1000, 256), rng.standard_t(2, 256),
        rng.normal(0, 1, 256) * np.repeat(2.0 ** np.arange(8), 32)])  # groups of very different size
    return np.concatenate([normal, special]).astype(np.float32)


def quantize(library: ctypes.CDLL, values: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    rows, columns = values.shape
    out = np.zeros((rows, gguf.GGML_QUANT_SIZES[kind][1] * columns // 256), np.uint8)
    run = library.ggml_quantize_chunk
    run.restype = ctypes.c_size_t
    run.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
                    ctypes.c_void_p]
    written = run(kind.value, values.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    assert written == out.nbytes, f"{written} bytes, expected {out.nbytes}"
    return out


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    golden = pathlib.Path(__file__).parent.parent / "tests/golden/ggml_k.safetensors"
    values = blocks()
    tensors = {"values": values}
    for name, kind in TYPES.items():
        tensors[name] = quantize(library, values, kind)
        tensors[f"{name}.values"] = dequantize(tensors[name], kind).astype(np.float32)
    pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else golden).write_bytes(safetensors(tensors))


if __name__ == "__main__":
    main()
