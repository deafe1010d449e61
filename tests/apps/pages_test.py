#!/usr/bin/env python3
"""The pages of studies, of training, of ways of decoding and of isolation in a browser."""
import json
import sys

from browser import CHROMIUM, PageCase
from program import SOURCE, TINY, main, needs_model

TEXT = "Once upon a time there was a little fox who lived in a forest. Once upon a time there was a bear."


@needs_model
class Studies(PageCase):
    def study(self, *args):
        folder = self.folder / "out"
        self.ok("study", *args, "-o", str(folder))
        return folder / "report.html"

    def check_tokens(self, path):
        """A text of tinted tokens says the figure of each to pointer and keyboard."""
        page = self.open(path, width=400)
        said = 'document.querySelector(".tokens + output").textContent'
        box = page.evaluate("""(() => {
          const token = document.querySelector(".tokens").children[3];
          token.scrollIntoView({ block: "center" });
          const { left, top, width, height } = token.getClientRects()[0];
          return [left + width / 2, top + height / 2];
        })()""")
        page.hover(*box)
        by_pointer = page.eventually(said)
        self.assertRegex(by_pointer, r"Token 3 .*: [-+]?\d")
        page.hover(1, 1)  # else what is scrolled below the pointer speaks again
        self.assertTrue(page.tab_to('element.matches(".tokens")'))
        page.key("ArrowRight")
        self.assertRegex(page.evaluate(said), r"Token 4 .*: [-+]?\d")
        self.assertEqual(page.complaints(), [])

    def test_layers(self):
        self.check_page(self.study("layers", "-p", TEXT), charts=7)

    def test_attention(self):
        path = self.study("attention", "-p", TEXT)
        self.check_page(path, charts=3)
        self.check_tokens(path)
        page = self.open(path, width=400)
        drawn = """(() => [...document.querySelectorAll(".heads canvas, .pattern canvas")].every((canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(data.filter((_, i) => i % 4 === 0)).size > 2;
        }))()"""
        self.assertTrue(page.evaluate(drawn))
        said = 'document.querySelector(".pattern output").textContent'
        before = page.evaluate(said)
        box = page.evaluate("""(() => {
          const canvas = document.querySelector(".pattern canvas");
          canvas.scrollIntoView({ block: "center" });
          const { left, top, width, height } = canvas.getBoundingClientRect();
          return [left, top, width, height];
        })()""")
        page.hover(box[0] + 1, box[1] + 1)  # the first query, which sees itself alone
        self.assertIn("100.0 %", page.eventually(f'{said} === "{before}" ? "" : {said}'))
        self.assertTrue(page.tab_to('element.matches(".pattern canvas")'))
        by_pointer = page.evaluate(said)
        page.key("ArrowDown")
        self.assertNotEqual(page.evaluate(said), by_pointer)
        self.assertTrue(page.tab_to('element.matches(".heads button:nth-child(2)")'))
        page.key("Enter")
        self.assertIn("head 1", page.evaluate(said))
        self.assertEqual(page.complaints(), [])

    def test_attention_by_length(self):
        text = self.folder / "text.txt"
        text.write_text(TEXT * 6)
        self.check_page(self.study("attention", "-f", str(text), "--lengths", "16,32,64"), charts=7)

    def test_layers_made_local(self):
        text = self.folder / "text.txt"
        text.write_text(TEXT * 8)
        self.check_page(self.study("attention", "-f", str(text), "--localize", "--piece", "80"), charts=2)

    def test_diff(self):
        four = self.folder / "four"
        self.ok("convert", str(TINY), "-o", str(four), "--bits", "4", "--no-check")
        path = self.study("diff", str(TINY), str(four), "-p", TEXT, "--swap-layers")
        self.check_page(path, charts=4)
        self.check_tokens(path)
        page = self.open(path, width=400)
        said = 'document.querySelector(".matrix-map output h3").textContent'
        self.assertEqual(page.evaluate(said), "Layer 0, self_attn.q_proj")
        self.assertTrue(page.tab_to('element.matches(".matrix-map td")'))
        page.key("ArrowRight")
        page.key("ArrowDown")
        self.assertEqual(page.evaluate(said), "Layer 1, self_attn.k_proj")
        tints = """[...document.querySelectorAll(".matrix-map td")].map((cell) => getComputedStyle(cell).backgroundColor).join()"""
        before = page.evaluate(tints)
        page.evaluate("document.activeElement.blur()")
        self.assertTrue(page.tab_to('element.textContent === "direction"'))
        page.key("Enter")
        self.assertNotEqual(page.evaluate(tints), before)
        self.assertEqual(page.complaints(), [])

    def test_memory(self):
        data = self.folder / "text.txt"
        data.write_text(TEXT * 4)
        self.check_page(self.study("memory", "-p", "64", "-n", "8", "-c", "512", "--train", str(data), "--iters", "2",
                                   "--sequence-length", "32"), charts=8)

    def test_architecture(self):
        path = self.study("architecture")
        self.check_page(path, charts=1)
        page = self.open(path, width=400)
        inside, totals = ('document.querySelector("%s").textContent' % name for name in (".inside h2", ".totals"))
        # The drawing comes before the table of all tensors.
        self.assertTrue(page.evaluate("""document.querySelector(".stack").compareDocumentPosition(
          document.querySelector("main > .scroll")) & Node.DOCUMENT_POSITION_FOLLOWING"""))
        self.assertEqual(page.evaluate(inside), "layer 0 local")
        before = page.evaluate(totals)
        self.assertTrue(page.tab_to('element.matches("input.context")'))
        page.key("ArrowLeft")
        self.assertNotEqual(page.evaluate(totals), before)
        self.assertTrue(page.tab_to('element.matches(".stack button")'))
        page.key("ArrowUp")
        self.assertEqual(page.evaluate(inside), "embedding")
        for _ in range(6):
            page.key("ArrowDown")
        self.assertEqual(page.evaluate(inside), "layer 5 global")
        self.assertIn("all before", page.evaluate('document.querySelector(".inside").textContent'))
        self.assertEqual(page.complaints(), [])

    def test_capacity(self):
        self.check_page(self.study("capacity", "--sizes", "3000,4000", "--loads", "0.1,1", "--layers", "1", "--vocabulary",
                                   "16", "--length", "16", "--epochs", "20", "--batch-size", "8"), charts=3)

    def test_capacity_of_a_text(self):
        text = self.folder / "text.txt"
        words = ("red", "green", "stone", "cuts", "light", "a")
        text.write_text(" ".join(words[i * i % 37 * i % 6] for i in range(1, 1500)))
        path = self.study("capacity-text", "-f", str(text), "--sizes", "3000", "--loads", "0.2,1", "--layers", "1", "--length",
                          "16", "--steps", "60", "--batch-size", "8", "--held-out", "30")
        self.check_page(path, charts=5)
        for width in (1280, 400):
            page = self.open(path, width)
            # Ticks where the points are can be read, and none covers another.
            ticks = page.evaluate("""Chart.getChart(document.querySelector(".chart canvas")).scales.x.ticks.map(({ label, value }) =>
              [String(label), Chart.getChart(document.querySelector(".chart canvas")).scales.x.getPixelForValue(value)])""")
            self.assertGreater(len(ticks), 2)
            self.assertLessEqual(max(len(label) for label, _ in ticks), 6, ticks)
            self.assertGreater(min(b - a for (_, a), (_, b) in zip(ticks, ticks[1:])), 30, ticks)

    def test_capacity_of_layers(self):
        data = self.folder / "data.jsonl"
        data.write_text("".join(json.dumps({"text": f"The fox eats {i} red berries."}) + "\n" for i in range(16)))
        self.check_page(self.study("capacity-layers", "--layers", "0,3", "--data", str(data), "--sequences", "8", "--length",
                                   "24", "--steps", "10", "--batch-size", "4"), charts=2)


