#!/usr/bin/env python3
"""Adapters from outside: shown, converted, run, fused and blended."""
import json
from pathlib import Path

from program import SOURCE, TINY, Case, main, needs_model


class Adapters(Case):
    def test_adapters(self):
        base, plain = str(SOURCE / "tests/golden/gemma3-v5"), str(SOURCE / "tests/golden/adapters/plain")
        ids, other = ("--ids", "2,17,41,5,90"), str(SOURCE / "tests/golden/adapters/other")

        def nll(*args):
            return json.loads(self.ok("score", "-m", base, *ids, "--compute", "exact", "--json", *args).stdout)["nll"]

        shown = json.loads(self.ok("adapter", "show", plain, "--json").stdout)
        self.assertEqual((shown["format"], len(shown["matrices"]), shown["parameters"]), ("peft", 49, 19264))
        self.assertRegex(self.ok("adapter", "show", plain).stdout, r"mlp.down_proj +\[48, 64\] +4 +2 +0-6")
        for form in ("mlx", "gguf"):
            out = str(self.folder / form)
            self.ok("adapter", "convert", plain, "-o", out, "--to", form, "-m", base)
            self.assertEqual(nll("--adapter", out), nll("--adapter", plain))
        self.assertNotEqual(nll("--adapter", plain), nll())
        self.assertNotEqual(nll("--adapter", plain + ":0.5"), nll("--adapter", plain))
        self.assertNotEqual(nll("--adapter", plain, "--adapter", other), nll("--adapter", plain))
        changed = json.loads(self.ok("compare", base, base, *ids, "--adapter", plain, "--json").stdout)
        self.assertGreater(changed["kld_mean"], 0)
        document = json.loads(self.ok("show", "-m", base, "--adapter", plain, "--json").stdout)
        self.assertGreater(document["memory"]["adapters"], 4 * 19264)
        self.assertEqual(document["parts"][-1]["name"], "adapters")

        self.refused(2, "a GGUF adapter is for one architecture", "adapter", "convert", plain, "-o", str(self.folder / "x"),
                     "--to", "gguf")
        self.refused(1, "is there already", "adapter", "convert", plain, "-o", str(self.folder / "mlx"), "--to", "mlx")
        self.refused(1, "the adapter does not fit this model", "score", *ids, "--adapter", plain)
        self.refused(1, "/nope: no such adapter", "score", *ids, "--adapter", "/nope")
        self.refused(2, "expected PATH or PATH:NUMBER", "score", *ids, "--adapter", plain + ":x")
        self.refused(2, "second word", "adapter")

    def test_fuse(self):
        base, plain = str(SOURCE / "tests/golden/gemma3-v5"), str(SOURCE / "tests/golden/adapters/plain")
        out = str(self.folder / "out")
        made = json.loads(self.ok("fuse", "-m", base, "--adapter", plain, "-o", out, "--json").stdout)
        self.assertEqual((made["changed"], len(made["matrices"])), (49, 49))
        self.assertTrue(0 < made["lost"] < 0.1 and made["update"] > made["lost"], made)
        apart = json.loads(self.ok("compare", out, base, "--ids", "2,17,41,5", "--adapter", plain, "--json").stdout)
        other = json.loads(self.ok("compare", out, base, "--ids", "2,17,41,5", "--json").stdout)
        self.assertLess(apart["kld_mean"], other["kld_mean"] / 10)
        args = ("fuse", "-m", base, "-o", out, "--adapter")
        self.refused(1, "is there already", *args, plain)
        self.assertIn("put it off by", self.ok(*args, plain, "--force").stderr)
        self.refused(1, "the fused weights are those of the model", *args, plain + ":1e-8", "--force")
        self.assertTrue(Path(out, "config.json").exists())  # the one before
        self.refused(2, "--adapter", "fuse", "-m", base, "-o", out)

    @needs_model
    def test_fusing_that_loses_the_update(self):
        base, run = str(self.folder / "4bit"), self.folder / "run"
        (self.folder / "text.txt").write_text("A lapidary cuts stones, and what is cut is a gem. " * 4)
        self.ok("convert", str(TINY), "-o", base, "--bits", "4", "-q")
        self.ok("train", "-m", base, "--data", str(self.folder / "text.txt"), "-o", str(run), "--iters", "1", "--lr", "1e-5",
                "--rank", "2", "--batch-size", "1", "--sequence-length", "16", "-q")
        args = ("fuse", "-m", base, "--adapter", str(run / "adapter"), "--force", "-o", str(self.folder / "out"))
        made = self.ok(*args, "--json")
        self.assertGreater(json.loads(made.stdout)["lost"], 1)
        self.assertIn("more than the whole of it", made.stderr)
        self.assertNotIn("warning", self.ok(*args, "--no-check").stderr)

    def test_blend(self):
        plain, other = (str(SOURCE / "tests/golden/adapters" / name) for name in ("plain", "other"))
        out, page = str(self.folder / "out"), self.folder / "page.html"
        made = json.loads(self.ok("blend", plain + ":0.7", other + ":-0.5", "-o", out, "--json", "--html", str(page)).stdout)
        self.assertEqual((made["method"], made["matrices"], len(made["overlaps"])), ("cat", 49, 49))
        self.assertIn("<canvas", page.read_text())
        self.assertEqual(json.loads(self.ok("adapter", "show", out, "--json").stdout)["matrices"][0]["rank"], 8)
        self.assertRegex(self.ok("blend", plain, other).stdout, r"cosine")
        self.ok("blend", plain, other, "-o", out, "--method", "svd", "--rank", "2", "--to", "mlx", "--force")
        self.refused(1, "is there already", "blend", plain, other, "-o", out)
        self.refused(2, "--density: cat has none", "blend", plain, other, "-o", out + "2", "--density", "0.5")
        self.refused(2, "nothing to compare", "blend", plain)
        self.refused(2, "magnitude-prune-svd, learned", "blend", plain, other, "-o", out + "2", "--method", "foo")
        self.refused(1, "is one of the adapters to blend", "blend", out, other, "-o", out, "--force")
        weights = self.folder / "weights.json"
        weights.write_text('{"*.layers.0.*": [1, 0.5], "*.layer.1.*": [1, 2]}')
        self.refused(1, "'*.layer.1.*' fits no matrix", "blend", plain, other, "-o", out + "2", "--layer-weights", str(weights))
        self.refused(2, "--passes: is of --method learned", "blend", plain, other, "-o", out + "2", "--passes", "9")
        self.refused(2, "no --data given", "blend", plain, "--method", "learned")

    @needs_model
    def test_learned_weights(self):
        data, run, out = str(self.folder / "data.jsonl"), str(self.folder / "run"), str(self.folder / "out")
        Path(data).write_text('{"text": "A lapidary cuts stones, and what is cut is a gem."}\n' * 4)
        self.ok("train", "-m", str(TINY), "--data", data, "-o", run, "--iters", "8", "--lr", "5e-3", "--rank", "2", "-q")
        args = ("blend", run + "/adapter:0.2", "--method", "learned", "-m", str(TINY), "--data", data)
        page = self.folder / "page.html"
        made = json.loads(self.ok(*args, "-o", out, "--json", "--html", str(page)).stdout)
        fit, weight = made["fit"], made["fit"]["weights"][0]["weights"][0]
        self.assertLess(fit["loss"], fit["loss_given"])
        self.assertLess(fit["loss_given"], fit["loss_without"])
        self.assertIn("Weights found", page.read_text())
        ids = ("--ids", "2,17,300,41", "--compute", "exact", "--json", "-q")
        found, by_hand = (json.loads(self.ok("score", *ids, "--adapter", adapter).stdout)["nll"]
                          for adapter in (out, f"{run}/adapter:{weight}"))
        self.assertAlmostEqual(found, by_hand, places=4)
        told = self.ok(*args, "--per-layer", "--passes", "4").stdout
        self.assertRegex(told, r"mean weight")
        self.ok(*args, "-o", out, "--force", "--rank", "1", "-q")
        self.assertEqual(json.loads(self.ok("adapter", "show", out, "--json").stdout)["matrices"][0]["rank"], 1)
        self.refused(1, "is there already", *args, "-o", out)
        self.refused(1, "no adapter lowers the loss", *args, "-o", out + "2", "--penalty", "1000")
        self.refused(2, "--layer-weights: --method learned finds", *args, "--layer-weights", data)
        self.assertFalse(Path(out + "2").exists())


if __name__ == "__main__":
    main()
