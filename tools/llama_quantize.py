#!/usr/bin/env python3
"""Quantises a GGUF file with llama.cpp's own quantiser, out of the libraries that node-llama-cpp brings.

  tools/llama_quantize.py MODULES IN.gguf OUT.gguf TYPE

MODULES is where `npm install node-llama-cpp` was run; TYPE is q4_0, q4_1, q5_0, q5_1, q8_0, q6_k, or a mixture: q4_k_s,
q4_k_m, q5_k_s, q5_k_m. Needs nothing but Python.
"""
import ctypes
import pathlib
import sys

TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16,
         "q5_k_m": 17, "q6_k": 18}  # llama_ftype


class Parameters(ctypes.Structure):
    """The start of llama_model_quantize_params; what follows is left as the library's defaults have it."""

    _fields_ = [("threads", ctypes.c_int32), ("file_type", ctypes.c_int32), ("rest", ctypes.c_byte * 248)]


def load(modules: pathlib.Path) -> ctypes.CDLL:
    folder = next(modules.glob("node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"))
    library = None
    for name in ("libggml-base", "libggml-cpu-sse42", "libggml", "libllama"):
        path = sorted(folder.glob(f"{name}.*"))
        if path:
            library = ctypes.CDLL(str(path[0]), mode=ctypes.RTLD_GLOBAL)
    return library


def main() -> None:
    modules, source, target, kind = sys.argv[1:]
    library = load(pathlib.Path(modules))
    library.llama_model_quantize_default_params.restype = Parameters
    parameters = library.llama_model_quantize_default_params()
    parameters.threads, parameters.file_type = 2, TYPES[kind]
    library.llama_backend_init()
    if library.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"llama.cpp did not quantise {source} to {kind}")


if __name__ == "__main__":
    main()
