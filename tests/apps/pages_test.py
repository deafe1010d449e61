#!/usr/bin/env python3
"""The pages of studies in a browser."""
import sys

from browser import CHROMIUM, PageCase
from program import main, needs_model

TEXT = "Once upon a time there was a little fox who lived in a forest. Once upon a time there was a bear."


@needs_model
class Studies(PageCase):
    def study(self, *args):
        folder = self.folder / "out"
        self.ok("study", *args, "-o", str(folder))
        return folder / "report.html"

    def test_layers(self):
        self.check_page(self.study("layers", "-p", TEXT), charts=7)

    def test_attention(self):
        path = self.study("attention", "-p", TEXT)
        self.check_page(path, charts=3)
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


if __name__ == "__main__":
    main() if CHROMIUM else sys.exit(77)
