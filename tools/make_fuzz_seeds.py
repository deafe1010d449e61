#!/usr/bin/env python3
"""Writes the seeds of the safetensors fuzzer: small files, right and wrong in one way each.

  tools/make_fuzz_seeds.py [FOLDER]      tests/fuzz/corpus/safetensors unless given

Layout of a file: the header's length as u64, the header as JSON, the tensors' bytes.
"""
import json
import pathlib
import struct
import sys

BYTES = bytes(range(16))


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def file(header, size, pad=True):
    text = json.dumps(header, separators=(",", ":")).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + BYTES[:size]


def seeds():
    f32 = tensor("F32", [2], 0, 8)
    yield "empty", file({}, 0)
    yield "two", file({"a": f32, "b": tensor("U8", [3], 8, 11)}, 11)
    yield "scalar", file({"s": tensor("I64", [], 0, 8), "e": tensor("I32", [0, 5], 8, 8)}, 8)
    yield "metadata", file({"__metadata__": {"format": "pt"}, "w": tensor("BF16", [2, 2], 0, 8)}, 8)
    yield "unpadded", file({"__metadata__": {"format": "mlx"},
                            "l.weight": tensor("U32", [1, 2], 0, 8),
                            "l.scales": tensor("F16", [1, 1], 8, 10),
                            "l.biases": tensor("F16", [1, 1], 10, 12)}, 12, pad=False)
    yield "cut", file({"a": f32}, 5)
    yield "hole", file({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 5, 9)}, 9)
    yield "overlap", file({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, 6)
    yield "overflow", file({"a": tensor("U8", [2**32, 2**32], 0, 1)}, 1)
    yield "long_header", struct.pack("<Q", 2**63) + b"{}"


def main():
    corpus = pathlib.Path(__file__).parent.parent / "tests/fuzz/corpus/safetensors"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else corpus
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in seeds():
        (folder / f"{name}.safetensors").write_bytes(contents)


if __name__ == "__main__":
    main()
