#!/usr/bin/env python3
"""Writes what the reference of ggml's formats makes of a few rows, for tests/quant/ggml_test.cc and tests/io/gguf_test.cc.

    python tools/make_gguf_golden.py [FOLDER]     with the package gguf; tests/golden unless given

`ggml_encode.safetensors`: `values` f32 [blocks, 32], and the blocks of `q4_0`, `q5_0` and `q8_0` as bytes.
`ggml_decode.safetensors`: of every type of blocks that is read, blocks of random bytes and scales, u8 [blocks, bytes],
and their `.values`, f32. `small.gguf`: a file with metadata of every type and tensors of several.
"""
import pathlib
import struct
import sys

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

TYPES = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "q5_0": gguf.GGMLQuantizationType.Q5_0, "q8_0": gguf.GGMLQuantizationType.Q8_0}


# Of each type the offsets of the numbers in f16.
DECODED = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
           "Q6_K": [208]}


def random_blocks(kind: gguf.GGMLQuantizationType, halves: list[int]) -> np.ndarray:
    rng = np.random.default_rng(kind.value)
    made = rng.integers(0, 256, (8, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    made[0] = 255  # all bits of the codes and the packed scales
    scales = rng.normal(0, 0.05, (8, len(halves))).astype(np.float16)
    scales[1] = 6e-8  # the smallest there is
    for i, offset in enumerate(halves):
        made[:, offset:offset + 2] = scales[:, i:i + 1].view(np.uint8)
    return made


def blocks() -> np.ndarray:
    rng = np.random.default_rng(11)
    normal = rng.normal(0, 0.02, (64, 32))
    ramp = np.arange(32) - 16.0
    special = np.stack([
        np.zeros(32), np.full(32, 0.125), np.full(32, -0.125),  # one magnitude: the first sets the sign
        np.where(np.arange(32) % 2, 1.0, -1.0), np.where(np.arange(32) % 2, -1.0, 1.0),
        ramp, -ramp, ramp / 2, ramp * 127 / 32, np.abs(ramp), -np.abs(ramp),  # halves between codes
        rng.normal(0, 1e-8, 32), rng.normal(0, 1e-6, 32),  # scales that are subnormal as f16
        rng.normal(0, 1000, 32), rng.integers(-254, 255, 32) / 2.0])
    halves = rng.integers(-253, 254, (32, 32)) / 2.0  # with 127 in it d is 1 and every half is a tie
    halves[:, 5] = 127
    return np.concatenate([normal, special, halves]).astype(np.float32)


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    header, data = [], b""
    for name, array in tensors.items():
        dtype = {"float32": "F32", "uint8": "U8"}[str(array.dtype)]
        shape = ",".join(map(str, array.shape))
        header.append(f'"{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{len(data)},'
                      f'{len(data) + array.nbytes}]}}')
        data += array.tobytes()
    text = ("{" + ",".join(header) + "}").encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write_small(path: pathlib.Path) -> None:
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -2000000000)
    writer.add_float32("t.f32", 0.5)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "naïve ▁")
    writer.add_uint64("t.u64", 2**63 + 1)
    writer.add_int64("t.i64", -2**62)
    writer.add_float64("t.f64", 0.1)
    writer.add_array("t.strings", ["a", "", "▁b"])
    writer.add_array("t.floats", [0.25, -1.5])
    writer.add_array("t.ints", [3, -4, 5])
    values = blocks()
    writer.add_tensor("f32", values[:3])
    writer.add_tensor("vector", values[0, :5])
    writer.add_tensor("f16", values[:2].astype(np.float16))
    for name in ("q4_0", "q8_0"):
        kind = TYPES[name]
        writer.add_tensor(name, quantize(values[:6].reshape(3, 64), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    golden = pathlib.Path(__file__).parent.parent / "tests/golden"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else golden
    values = blocks()
    tensors = {"values": values}
    for name, kind in TYPES.items():
        tensors[name] = quantize(values, kind)
        tensors[f"{name}.values"] = dequantize(tensors[name], kind)
    (folder / "ggml_encode.safetensors").write_bytes(safetensors(tensors))
    decoded = {}
    for name, halves in DECODED.items():
        kind = gguf.GGMLQuantizationType[name]
        decoded[name] = random_blocks(kind, halves)
        decoded[f"{name}.values"] = dequantize(decoded[name], kind)
    (folder / "ggml_decode.safetensors").write_bytes(safetensors(decoded))
    write_small(folder / "small.gguf")


if __name__ == "__main__":
    main()
