"""What the Python peers of `lapidary bench peers` share; src/bench/peers.h says what is read and written."""
import json
import sys
import time
from collections.abc import Callable, Iterator


def serve(load: Callable[[], Callable[[list[int]], Iterator[int]]]) -> None:
    """load() returns a function that yields greedy tokens after ids, without end, from an empty cache."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    start = time.perf_counter()
    greedy = load()
    print(json.dumps({"load_s": time.perf_counter() - start}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        tokens, making = [], greedy(request["ids"])
        tokens.append(next(making))
        first = time.perf_counter()
        while len(tokens) < request["n"]:
            tokens.append(next(making))
        end = time.perf_counter()
        making.close()
        print(json.dumps({"ttft_s": first - start, "decode_s": end - first, "tokens": tokens}), file=answers, flush=True)