@needs_model
class Runs(PageCase):
    def sentences(self, name, animal):
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"The {animal} number {i} eats {i * 7 % 11} berries each day."}) + "\n"
                                for i in range(6)))
        return str(path)

    def test_what_is_learnt_by_heart(self):
        run, members = self.folder / "run", self.sentences("members", "fox")
        self.ok("train", "-m", str(TINY), "--data", members, "--iters", "6", "--batch-size", "2", "--sequence-length", "24",
                "--rank", "2", "--learning-rate", "0.01", "--valid-fraction", "0.3", "--eval-every", "3",
                "--track-memorization", "3", "-o", str(run))
        self.check_page(run / "report.html", charts=7)
        study = self.folder / "study"
        self.ok("study", "memorization", "-m", str(TINY), "--adapter", str(run / "adapter"), "--reference", str(TINY), "--data",
                members, "--held-out", self.sentences("others", "bear"), "-o", str(study))
        self.check_page(study / "report.html", charts=1)

    def test_isolation(self):
        run = self.folder / "run"
        self.ok("isolate", "run", str(SOURCE / "data/isolation/food_001_bakery.json"), "-o", str(run), "-n", "8", "-q",
                "--conditions", "sequential,prompted,semantic,mask")
        result = json.loads((run / "result.json").read_text())
        shown = (("outputs", "contamination"), ("outputs", "leak_nats"), ("questions", "expected_nll"),
                 ("synthesis", "coverage"))
        charts = [figure for figure in shown if any((m["group"], m["measure"]) == figure and m["mean"] != 0
                                                    for m in result["metrics"])]
        self.check_page(run / "report.html", charts=len(charts))
        page = self.open(run / "report.html", width=400)
        bars = page.evaluate("""[...document.querySelectorAll(".map")[0].querySelectorAll(".bar")].map((bar) =>
          [...bar.children].reduce((sum, piece) => sum + piece.getBoundingClientRect().width, 0) /
          bar.getBoundingClientRect().width)""")
        self.assertEqual(len(bars), 1 + 1 + 3 + 1)
        self.assertTrue(all(0.95 < filled < 1.05 for filled in bars), bars)

    def test_ways_of_decoding(self):
        tasks, page = self.folder / "tasks.jsonl", self.folder / "decode.html"
        tasks.write_text('{"prompt": "ROMEO:", "completion": "no"}\n{"prompt": "JULIET:"}\n')
        self.ok("bench", "decode", "-q", "--prompts", str(tasks), "-n", "8", "-r", "1", "--blocks", "4", "--gammas", "0,inf",
                "--mask-token", "<mask>", "--html", str(page))
        self.check_page(page, charts=4)


if __name__ == "__main__":
    main() if CHROMIUM else sys.exit(77)
