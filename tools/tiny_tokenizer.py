"""Trains the built-in model's tokenizer and writes it in both forms: SentencePiece and Hugging Face.

The ids that programs name keep Gemma 3's places: 0-4 <pad> <eos> <bos> <unk> <mask>, 5 [multimodal], 6-104 unused,
105 <start_of_turn>, 106 <end_of_turn>, 107-137 runs of newlines, 138-167 runs of spaces, 168-237 HTML tags, 238-493 the
bytes. What the corpus taught follows.
"""

import io
import json
from pathlib import Path

import sentencepiece as spm
from golden_common import write_json
from sentencepiece import sentencepiece_model_pb2 as proto

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space inside the pieces
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")

HTML = (
    "table caption thead tbody tfoot tr th td /table /caption /thead /tbody /tfoot /tr /th /td "
    "h1 h2 h3 h4 h5 h6 blockquote /h1 /h2 /h3 /h4 /h5 /h6 /blockquote "
    "strong em b i u s sub sup code /strong /em /b /i /u /s /sub /sup /code "
    "a html body img span bbox ul li div iframe footer /a /html /body /img /span /bbox /ul /li /div /iframe /footer"
).split()

USER_DEFINED = (
    ["<mask>", "[multimodal]"]
    + [f"<unused{i}>" for i in range(99)]
    + ["<start_of_turn>", "<end_of_turn>"]
    + ["\n" * n for n in range(1, 32)]
    + [SPACE * n for n in range(2, 32)]
    + [f"<{tag}>" for tag in HTML]
)

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set preface = '' -%}
{%- set turns = messages -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] -%}
    {%- set preface = (system if system is string else system[0]['text']) + '\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if turn['role'] == 'assistant' else turn['role']) + '\\n' -}}
    {%- if loop.first -%}{{- preface -}}{%- endif -%}
    {%- if turn['content'] is string -%}
        {{- turn['content'] | trim -}}
    {%- else -%}
        {%- for part in turn['content'] -%}
            {%- if part['type'] == 'text' -%}{{- part['text'] | trim -}}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""


def train_sentencepiece(text: str, vocab_size: int) -> bytes:
    """A BPE model with Gemma's settings: no normalisation, no dummy prefix, digits apart, bytes for the rest."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=USER_DEFINED,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        num_threads=2,
        minloglevel=1,
    )
    return model.getvalue()


def merges_of(pieces):
    """Every way to make a piece of two others; the best piece first, and for equal pieces the longest left part."""
    score = {p.piece: p.score for p in pieces}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in score
        for cut in range(1, len(piece))
        if piece[:cut] in score and piece[cut:] in score
    ]
    return sorted(merges, key=lambda m: (score[m[0] + m[1]], len(m[0]), len(m[1])), reverse=True)


def hugging_face_json(model: bytes) -> dict:
    """The tokenizer.json for a SentencePiece model, section by section as Gemma 3's."""
    pieces = proto.ModelProto.FromString(model).pieces
    kinds = proto.ModelProto.SentencePiece
    added = (kinds.UNKNOWN, kinds.CONTROL, kinds.USER_DEFINED)
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": p.piece,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": p.piece in SPECIAL,
            }
            for i, p in enumerate(pieces)
            if p.type in added
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                bos,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<bos>", "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {p.piece: i for i, p in enumerate(pieces)},
            "merges": merges_of(pieces),
        },
    }


def check_layout(model: bytes):
    """Fails unless the ids that programs name are where Gemma 3 has them."""
    tokenizer = spm.SentencePieceProcessor(model_proto=model)
    places = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 5: "[multimodal]", 6: "<unused0>"}
    places |= {105: "<start_of_turn>", 106: "<end_of_turn>", 107: "\n", 138: SPACE * 2, 168: "<table>", 238: "<0x00>"}
    for i, piece in places.items():
        if tokenizer.id_to_piece(i) != piece:
            raise RuntimeError(f"id {i} is {tokenizer.id_to_piece(i)!r}, expected {piece!r}")


def write_tokenizer(text: str, vocab_size: int, max_length: int, out: Path):
    """Trains on `text` and writes the tokenizer's files into `out`."""
    model = train_sentencepiece(text, vocab_size)
    check_layout(model)
    (out / "tokenizer.model").write_bytes(model)
    compact = json.dumps(hugging_face_json(model), ensure_ascii=False, separators=(",", ":"))
    (out / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    named = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    write_json(out / "special_tokens_map.json", named)
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            **named,
            "clean_up_tokenization_spaces": False,
            "spaces_between_special_tokens": False,
            "model_max_length": max_length,
            "chat_template": CHAT_TEMPLATE,
        },
    )
