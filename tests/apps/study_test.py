#!/usr/bin/env python3
"""study from outside."""
import json
import os
import shutil
import struct
from pathlib import Path

from program import SOURCE, TINY, Case, main, needs_model

TEXT = "Once upon a time there was a little fox who lived in a forest."


def read_safetensors(path):
    """name -> (shape, values), and the metadata."""
    data = Path(path).read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "F32", entry
        tensors[name] = (entry["shape"], struct.unpack(f"<{(end - begin) // 4}f", data[8 + size + begin : 8 + size + end]))
    return tensors, metadata


@needs_model
class Activations(Case):
    def study(self, *args, **kwargs):
        return self.ok("study", "activations", *args, **kwargs)

    def effect(self, *args):
        return json.loads(self.study("-p", TEXT, "--json", *args).stdout)["effect"]

    def test_lists_points(self):
        listed = json.loads(self.study("--list", "--json").stdout)
        names = [point["name"] for point in listed["points"]]
        self.assertEqual(names[0], "hook_embed")
        self.assertEqual(names[-1], "ln_final.hook_out")
        self.assertIn("attn.hook_z", names)
        text = self.study("--list").stdout
        for name in names:
            self.assertIn(name, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 112)

    def test_writes_what_was_asked_for(self):
        out = self.folder / "acts.safetensors"
        report = json.loads(
            self.study("-p", TEXT, "--points", "hook_embed,blocks.2.mlp.*", "--points", "blocks.*.hook_resid_post", "-o",
                       str(out), "--json").stdout)
        tensors, metadata = read_safetensors(out)
        layers = json.loads(self.study("--list", "--json").stdout)["layers"]
        expected = {"hook_embed"} | {f"blocks.2.mlp.{p}" for p in ("hook_pre", "hook_pre_linear", "hook_post")}
        expected |= {f"blocks.{i}.hook_resid_post" for i in range(layers)}
        self.assertEqual(set(tensors), expected)
        self.assertEqual(report["output"]["points"], len(expected))
        self.assertTrue(all(shape[0] == len(report["tokens"]) for shape, _ in tensors.values()))
        self.assertEqual(metadata["model"], "tiny")
        self.assertGreater(max(map(abs, tensors["blocks.2.mlp.hook_post"][1])), 0)

    def test_heads_have_an_axis_of_their_own(self):
        out = self.folder / "acts.safetensors"
        report = json.loads(self.study("-p", TEXT, "--points", "blocks.1.attn.*", "-o", str(out), "--json").stdout)
        tensors, _ = read_safetensors(out)
        count = len(report["tokens"])
        self.assertEqual(tensors["blocks.1.attn.hook_z"][0], [count, 4, 64])
        self.assertEqual(tensors["blocks.1.attn.hook_k"][0], [count, 2, 64])
        # With one axis for all columns the values are the same.
        values = tensors["blocks.1.attn.hook_z"][1]
        header = json.dumps({"blocks.1.attn.hook_z": {"dtype": "F32", "shape": [count, 256],
                                                      "data_offsets": [0, 4 * len(values)]}}).encode()
        flat = self.folder / "flat.safetensors"
        flat.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(values)}f", *values))
        for file in (out, flat):
            self.assertEqual(self.effect("--replace", f"blocks.1.attn.hook_z={file}")["kld_mean"], 0)

    def test_leaves_devices_and_pipes_alone(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        self.refused(1, "is not a regular file", "study", "activations", "-p", TEXT, "-o", str(pipe))
        self.assertTrue(pipe.is_fifo())

    def test_patching_another_text_in_makes_its_predictions(self):
        other, patched = self.folder / "other.safetensors", self.folder / "patched.safetensors"
        last = json.loads(self.study("--list", "--json").stdout)["layers"] - 1
        point = f"blocks.{last}.hook_resid_post"
        other_text = "Once upon a time there was a little boy who lived in a castle."
        self.study("-p", other_text, "--points", f"{point},ln_final.hook_out", "-o", str(other))
        self.study("-p", TEXT, "--replace", f"{point}={other}", "--points", "ln_final.hook_out", "-o", str(patched))
        mine, theirs = read_safetensors(patched)[0], read_safetensors(other)[0]
        shape, values = theirs["ln_final.hook_out"]
        rows = min(shape[0], mine["ln_final.hook_out"][0][0])
        self.assertEqual(mine["ln_final.hook_out"][1][: rows * shape[1]], values[: rows * shape[1]])

    def test_says_what_changes_do(self):
        acts = self.folder / "acts.safetensors"
        self.study("-p", TEXT, "--points", "blocks.1.hook_resid_post,blocks.3.attn.hook_z", "-o", str(acts))
        nothing = self.effect("--replace", f"blocks.1.hook_resid_post={acts}")
        self.assertEqual(nothing["kld_mean"], 0)
        self.assertEqual(nothing["nll"], nothing["nll_changed"])
        zero = self.effect("--zero", "blocks.*.hook_mlp_out")
        self.assertGreater(zero["nll_changed"], zero["nll"] + 0.1)
        head = self.effect("--zero", "blocks.3.attn.hook_z:0")
        self.assertGreater(head["kld_mean"], 0)
        self.assertLess(head["kld_mean"], zero["kld_mean"])
        mean = self.effect("--mean", f"blocks.3.attn.hook_z:0={acts}")
        self.assertGreater(mean["kld_mean"], 0)
        little, much = (self.effect("--add", f"blocks.1.hook_resid_post={acts}:{scale}") for scale in (0.01, 1))
        self.assertLess(little["kld_mean"], much["kld_mean"])
        tokens = self.effect("--zero", "blocks.3.attn.hook_z:0", "--by-token")
        self.assertEqual(len(tokens["kld"]), tokens["predicted"])
        self.assertAlmostEqual(sum(tokens["kld"]) / len(tokens["kld"]), tokens["kld_mean"], 12)

    def test_refuses(self):
        study = ("study", "activations", "-p", TEXT)
        out = str(self.folder / "x.safetensors")
        self.refused(2, "nothing to do", *study)
        self.refused(2, "no point of this model matches blocks.77.*", *study, "--points", "blocks.77.*", "-o", out)
        self.refused(2, "has no heads", *study, "--zero", "blocks.0.hook_mlp_out:0")
        self.refused(2, "expected POINT=FILE", *study, "--replace", "blocks.0.hook_mlp_out")
        self.refused(1, "nowhere.safetensors", *study, "--replace", "blocks.0.hook_mlp_out=nowhere.safetensors")
        self.refused(1, "a prediction needs at least two", "study", "activations", "--ids", "2", "--zero", "hook_embed")
        self.refused(1, "no/such/folder", *study, "-o", "no/such/folder/x.safetensors")
        self.refused(1, "no/such/folder", *study, "--zero", "hook_embed", "-o", "no/such/folder/x.safetensors")
        self.refused(2, "--by-token", *study, "-o", out, "--by-token")
        self.refused(2, "--list", "study", "activations", "--list", "-o", out)
        self.assertFalse(Path(out).exists())


@needs_model
class Layers(Case):
    def test_leaves_a_page_and_figures(self):
        folder = self.folder / "layers"
        printed = self.ok("study", "layers", "-p", TEXT, "-o", str(folder)).stdout.splitlines()
        figures = json.loads((folder / "layers.json").read_text())
        self.assertEqual(len(printed), 1 + len(figures["layers"]))
        self.assertLessEqual(max(map(len, printed)), 80)
        self.assertEqual(len(figures["similarity"]), 1 + len(figures["layers"]))
        for i, row in enumerate(figures["similarity"]):
            self.assertAlmostEqual(row[i], 1, 5)
        last = figures["layers"][-1]
        self.assertEqual(last["lens"]["kl_to_final"], 0)
        self.assertLess(last["lens"]["target_nll"], figures["layers"][0]["lens"]["target_nll"])
        added = sum(layer["attention_logit"] + layer["mlp_logit"] for layer in figures["layers"])
        self.assertAlmostEqual(figures["embedding_logit"] + added, figures["target_logit"], 2)
        page = (folder / "report.html").read_text()
        self.assertIn("Logit lens", page)
        self.assertNotIn("matrixMap", page)
        self.refused(2, "is there already", "study", "layers", "-p", TEXT, "-o", str(folder))

    def test_a_place_that_takes_no_folder_is_refused_before_the_work(self):
        file = self.folder / "file"
        file.write_text("")
        self.refused(1, f"{file}: is not a folder", "study", "layers", "-m", "none", "-p", TEXT, "-o", str(file / "a" / "b"))

    def test_does_what_is_asked_for_besides(self):
        folder, four = self.folder / "layers", self.folder / "four"
        self.ok("convert", str(TINY), "-o", str(four), "--bits", "4", "--no-check")
        printed = self.ok("study", "layers", "-m", str(four), "-p", TEXT, "-o", str(folder), "--ablate", "all", "--spectra",
                          "--gradients", "--original", str(TINY)).stdout.splitlines()
        self.assertLessEqual(max(map(len, printed)), 80)
        figures = json.loads((folder / "layers.json").read_text())
        layers = len(figures["layers"])
        ablation = figures["ablation"]
        self.assertEqual(len(ablation["layers"]), layers)
        self.assertEqual(len(ablation["heads"]) % layers, 0)
        # The same as with the change at a tap.
        zeroed = json.loads(self.ok("study", "activations", "-m", str(four), "-p", TEXT, "--zero", "blocks.2.attn.hook_z:1",
                                    "--json").stdout)["effect"]
        head = next(h for h in ablation["heads"] if (h["layer"], h["head"]) == (2, 1))
        self.assertAlmostEqual(head["nll"], zeroed["nll_changed"], 6)
        self.assertAlmostEqual(head["change"], zeroed["nll_changed"] - zeroed["nll"], 6)
        for name in ("spectra", "gradients", "quantization"):
            matrices = figures[name] if name == "spectra" else figures[name]["matrices"]
            self.assertEqual(len(matrices), 7 * layers, name)
        for matrix in figures["quantization"]["matrices"]:
            self.assertEqual(matrix["own"], matrix["at_4_bits"])
            self.assertGreater(matrix["own"]["outputs"], 0)
        self.assertIn("matrixMap", (folder / "report.html").read_text())
        alone = json.loads(self.ok("study", "layers", "-p", TEXT, "--errors", "--ablate", "layers", "--json").stdout)
        self.assertIsNone(alone["quantization"]["matrices"][0]["own"])
        self.assertEqual(alone["ablation"]["heads"], [])

    def test_refuses_what_is_asked_for_besides(self):
        study = ("study", "layers", "-p", TEXT, "--json")
        self.refused(2, "--ablate", *study, "--ablate", "everything")
        golden = str(SOURCE / "tests/golden/gemma2-gqa")
        self.refused(1, "model.embed_tokens.weight: [4096, 256] and [320, 64]", *study, "--original", golden)
        self.refused(1, "nowhere", *study, "--original", "no/such/nowhere")


@needs_model
class Diff(Case):
    def four(self):
        four = self.folder / "four"
        self.ok("convert", str(TINY), "-o", str(four), "--bits", "4", "--no-check")
        return str(four)

    def test_leaves_a_page_and_figures(self):
        four, folder = self.four(), self.folder / "diff"
        printed = self.ok("study", "diff", str(TINY), four, "-p", TEXT, "--swap-layers", "-o", str(folder)).stdout
        figures = json.loads((folder / "diff.json").read_text())
        self.assertEqual(len(printed.splitlines()), 2 + len(figures["layers"]))
        self.assertLessEqual(max(map(len, printed.splitlines())), 80)
        self.assertEqual(len(figures["matrices"]), 7 * len(figures["layers"]))
        compared = json.loads(self.ok("compare", str(TINY), four, "-p", TEXT, "--json").stdout)
        self.assertAlmostEqual(figures["kld_mean"], compared["kld_mean"], 6)
        self.assertAlmostEqual(figures["nll_b"], compared["nll_b"], 6)
        for layer in figures["layers"]:
            self.assertGreater(layer["size"], 0.01)
            self.assertLess(layer["similarity"], 1)
            self.assertNotEqual(layer["swapped_nll"], figures["nll_a"])
        page = (folder / "report.html").read_text()
        self.assertLess(page.index("matrix-map"), page.index("<canvas"))
        self.assertIn("B expects it less", page)
        self.assertNotIn("http://", page.replace("http://www.w3.org", ""))
        self.refused(2, "is there already", "study", "diff", str(TINY), four, "-p", TEXT, "-o", str(folder))

    def test_shows_an_adapter(self):
        model = str(SOURCE / "tests/golden/gemma3-v5")
        adapter = str(SOURCE / "tests/golden/adapters/plain")
        figures = json.loads(
            self.ok("study", "diff", model, "--adapter", adapter, "--ids", "2,9,17,40,9", "--json").stdout)
        changed = [m for m in figures["matrices"] if m["size"] > 0]
        self.assertTrue(changed)
        self.assertEqual({m["numerical_rank"] for m in changed}, {4})
        self.assertNotEqual(figures["nll_a"], figures["nll_b"])

    def test_reads_the_built_in_text_without_one(self):
        said = self.ok("study", "diff", str(TINY), str(TINY), "--json")
        self.assertIn("the first 512 tokens of the built-in text", said.stderr)
        figures = json.loads(said.stdout)
        self.assertEqual(figures["predicted"], 511)
        self.assertEqual(figures["kld_mean"], 0)
        self.assertEqual({m["size"] for m in figures["matrices"]}, {0})

    def test_refuses(self):
        golden = str(SOURCE / "tests/golden/gemma2-gqa")
        self.refused(1, "model.embed_tokens.weight: [4096, 256] and [320, 64]", "study", "diff", str(TINY), golden, "-p", TEXT)
        self.refused(2, "1 model given", "study", "diff", str(TINY), "-p", TEXT)
        self.refused(2, "3 models given", "study", "diff", str(TINY), str(TINY), str(TINY), "-p", TEXT)
        self.refused(1, "at least two", "study", "diff", str(TINY), str(TINY), "--ids", "2")
        self.refused(1, "no/such/folder", "study", "diff", str(TINY), "no/such/folder", "-p", TEXT)


@needs_model
class Attention(Case):
    def test_leaves_a_page_and_figures(self):
        folder = self.folder / "attention"
        printed = self.ok("study", "attention", "-p", TEXT, "-o", str(folder))
        figures = json.loads((folder / "attention.json").read_text())
        layers, heads = figures["layers"], figures["heads"]
        self.assertEqual(len(printed.stdout.splitlines()), 1 + len(layers))
        self.assertLessEqual(max(map(len, printed.stdout.splitlines())), 80)
        self.assertEqual(len(heads) % len(layers), 0)
        self.assertTrue(any(layer["sliding"] for layer in layers))
        for head in heads:
            self.assertAlmostEqual(sum(head["by_distance"]), 1, 4)
            self.assertLessEqual(head["sink"] + head["previous"], 2)
        self.assertAlmostEqual(sum(figures["rollout"]), 1, 4)
        page = (folder / "report.html").read_text()
        for words in ("attentionPatterns", "Weight on the first token", "What reaches the last token"):
            self.assertIn(words, page)
        self.assertNotIn("http://", page.replace("http://www.w3.org", ""))
        self.assertEqual(figures["model"], "tiny")
        self.refused(2, "is there already", "study", "attention", "-p", TEXT, "-o", str(folder))
        both = self.folder / "both"
        both.mkdir()  # an empty one is as good as none
        printed = self.ok("study", "attention", "-p", TEXT, "-o", str(both), "--json").stdout
        self.assertEqual(json.loads(printed)["tokens"], json.loads((both / "attention.json").read_text())["tokens"])
        self.assertEqual(json.loads(printed)["text_hash"], figures["text_hash"])
        self.assertTrue((both / "report.html").exists())
        self.ok("study", "attention", "-p", TEXT, "-o", str(folder), "--force")

    def test_refuses_what_is_not_finite(self):
        model = self.folder / "broken"
        shutil.copytree(TINY, model)
        weights = model / "model.safetensors"
        data = bytearray(weights.read_bytes())
        size = struct.unpack_from("<Q", data)[0]
        entry = json.loads(data[8 : 8 + size])["model.layers.2.self_attn.v_proj.weight"]
        self.assertEqual(entry["dtype"], "BF16")
        struct.pack_into("<H", data, 8 + size + entry["data_offsets"][0], 0x7FC0)
        weights.write_bytes(data)
        for more in ((), ("--lengths", "256")):
            text = self.folder / "long.txt"
            text.write_text(TEXT * 30)
            self.refused(1, "not finite", "study", "attention", "-m", str(model), "-f", str(text), "--json", *more)

    def test_repeats_random_tokens(self):
        figures = json.loads(self.ok("study", "attention", "--random-repeat", "20", "--json").stdout)
        self.assertEqual(len(figures["tokens"]), 41)
        self.assertEqual(figures["tokens"][1:21], figures["tokens"][21:])
        self.assertTrue(all(head["induction"] is not None for head in figures["heads"]))
        self.refused(2, "--random-repeat", "study", "attention", "--random-repeat", "20", "-p", TEXT, "--json")

    def test_saves_patterns(self):
        out = self.folder / "patterns.safetensors"
        figures = json.loads(
            self.ok("study", "attention", "-p", TEXT, "--save-patterns", str(out), "--layers", "0,5", "--heads", "2", "--json").stdout)
        tensors, metadata = read_safetensors(out)
        self.assertEqual(set(tensors), {"blocks.0.attn.hook_pattern", "blocks.5.attn.hook_pattern"})
        self.assertEqual((metadata["heads"], metadata["model"]), ("2", "tiny"))
        count = len(figures["tokens"])
        for layer in (0, 5):
            shape, values = tensors[f"blocks.{layer}.attn.hook_pattern"]
            self.assertEqual(shape, [1, count, count])
            head = next(h for h in figures["heads"] if (h["layer"], h["head"]) == (layer, 2))
            sink = sum(values[query * count] for query in range(1, count)) / (count - 1)
            self.assertAlmostEqual(sink, head["sink"], 5)
        study = ("study", "attention", "-p", TEXT, "--json")
        self.refused(2, "layer 7: the model has 7", *study, "--save-patterns", str(out), "--layers", "7")
        self.refused(2, "--save-patterns", *study, "--layers", "1")
        self.refused(1, "no/such", *study, "--save-patterns", "no/such/x.safetensors")

    def test_looks_at_lengths(self):
        folder = self.folder / "lengths"
        text = self.folder / "text.txt"
        text.write_text(TEXT * 12)
        printed = self.ok("study", "attention", "-f", str(text), "--lengths", "16-64*2", "-o", str(folder)).stdout.splitlines()
        self.assertLessEqual(max(map(len, printed)), 80)
        figures = json.loads((folder / "lengths.json").read_text())
        self.assertEqual(figures["lengths"], [16, 32, 64])
        self.assertGreater(figures["pieces"], 1)
        self.assertEqual(len(printed), 1 + len(figures["kinds"]))
        self.assertEqual([(k["length"], k["sliding"]) for k in figures["kinds"]],
                         [(length, sliding) for length in (16, 32, 64) for sliding in (True, False)])
        for kind in figures["kinds"]:
            self.assertGreater(kind["entropy"]["margin"], 0)
            self.assertLess(kind["distance"]["mean"], kind["length"])
        study = ("study", "attention", "-p", TEXT, "--json")
        self.refused(1, "expected 64 or more", *study, "--lengths", "64")
        self.refused(2, "made for 2048", *study, "--lengths", "4096")
        self.refused(2, "--lengths", *study, "--lengths", "x")
        self.refused(2, "--localize", *study, "--lengths", "16", "--localize")
        self.refused(2, "take no", *study, "--lengths", "16", "-c", "128")

    def test_makes_layers_local(self):
        folder, text = self.folder / "localize", self.folder / "text.txt"
        text.write_text(TEXT * 12)
        printed = self.ok("study", "attention", "-f", str(text), "--localize", "--piece", "96", "-o", str(folder)).stdout.splitlines()
        self.assertLessEqual(max(map(len, printed)), 80)
        figures = json.loads((folder / "localize.json").read_text())
        self.assertEqual((figures["window"], figures["predicted"]), (64, 31))
        self.assertEqual([(c["layer"], c["made"]) for c in figures["changes"]],
                         [(5, "local")] + [(i, "global") for i in (0, 1, 2, 3, 4, 6)] + [(None, "global")])
        for change in figures["changes"]:
            self.assertAlmostEqual(change["nll"]["mean"] - figures["nll"]["mean"], change["gain"]["mean"], 9)
        self.assertIn("layer 5 made local", (folder / "report.html").read_text())
        self.refused(2, "expected 66 to 2048", "study", "attention", "-f", str(text), "--localize", "--piece", "60", "--json")
        self.refused(1, "expected 256 or more", "study", "attention", "-p", TEXT, "--localize", "--json")
        self.refused(2, "--localize", "study", "attention", "-p", TEXT, "--piece", "96", "--json")

    def test_refuses(self):
        self.refused(1, "at least two", "study", "layers", "--ids", "2", "--json")
        for study in ("layers", "attention"):
            self.refused(1, "context of 4", "study", study, "-p", TEXT, "-c", "4", "--json")
        self.refused(1, "context of 4", "study", "activations", "-p", TEXT, "-c", "4", "--zero", "hook_embed")
        self.refused(1, "at least two", "study", "attention", "--ids", "2", "--json")
        self.refused(1, "no/", "study", "attention", "-p", TEXT, "-o", "/proc/no/such")
        self.refused(2, "--random-repeat", "study", "attention", "--random-repeat", "1")


class Capacity(Case):
    TOY = ("--sizes", "3000", "--loads", "0.1,1", "--layers", "1", "--vocabulary", "16", "--length", "16", "--epochs", "20",
           "--batch-size", "8")

    def test_counts_bits_and_goes_on(self):
        out = self.folder / "capacity"
        out.mkdir()
        for name in ("options.json.tmp-1-0", "mine"):
            (out / name).write_text("half")
        self.refused(2, "was not begun by this study", "study", "capacity", *self.TOY, "-o", str(out))
        (out / "mine").unlink()  # what is left is of a process that was killed
        first = json.loads(self.ok("study", "capacity", *self.TOY, "-o", str(out), "--json").stdout)
        self.assertEqual(list(out.rglob("*.tmp-*")), [])
        run = first["runs"][1]
        self.assertEqual(run["data_bits"], run["sequences"] * 15 * 4)
        self.assertGreater(run["memorized_bits"], 0)
        self.assertLess(run["memorized_bits"], run["data_bits"])
        self.assertEqual(first, json.loads((out / "capacity.json").read_text()))
        self.assertIn("How many bits models hold", (out / "report.html").read_text())
        # Everything is there by now, down to the seconds that training took.
        self.assertEqual(first, json.loads(self.ok("study", "capacity", *self.TOY, "-o", str(out), "--json").stdout))

    def test_says_that_training_was_too_short(self):
        done = self.ok("study", "capacity", *self.TOY, "-o", str(self.folder / "capacity"))
        self.assertRegex(done.stdout, r"\d+ parameters: no plateau over training, which brought \+\d")
        self.assertIn("report.html", done.stderr)

    def test_refuses_what_cannot_be(self):
        out = ("-o", str(self.folder / "capacity"))
        self.refused(2, "--loads: they do not ascend", "study", "capacity", "--loads", "3,2", *out)
        self.refused(2, "5000 parameters are too few", "study", "capacity", "--sizes", "5000", *out)
        self.ok("study", "capacity", *self.TOY, *out)
        self.refused(1, "begun with seed 0, now 1", "study", "capacity", *self.TOY, "--seed", "1", *out)


class CapacityText(Case):
    TOY = ("study", "capacity-text", "--sizes", "3000", "--loads", "0.2,1", "--layers", "1", "--length", "16", "--steps", "60",
           "--batch-size", "8", "--held-out", "30")

    def text(self):
        words = ("red", "green", "stone", "cuts", "light", "a")
        path = self.folder / "text.txt"
        path.write_text(" ".join(words[i * i % 37 * i % 6] for i in range(1, 1500)))
        return ("-f", str(path))

    def test_follows_a_text_and_goes_on(self):
        out = self.folder / "growing"
        args = (*self.TOY, *self.text(), "-o", str(out))
        first = json.loads(self.ok(*args, "--json").stdout)
        runs = first["sizes"][0]["runs"]
        self.assertEqual(len(runs), 3)
        self.assertLess(runs[0]["sequences"], runs[1]["sequences"])
        self.assertEqual(runs[2]["sequences"], first["sequences"])
        self.assertLess(runs[0]["train_loss"], runs[0]["test_loss"])
        self.assertGreater(runs[0]["memorized_bits"], 0)
        self.assertEqual(runs[2]["memorized_bits"], 0)
        self.assertEqual(first, json.loads((out / "capacity-text.json").read_text()))
        page = (out / "report.html").read_text()
        self.assertIn("Where learning a text by heart ends", page)
        self.assertIn("grokking point", page)
        # Everything is there by now, down to the seconds that training took.
        self.assertEqual(first, json.loads(self.ok(*args, "--json").stdout))
        printed = self.ok(*args).stdout
        self.assertRegex(printed, r"\d+ parameters: (no )?double descent")
        self.refused(1, "begun with seed 0, now 1", *args, "--seed", "1")

    def test_refuses_what_cannot_be(self):
        out = ("-o", str(self.folder / "growing"))
        text = self.text()
        self.refused(2, "--file", *self.TOY, *out)
        self.refused(1, "none.txt", *self.TOY, "-f", "none.txt", *out)
        self.refused(2, "they do not ascend", "study", "capacity-text", "--loads", "3,2", *text, *out)
        self.refused(1, "a load of 900 takes", "study", "capacity-text", "--sizes", "3000", "--layers", "1", "--loads", "900",
                     "--held-out", "10", *text, *out)
        self.refused(1, "expected more than the 9999 to hold out", "study", "capacity-text", "--held-out", "9999", *text, *out)
        self.refused(2, "1000 parameters are too few", "study", "capacity-text", "--sizes", "1000", "--held-out", "10", *text, *out)


@needs_model
class CapacityLayers(Case):
    def test_counts_by_layer_and_goes_on(self):
        out = self.folder / "layers"
        args = ("study", "capacity-layers", "--layers", "0,3", "--sequences", "4", "--length", "8", "--steps", "10",
                "--batch-size", "4", "-o", str(out))
        first = json.loads(self.ok(*args, "--json").stdout)
        self.assertEqual([run["layer"] for run in first["runs"]], [0, 3, None])
        self.assertEqual(first["runs"][0]["data_bits"], 4 * 7 * 12)
        self.assertEqual(first, json.loads((out / "capacity-layers.json").read_text()))
        self.assertIn("Which layers of tiny learn by heart", (out / "report.html").read_text())
        self.assertEqual(first, json.loads(self.ok(*args, "--json").stdout))
        self.refused(1, "begun with seed 0, now 1", *args, "--seed", "1")
        self.refused(2, "--layers: 9 given, the model has 0 to 6", "study", "capacity-layers", "--layers", "9", "-o", str(out))
        self.refused(1, "nowhere.jsonl", "study", "capacity-layers", "--data", "nowhere.jsonl", "-o", str(self.folder / "x"))


@needs_model
class Memorization(Case):
    def test_a_model_knows_nothing_beyond_itself(self):
        for name in ("members", "others"):
            (self.folder / f"{name}.jsonl").write_text(json.dumps({"text": f"{TEXT} It is of the {name}."}) + "\n")
        args = ("study", "memorization", "--reference", str(TINY), "--data",
                str(self.folder / "members.jsonl"), "--held-out", str(self.folder / "others.jsonl"))
        figures = json.loads(self.ok(*args, "--json").stdout)
        self.assertEqual(figures["members"]["mean_bits"], 0)
        self.assertEqual(figures["membership_by_gain"]["auc"], 0.5)
        out = self.folder / "page"
        self.assertIn("0.00 bits memorised", self.ok(*args, "-o", str(out)).stdout)
        self.assertIn("knows by heart", (out / "report.html").read_text())
        self.refused(2, "is there already", *args, "-o", str(out))
        self.refused(1, "none.jsonl", *args[:-1], str(self.folder / "none.jsonl"), "--json")
        self.refused(2, "--prefix: 1000", *args, "--prefix", "1000", "--json")


if __name__ == "__main__":
    main()
