#!/usr/bin/env python3
"""pull, list, rm, cache verify and -m ORG/NAME from outside, with the hub of tools/loopback_hub.py."""
import json
import os
import pty
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from program import BINARY, SOURCE, Case, main

sys.path.insert(0, str(SOURCE / "tools"))
from loopback_hub import Hub, downloads  # noqa: E402

SEGMENT = 32 << 20  # what a pull asks for at once
FOREIGN = ("HF_", "HUGGING", "TRANSFORMERS_", "XDG_")


def noise(size):
    block = os.urandom(1 << 16)
    return b"".join(struct.pack("<Q", i) + block[8:] for i in range(size // len(block)))


class HubCase(Case):
    def setUp(self):
        super().setUp()
        self.models, self.home = self.folder / "models", self.folder / "home"
        self.cache = self.home / "hub"
        own = {k: v for k, v in self.env.items() if not k.startswith(FOREIGN)}
        self.env = own | {"HF_HOME": str(self.home), "HOME": str(self.folder), "no_proxy": "*"}

    def model(self, name, **files):
        """A model of the hub: file names with _ for the dot."""
        for file, contents in files.items():
            path = self.models / name / file.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())

    def hub(self, **kwargs):
        hub = Hub(self.models, **kwargs)
        self.enterContext(hub)
        self.env["HF_ENDPOINT"] = hub.url
        return hub

    def listed(self):
        return {m["model"]: m for m in json.loads(self.ok("list", "--json").stdout)["models"]}

    def part(self):
        return next(iter(self.cache.glob("*/blobs/*.incomplete")), None)


class Pull(HubCase):
    def test_a_pulled_model_has_a_name(self):
        shutil.copytree(SOURCE / "models/tiny", self.models / "org/tiny")
        hub = self.hub()
        done = self.ok("pull", "org/tiny")
        snapshot = Path(done.stdout.strip())
        for file in (SOURCE / "models/tiny").iterdir():
            self.assertEqual((snapshot / file.name).read_bytes(), file.read_bytes())
        again = json.loads(self.ok("pull", "org/tiny", "--json").stdout)
        self.assertEqual((again["downloaded_bytes"], again["path"]), (0, str(snapshot)))
        hub.take_log()
        by_path = self.ok("tokenize", "-m", str(snapshot), "-p", "To be", "--json").stdout
        for name in ("org/tiny", "org/tiny@main", "org/tiny@" + snapshot.name, "org/tiny@" + snapshot.name[:7]):
            self.assertEqual(self.ok("tokenize", "-m", name, "-p", "To be", "--json").stdout, by_path)
        self.assertEqual(hub.take_log(), [])  # the network is not asked

    def test_a_folder_goes_before_a_name(self):
        hint = self.refused(1, "no such model in the cache", "tokenize", "-m", "org/tiny", "-p", "x").stderr
        self.assertIn("lapidary pull org/tiny", hint)
        shutil.copytree(SOURCE / "models/tiny", self.folder / "org/tiny")
        self.ok("tokenize", "-m", "org/tiny", "-p", "x", cwd=self.folder)

    def test_include_and_exclude(self):
        self.model("org/files", config_json="{}", model_safetensors="m", model_gguf="g", empty_bin="", **{"sub/x_json": "{}"})
        self.hub()
        names = lambda *args: {p.relative_to(s).as_posix() for s in [Path(self.ok("pull", "org/files", *args).stdout.strip())]
                               for p in s.rglob("*") if p.is_file()}  # noqa: E731
        self.assertEqual(names("--exclude", "*.safetensors"), {"config.json"})
        self.assertEqual(names(), {"config.json", "model.safetensors"})
        self.assertEqual(names("--include", "*.gguf", "--include", "sub/*"),
                         {"config.json", "model.safetensors", "model.gguf", "sub/x.json"})
        self.assertIn("empty.bin", names("--include", "empty*"))
        self.refused(1, "none of its 5 files is wanted", "pull", "org/files", "--include", "*.pt")

    def test_killed_and_resumed(self):
        contents = noise(80 << 20)
        self.model("org/big", model_safetensors=contents, config_json="{}")
        hub = self.hub(bytes_per_second=12 << 20)
        running = subprocess.Popen([BINARY, "pull", "org/big"], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not self.part() or sum(self.filled(len(contents))) < 16 << 20:
            self.assertIsNone(running.poll())
            time.sleep(0.05)
        running.kill()
        running.communicate()
        filled = self.filled(len(contents))
        self.assertEqual(len(filled), 3)
        self.assertGreater(min(filled[:2]), 0)  # several connections were at it
        self.assertLess(sum(filled), len(contents))
        part = self.part().read_bytes()
        for i, count in enumerate(filled):
            self.assertEqual(part[i * SEGMENT:i * SEGMENT + count], contents[i * SEGMENT:i * SEGMENT + count])
        self.assertEqual(self.listed()["org/big"]["revisions"][0]["refs"], [])  # no branch leads to it
        hint = self.refused(1, "no such model in the cache", "tokenize", "-m", "org/big", "-p", "x").stderr
        self.assertIn("lapidary pull org/big", hint)

        hub.take_log()
        hub.bytes_per_second = 0
        done = self.ok("pull", "org/big", "--json")
        asked = [tuple(map(int, r["range"][6:].split("-"))) for r in downloads(hub.take_log())]
        self.assertEqual(sum(end - begin + 1 for begin, end in asked), len(contents) - sum(filled))
        self.assertEqual(json.loads(done.stdout)["downloaded_bytes"], len(contents) - sum(filled))
        self.assertIn("going on after", done.stderr)
        snapshot = Path(json.loads(done.stdout)["path"])
        self.assertEqual((snapshot / "model.safetensors").read_bytes(), contents)
        self.assertIsNone(self.part())

    def filled(self, size):
        """The bytes of each segment that a part file says are there."""
        with self.part().open("rb") as file:
            file.seek(size)
            trailer = file.read()
        if trailer[:8] != b"lppart01":
            return [0]
        return list(struct.unpack(f"<{len(trailer) // 8 - 3}q", trailer[24:]))

    def test_interrupted(self):
        self.model("org/big", model_safetensors=noise(8 << 20))
        hub = self.hub(bytes_per_second=1 << 20)
        running = subprocess.Popen([BINARY, "pull", "org/big"], env=self.env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        while not self.part() or sum(self.filled(8 << 20)) < 1 << 20:
            self.assertIsNone(running.poll())
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=10)
        self.assertEqual((running.returncode, out), (130, ""))
        self.assertIn("the next lapidary pull org/big goes on from here", err)
        self.assertGreater(self.listed()["org/big"]["unfinished_bytes"], 0)
        hub.bytes_per_second = 0
        self.assertLess(json.loads(self.ok("pull", "org/big", "--json").stdout)["downloaded_bytes"], 8 << 20)

    def test_no_room(self):
        self.model("org/big", model_safetensors=noise(4 << 20), config_json="{}")
        self.hub()
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
        self.refused(1, "cannot write: File too large", "pull", "org/big", preexec_fn=limit)
        self.assertEqual([p for p in self.cache.glob("*/blobs/*.incomplete") if p.stat().st_size > 1 << 20], [])
        self.assertEqual(list(self.cache.glob("*/refs/*")), [])

    def test_no_permission(self):
        self.model("org/x", config_json="{}")
        self.hub()
        (self.folder / "file").write_text("")
        self.refused(1, "file/hub", "pull", "org/x", env={"HF_HUB_CACHE": str(self.folder / "file/hub")})
        if os.geteuid() != 0:
            self.cache.mkdir(parents=True)
            self.cache.chmod(0o555)
            self.refused(1, "ermission denied", "pull", "org/x")

    def test_gated_and_offline_and_names(self):
        self.model("org/x-gated", config_json="{}")
        hub = self.hub(token="hf_right")
        self.refused(1, "no token was given", "pull", "org/x-gated")
        wrong = self.refused(1, "gated", "pull", "-v", "org/x-gated", env={"HF_TOKEN": "hf_wrong"})
        self.assertIn(f"accept the licence at {hub.url}/org/x-gated", wrong.stderr)
        self.assertNotIn("hf_wrong", wrong.stderr)
        right = self.ok("pull", "-v", "org/x-gated", env={"HF_TOKEN": "hf_right"})
        self.assertNotIn("hf_right", right.stdout + right.stderr)
        self.refused(1, "HF_HUB_OFFLINE", "pull", "org/x-gated", env={"HF_HUB_OFFLINE": "1"})
        self.refused(1, "no such model", "pull", "org/y")
        self.refused(1, "no revision 'v9'", "pull", "org/x-gated@v9", env={"HF_TOKEN": "hf_right"})
        self.refused(2, "'../x' is not the name", "pull", "../x")
        self.refused(2, "NAME", "pull")
        self.refused(2, "HF_ENDPOINT", "pull", "org/x", env={"HF_ENDPOINT": "nowhere"})


class Cache(HubCase):
    def setUp(self):
        super().setUp()
        self.shared, self.old, self.new = noise(1 << 17), noise(1 << 18), noise(1 << 19)
        self.model("org/two", tokenizer_json=self.shared, model_safetensors=self.old)
        self.model("org/two@v2", tokenizer_json=self.shared, model_safetensors=self.new)
        self.server = self.hub()

    def test_what_revisions_share_is_fetched_and_kept_once(self):
        self.ok("pull", "org/two")
        second = json.loads(self.ok("pull", "org/two@v2", "--json").stdout)
        self.assertEqual(second["downloaded_bytes"], len(self.new))
        listed = self.listed()["org/two"]
        self.assertEqual(listed["bytes"], len(self.shared) + len(self.old) + len(self.new))
        self.assertEqual([r["refs"] for r in sorted(listed["revisions"], key=lambda r: r["bytes"])], [["main"], ["v2"]])
        self.assertIn("main", self.ok("list").stdout)

        self.refused(1, "org/two@v3: not in the cache", "rm", "org/two@v3")
        freed = json.loads(self.ok("rm", "org/two@v2", "--json").stdout)["freed_bytes"]
        self.assertEqual(freed, len(self.new))
        self.ok("cache", "verify")
        self.assertEqual(json.loads(self.ok("pull", "org/two", "--json").stdout)["downloaded_bytes"], 0)
        freed = json.loads(self.ok("rm", "org/two", "--json").stdout)["freed_bytes"]
        self.assertEqual(freed, len(self.shared) + len(self.old))
        self.assertEqual(self.listed(), {})
        self.assertEqual([p for p in self.cache.rglob("*") if p.is_file()], [])
        self.refused(1, "org/two: not in the cache", "rm", "org/two")

    def test_content_shared_between_models_stays_while_it_is_used(self):
        """The store of huggingface_hub 2: a blob is a link to content with a list of its users."""
        self.model("org/three", tokenizer_json=self.shared)
        self.hub()
        for name in ("org/two", "org/three"):
            self.ok("pull", name)
        blobs = sorted(p for p in self.cache.glob("models--*/blobs/*") if p.stat().st_size == len(self.shared))
        self.assertEqual(len(blobs), 2)
        content = self.cache / "blobs/ab" / ("ab" * 32)
        content.parent.mkdir(parents=True)
        shutil.move(blobs[0], content)
        blobs[1].unlink()
        for blob in blobs:
            blob.symlink_to(os.path.relpath(content, blob.parent))
        manifest = content.with_name(content.name + ".refs")
        manifest.write_text("".join(f"{b.relative_to(self.cache)}\n" for b in blobs))
        self.ok("cache", "verify")
        self.assertEqual(json.loads(self.ok("rm", "org/three", "--json").stdout)["freed_bytes"], 0)
        self.assertTrue(content.exists())
        freed = json.loads(self.ok("rm", "org/two", "--json").stdout)["freed_bytes"]
        self.assertEqual(freed, len(self.shared) + len(self.old))
        self.assertFalse(content.exists() or manifest.exists())

    def test_verify_names_what_is_bad(self):
        snapshot = Path(self.ok("pull", "org/two").stdout.strip())
        good = json.loads(self.ok("cache", "verify", "org/two", "--json").stdout)
        self.assertEqual((good["blobs"], good["bytes"], good["faults"]), (2, len(self.shared) + len(self.old), []))
        blob = (snapshot / "model.safetensors").resolve()
        with blob.open("r+b") as file:
            file.seek(1000)
            file.write(b"\0\1\2\3")
        (snapshot / "tokenizer.json").resolve().unlink()
        bad = self.run_it("cache", "verify")
        self.assertEqual(bad.returncode, 1)
        self.assertIn(str(blob), bad.stdout)
        self.assertIn(f"org/two@{snapshot.name[:7]}: model.safetensors", bad.stdout)
        self.assertIn(f"{snapshot / 'tokenizer.json'}: its blob is missing", bad.stdout)
        blob.unlink()
        self.ok("pull", "org/two")
        self.ok("cache", "verify")
        self.refused(1, "org/none: not in the cache", "cache", "verify", "org/none")
        self.refused(2, "name the model alone", "cache", "verify", "org/two@main")
        self.refused(2, "ubcommand", "cache")

    def test_rm_asks_at_a_terminal(self):
        self.ok("pull", "org/two")
        try:
            os.close(pty.openpty()[0])
        except OSError as error:
            self.skipTest(f"no terminal: {error}")
        for answer, code, left in ((b"n\n", 1, ["org/two"]), (b"y\n", 0, [])):
            ours, theirs = pty.openpty()
            running = subprocess.Popen([BINARY, "rm", "org/two"], env=self.env, stdin=theirs, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
            os.write(ours, answer)
            _, err = running.communicate(timeout=20)
            os.close(ours)
            os.close(theirs)
            self.assertIn("Remove org/two and free 384.0 KiB? [y/N]", err)
            self.assertEqual(running.returncode, code)
            self.assertEqual(list(self.listed()), left)


if __name__ == "__main__":
    main()
