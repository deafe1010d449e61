#!/usr/bin/env python3
"""synth, convert and quantize from outside: what they write, and what is left when they cannot."""
import json
import os
import re
import signal
import subprocess
import time

from program import BINARY, TINY, Case, environment, main, needs_model


@needs_model
class Convert(Case):
    def test_synth(self):
        folder = self.folder / "model"
        args = ("synth", "--preset", "gemma-3-270m", "--layers", "2", "--vocab", "512", "--bits", "4", "-o",
                str(folder))
        result = self.ok(*args)
        self.assertEqual(result.stdout, "")
        made = json.loads(self.ok("generate", "-m", str(folder), "--ids", "2,7", "-n", "3", "--json", "-q").stdout)
        self.assertEqual((len(made["tokens"]), made["text"]), (3, ""))
        plain = self.ok("generate", "-m", str(folder), "--ids", "2,7", "-n", "3", "-q").stdout
        self.assertEqual(plain.split(), [str(i) for i in made["tokens"]])
        self.refused(1, "holds a model already", *args)
        self.refused(1, "no tokenizer", "generate", "-m", str(folder), "-p", "x")
        self.refused(1, "no tokenizer", "chat", "-m", str(folder), "-p", "x")

    def test_synth_killed(self):
        """A model is there whole or not at all, and nothing of the first is left."""
        args = ("synth", "--preset", "gemma-3-270m", "-o", str(self.folder / "model"), "-q")
        with subprocess.Popen([BINARY, *args], stderr=subprocess.PIPE, env=environment()) as child:
            while not list(self.folder.glob("model*/**/*.tmp*")) and child.poll() is None:
                time.sleep(0.001)
            child.kill()
            child.stderr.read()
            child.wait(60)
        self.assertFalse((self.folder / "model").exists())
        self.ok(*args, "--layers", "1", "--vocab", "512")
        self.assertEqual({p.name for p in self.folder.iterdir()}, {"model"})
        self.assertEqual({p.name for p in (self.folder / "model").iterdir()},
                         {"config.json", "generation_config.json", "model.safetensors"})

    def test_convert(self):
        file = self.folder / "tiny.gguf"
        args = ("convert", str(TINY), "-o", str(file))
        result = self.ok(*args, "--type", "q8_0", "--json")
        self.assertEqual(result.stderr, "")
        document = json.loads(result.stdout)
        self.assertEqual(set(document), {"input", "output", "format", "type", "vocabulary", "substitutes", "tensors", "changed",
                                         "files", "bytes", "bits_per_weight", "check", "memory_forecast_bytes",
                                         "peak_rss_bytes", "seconds"})
        self.assertEqual(document["files"], [{"name": "tiny.gguf", "bytes": document["bytes"]}])
        self.assertEqual(document["check"]["tokens"], 24)
        self.assertTrue(0.001 < document["check"]["weight_error"] < 0.01, document)
        self.assertEqual((document["format"], document["type"], document["vocabulary"]), ("gguf", "q8_0", "tokenizer"))
        data = file.read_bytes()
        self.assertEqual(len(data), document["bytes"])
        self.assertEqual((data[:4], int.from_bytes(data[8:16], "little")), (b"GGUF", document["tensors"]))

        self.refused(1, "is there already", *args)
        self.assertEqual(file.read_bytes(), data)
        plain = self.ok(*args, "--force")
        self.assertEqual(plain.stdout, "")
        self.assertIn("tensors", plain.stderr)
        self.assertGreater(file.stat().st_size, 1.5 * len(data))  # f16
        self.assertEqual(self.ok(*args, "--force", "--quiet").stderr, "")
        self.assertIn("not checked", self.ok(*args, "--force", "--no-check").stderr)
        other = self.folder / "named"
        self.ok("convert", str(TINY), "-o", str(other), "--to", "gguf", "--quiet")
        self.assertEqual(other.read_bytes(), file.read_bytes())
        self.refused(1, "/nope/x.gguf: cannot create", "convert", str(TINY), "-o", "/nope/x.gguf")

    def test_gguf_stands_for_a_model_everywhere(self):
        file = self.folder / "tiny.gguf"
        self.ok("convert", str(TINY), "-o", str(file), "--type", "f32", "--quiet")
        same = [("generate", "-p", "JULIET:", "-n", "12", "--temp", "0"), ("tokenize", "-p", "But soft  <b>", "--json"),
                ("score", "-p", "To be, or not to be", "--json")]
        for verb, *rest in same:
            of_file, of_folder = (re.sub(r'"seconds":[^,}]*', "", self.ok(verb, "-m", str(m), *rest).stdout)
                                  for m in (file, TINY))
            self.assertEqual(of_file, of_folder)
        self.assertEqual(self.ok("detokenize", "-m", str(file), stdin="495 138").stdout,
                         self.ok("detokenize", "-m", str(TINY), stdin="495 138").stdout)
        shown = json.loads(self.ok("show", "-m", str(file), "--json").stdout)
        self.assertEqual((shown["model"], shown["format"], shown["tokenizer"]), (str(file), "F32", True))
        bench = json.loads(self.ok("bench", "-m", str(file), "-p", "8", "-n", "2", "-r", "1", "-o", "json").stdout)
        self.assertEqual(len(bench), 2)
        self.ok("chat", "-m", str(file), "-n", "4", stdin="hello\n")
        file.write_bytes(file.read_bytes()[:100000])
        self.refused(1, "tiny.gguf: ", "generate", "-m", str(file), "-p", "x")
        self.refused(1, "tiny.gguf: a GGUF file is made of a folder", "convert", str(file), "-o", str(self.folder / "x.gguf"))

    def test_convert_to_a_folder(self):
        out = self.folder / "tiny-4bit"
        args = ("convert", str(TINY), "-o", str(out))
        result = self.ok(*args, "--quantize", "--json")
        self.assertEqual(result.stderr, "")
        document = json.loads(result.stdout)
        self.assertEqual(document["format"], "folder")
        self.assertEqual({f["name"] for f in document["files"]}, {p.name for p in out.iterdir()})
        self.assertEqual(sum(f["bytes"] for f in document["files"]), document["bytes"])
        self.assertAlmostEqual(document["bits_per_weight"], 4.5, delta=0.1)
        check = document["check"]
        self.assertLess(0, check["kld_mean"])
        self.assertLess(check["logit_error"], check["logit_error_limit"])
        self.assertGreater(check["top1_agreement"], 0.5)
        block = json.loads((out / "config.json").read_text())["quantization"]
        self.assertEqual(block, {"group_size": 64, "bits": 4, "mode": "affine"})
        text = self.ok("generate", "-m", str(out), "-p", "ROMEO:", "-n", "8", "--temp", "0").stdout
        self.assertTrue(text.strip())

        self.refused(1, "is there already", *args, "--quantize")
        again = self.ok(*args, "--bits", "8", "--group-size", "32", "--force")
        self.assertEqual(again.stdout, "")
        self.assertIn("checked: weights differ by", again.stderr)
        back = self.folder / "dense"
        self.ok("convert", str(out), "-o", str(back), "-d", "--quiet")
        self.refused(1, "nothing to dequantise", "convert", str(back), "-o", str(self.folder / "x"), "-d")
        self.assertEqual({p.name for p in self.folder.iterdir()}, {"tiny-4bit", "dense"})

    def test_convert_on_a_full_disk(self):
        """The file size limit stands in for it: some shards fit, one does not."""
        model, out = self.folder / "model", self.folder / "out"
        self.ok("synth", "--preset", "gemma-3-270m", "--layers", "2", "--vocab", "4096", "-o", str(model), "-q")
        for target in (out, self.folder / "out.gguf"):
            result = subprocess.run(
                ["bash", "-c", 'trap "" XFSZ; ulimit -f 1024; exec "$@"', "_", BINARY, "convert", str(model), "-o",
                 str(target), *(("--dtype", "f32") if target == out else ())],
                capture_output=True, text=True, timeout=120, env=environment())
            self.assertEqual(result.returncode, 1, result)
            self.assertIn("cannot write", result.stderr)
            self.assertEqual({p.name for p in self.folder.iterdir()}, {"model"})

    def test_convert_where_nobody_may_write(self):
        if os.geteuid() == 0:
            self.skipTest("root may write anywhere")
        self.folder.chmod(0o500)
        self.refused(1, "cannot create: Permission denied", "convert", str(TINY), "-o", str(self.folder / "x"), "--quantize")

    def test_convert_killed(self):
        """What it leaves is under another name, and is gone after the next."""
        model, out = self.folder / "model", self.folder / "out"
        self.ok("synth", "--preset", "gemma-3-270m", "-o", str(model), "-q")
        partial = self.folder / "out.partial"
        with subprocess.Popen([BINARY, "convert", str(model), "-o", str(out), "--quantize"],
                              stderr=subprocess.PIPE, env=environment()) as child:
            while not list(partial.glob("out/*.tmp*")) and child.poll() is None:
                time.sleep(0.001)
            child.kill()
            child.stderr.read()
            child.wait(60)
        self.assertTrue(partial.exists())
        self.assertFalse(out.exists())
        self.ok("convert", str(model), "-o", str(out), "--quantize", "--no-check", "--quiet")
        self.assertEqual({p.name for p in self.folder.iterdir()}, {"model", "out"})

    def test_convert_without_a_tokenizer(self):
        model, file = self.folder / "model", self.folder / "model.gguf"
        self.ok("synth", "--preset", "gemma-3-270m", "--layers", "1", "--vocab", "512", "-o", str(model), "-q")
        result = self.ok("convert", str(model), "-o", str(file), "--json")
        self.assertEqual(json.loads(result.stdout)["vocabulary"], "placeholder")
        self.assertIn("has no tokenizer", result.stderr)

    def test_quantize(self):
        out, data = self.folder / "mixed", self.folder / "data.txt"
        data.write_text("ROMEO:\nBut soft, what light through yonder window breaks?\n" * 3)
        args = ("quantize", str(TINY), "-o", str(out), "--data", str(data), "--calibration-tokens", "60")
        result = self.ok(*args, "--bits-per-weight", "3.8", "--json")
        self.assertEqual(result.stderr, "")
        document = json.loads(result.stdout)
        self.assertTrue(3.7 < document["bits_per_weight"] <= 3.8, document["bits_per_weight"])
        self.assertTrue(0 < document["calibration_tokens"] <= 62)
        block = json.loads((out / "config.json").read_text())["quantization"]
        for module in document["modules"]:
            self.assertEqual(module["bits"], block.get(module["path"], block)["bits"], module["path"])
            self.assertLess(module["error"], module["rtn_error"])
        text = self.ok("generate", "-m", str(out), "-p", "ROMEO:", "-n", "8", "--temp", "0").stdout
        self.assertTrue(text.strip())
        self.assertIn("3.8 bits per weight", (out / "README.md").read_text())
        self.refused(1, "is there already", *args)
        self.refused(1, "quantised already", "quantize", str(out), "-o", str(self.folder / "again"))
        data.write_text("")
        self.refused(1, "no tokens", *args, "--force")
        self.refused(1, "/nope", "quantize", str(TINY), "-o", str(self.folder / "x"), "--data", "/nope")
        self.assertTrue((out / "model.safetensors").exists())

    def test_quantize_interrupted(self):
        out = self.folder / "out"
        with subprocess.Popen([BINARY, "quantize", str(TINY), "-o", str(out)],
                              stderr=subprocess.PIPE, env=environment()) as child:
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
            self.assertEqual(child.stderr.read(), b"")
            self.assertEqual(child.wait(60), 130)
        self.assertFalse(list(self.folder.glob("out*")))

    def test_convert_interrupted(self):
        model, out = self.folder / "model", self.folder / "out"
        out.mkdir()
        self.ok("synth", "--preset", "gemma-3-270m", "-o", str(model), "-q")
        with subprocess.Popen([BINARY, "convert", str(model), "-o", str(out / "f.gguf"), "--type", "q4_0"],
                              stderr=subprocess.PIPE, env=environment()) as child:
            while not list(out.iterdir()) and child.poll() is None:
                time.sleep(0.001)
            child.send_signal(signal.SIGINT)
            child.stderr.read()
            self.assertEqual(child.wait(60), 130)
        self.assertEqual(list(out.iterdir()), [])


if __name__ == "__main__":
    main()
