"""lapidary and huggingface_hub on one cache: what either fetched, the other finds. See tools/interop.py."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from loopback_hub import Hub, downloads

NAME = "org/tiny"


class Cache:
    """A cache of its own, which both programs are pointed at."""

    def __init__(self, hub: Hub, lapidary: Path, folder: Path):
        self.hub, self.lapidary, self.folder = hub, lapidary.resolve(), folder.resolve()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
        self.env = clean | {"HF_HOME": str(self.folder), "HF_ENDPOINT": hub.url, "no_proxy": "*"}
        hub.take_log()

    def ours(self, *args):
        done = subprocess.run([self.lapidary, *args], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"lapidary {' '.join(args)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def theirs(self, code: str, **kwargs):
        """What Python code that may say `hub` prints as JSON."""
        head = "import json, huggingface_hub as hub\n"
        done = subprocess.run([sys.executable, "-c", head + code], env=self.env, capture_output=True, text=True, check=False,
                              **kwargs)  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return json.loads(done.stdout)

    def fetched(self):
        """How many requests for content the hub has had since the last call."""
        return len(downloads(self.hub.take_log()))

    def theirs_has_no_complaint(self):
        return self.theirs("print(json.dumps(list(map(str, hub.scan_cache_dir().warnings))))") == []


SNAPSHOT = f"print(json.dumps(hub.snapshot_download('{NAME}')))"


def check_theirs_after_ours(checks, cache: Cache):
    pulled = cache.ours("pull", NAME, "--json")
    first = cache.fetched()
    path = cache.theirs(SNAPSHOT)
    file = cache.theirs(f"print(json.dumps(hub.hf_hub_download('{NAME}', 'model.safetensors')))")
    again = cache.fetched()
    checks.report("hub, huggingface_hub after pull", path == pulled["path"] and file.startswith(path) and again == 0,
                  f"{first} requests for content, then {again}")  # fmt: skip
    offline = cache.theirs(f"print(json.dumps(hub.snapshot_download('{NAME}', local_files_only=True)))")
    checks.report("hub, huggingface_hub offline", offline == path, offline)
    checks.report("hub, scan_cache_dir", cache.theirs_has_no_complaint(), "no warnings expected")


def check_ours_after_theirs(checks, cache: Cache):
    path = cache.theirs(SNAPSHOT)
    first = cache.fetched()
    pulled = cache.ours("pull", NAME, "--json")
    again = cache.fetched()
    checks.report("hub, pull after huggingface_hub", pulled["path"] == path and again == 0 and first > 0,
                  f"{first} requests for content, then {again}")  # fmt: skip
    shown = cache.ours("show", "-m", NAME, "--json")
    checks.report("hub, -m after huggingface_hub", shown["model"] == path, shown["model"])
    checked = cache.ours("cache", "verify", "--json")
    checks.report("hub, cache verify", checked["blobs"] > 0 and checked["faults"] == [], f"{checked['blobs']} blobs")


def check_locks(checks, cache: Cache):
    """A pull waits for a file that huggingface_hub is about to bring."""
    file = cache.hub.models[NAME]["main"].files["model.safetensors"]
    lock = cache.folder / "hub/.locks" / f"models--{NAME.replace('/', '--')}" / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True)
    code = f"""import sys, time
from huggingface_hub.utils import WeakFileLock
with WeakFileLock({str(lock)!r}):
    print("held", flush=True)
    time.sleep(3)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], env=cache.env, stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    start = time.monotonic()
    cache.ours("pull", NAME, "--json")
    waited = time.monotonic() - start
    holder.wait()
    checks.report("hub, locks", waited > 2, f"waited {waited:.1f} s of 3")


def check_shared_store(checks, cache: Cache):
    """Content that huggingface_hub moved to its shared store is found, and goes with its last user."""
    pulled = cache.ours("pull", NAME, "--json")
    blob = (Path(pulled["path"]) / "model.safetensors").resolve()
    code = f"""from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store as publish
print(json.dumps(publish(blob_path={str(blob)!r}, xet_hash="ab" * 32, cache_dir={str(cache.folder / "hub")!r},
                         expected_size={blob.stat().st_size}, replace_existing=False)))"""
    published = cache.theirs(code) and blob.is_symlink()
    checked = cache.ours("cache", "verify", "--json")
    freed = cache.ours("rm", NAME, "--json")["freed_bytes"]
    left = [p for p in (cache.folder / "hub/blobs").rglob("*" + "ab" * 32)]
    checks.report("hub, shared store", published and checked["faults"] == [] and freed == pulled["bytes"] and left == [],
                  f"{freed} of {pulled['bytes']} bytes freed, {len(left)} left")  # fmt: skip


def check_removal(checks, cache: Cache):
    cache.theirs(SNAPSHOT)
    cache.theirs(f"print(json.dumps(hub.snapshot_download('{NAME}', revision='v2')))")
    removed = cache.ours("rm", f"{NAME}@v2", "--json")
    revisions = cache.theirs("print(json.dumps([sorted(r.refs) for m in hub.scan_cache_dir().repos for r in m.revisions]))")
    cache.fetched()
    cache.theirs(SNAPSHOT)
    kept = revisions == [["main"]] and cache.theirs_has_no_complaint() and cache.fetched() == 0
    checks.report("hub, rm of a revision", kept and removed["freed_bytes"] > 0, f"left {revisions}")


def check_hub(checks, lapidary: Path, work: Path):
    """The model of models/tiny and a second revision of it, on a hub on the loopback."""
    models, tiny = work / "models", Path(__file__).parent.parent / "models/tiny"
    for revision in ("", "@v2"):
        shutil.copytree(tiny, models / (NAME + revision))
    with (models / f"{NAME}@v2/README.md").open("a") as file:
        file.write("\nA second revision.\n")
    with Hub(models) as hub:
        for check in (check_theirs_after_ours, check_ours_after_theirs, check_locks, check_shared_store, check_removal):
            check(checks, Cache(hub, lapidary, work / check.__name__))
