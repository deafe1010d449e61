#!/usr/bin/env node
// Holds the GGUF files that lapidary writes and reads against llama.cpp, which runs them by way of node-llama-cpp and
// quantises some with its own quantiser (tools/llama_quantize.py).
//
//   node tools/check_gguf.mjs --modules FOLDER [--lapidary build/bin/lapidary] [--tokenizers build/tokenizers]
//
// FOLDER is where `npm install node-llama-cpp` was run. Every check prints one line; the last line counts them.
//
// Logits are compared with those of --compute exact by rms(difference) / std(logits). The bounds:
//   2e-3  The same weights on both sides, as f32 or f16. llama.cpp looks its GELU up in a table of f16, whose entries
//         are off by 2^-11 of themselves, and rounds what it multiplies with f16 weights to f16.
//   5e-2  bf16, to which it rounds what it multiplies: 2^-9 of each.
//   2e-2  The same blocks of codes on both sides. llama.cpp rounds activations to 8 bits in blocks of 32: 0.7 % of
//         normal ones.
//   4e-2  The same for K types, with blocks of 256. Lapidary's own --compute fast, which rounds so too, differs from
//         --compute exact by 3.2e-2 (Q6_K) and 3.4e-2 (Q4_K) on the model of this test.
// Blocks against the floats they were made from are other weights, so that only the likeliest token is compared, in a
// share of the positions.
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {parseArgs} from "node:util";
import {fileURLToPath, pathToFileURL} from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const {values: flags} = parseArgs({
  options: {
    modules: {type: "string"},
    lapidary: {type: "string", default: "build/bin/lapidary"},
    tokenizers: {type: "string", default: "build/tokenizers"},
  },
});
if (flags.modules === undefined) {
  console.error("check_gguf: --modules says where node-llama-cpp is installed");
  process.exit(2);
}
const entry = path.resolve(flags.modules, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry));

const TINY = "models/tiny";
const PROMPTS = ["ROMEO:", "To be, or not to be, that is", "First Citizen:\nBefore we proceed"];
const GREEDY_TOKENS = 64;
const F32 = ["--type", "f32"];

let passed = 0, failed = 0;
function report(name, ok, detail) {
  ok ? passed++ : failed++;
  console.log(`${ok ? "PASS" : "FAIL"} ${name}: ${detail}`);
}

function lapidary(...args) {
  return execFileSync(flags.lapidary, args, {encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "pipe"]});
}
const lapidaryJson = (...args) => JSON.parse(lapidary(...args, "--json"));

// The one tensor of a file, f32 [rows, columns], as rows.
function readLogits(file) {
  const bytes = fs.readFileSync(file);
  const size = Number(bytes.readBigUInt64LE(0));
  const {shape, data_offsets: [begin, end]} = JSON.parse(bytes.toString("utf8", 8, 8 + size)).logits;
  const start = bytes.byteOffset + 8 + size;
  const data = new Float32Array(bytes.buffer.slice(start + begin, start + end));
  return Array.from({length: shape[0]}, (_, i) => data.subarray(i * shape[1], (i + 1) * shape[1]));
}

const argmax = (row) => row.reduce((best, x, i) => (x > row[best] ? i : best), 0);

class Model {
  static async load(file) {
    const model = new Model();
    model.llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, skipDownload: true});
    model.model = await model.llama.loadModel({modelPath: file});
    return model;
  }

  async dispose() {
    await this.model.dispose();
    await this.llama.dispose();
  }

  // Without <bos>; the spelling of a control token becomes the token.
  tokenize(text) {
    return Array.from(this.model.tokenize(text, true));
  }

  // The logits after each id; `lora` is a file of an adapter and how much of it, if any.
  async logits(ids, lora) {
    const context = await this.model.createContext({
      contextSize: 512, threads: 1, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32",
      ...(lora ? {lora: {adapters: [lora]}} : {}),
    });
    const wanted = ids.map((id) => [id, {generateNext: {logits: true, options: {temperature: 0}}}]);
    const made = await context.getSequence().controlledEvaluate(wanted);
    await context.dispose();
    return made.map(({next}) => {
      const row = new Float32Array(next.logits.size);
      for (const [id, logit] of next.logits) row[id] = logit;
      return row;
    });
  }
}

// rms(difference) / std, and the share of rows with the same largest entry.
function compare(ours, theirs) {
  let difference = 0, sum = 0, squares = 0, count = 0, same = 0;
  ours.forEach((row, i) => {
    row.forEach((x, j) => {
      difference += (x - theirs[i][j]) ** 2;
      sum += x;
      squares += x * x;
      count++;
    });
    same += argmax(row) === argmax(theirs[i]);
  });
  const std = Math.sqrt(squares / count - (sum / count) ** 2);
  return {relative: Math.sqrt(difference / count) / std, agreement: same / ours.length};
}

// The logits that lapidary computes after each id.
function scored(model, ids, folder, ...args) {
  const logits = path.join(folder, "logits.safetensors");
  lapidary("score", "-m", model, "--ids", ids.join(","), "--compute", "exact", "--logits", logits, "--json", ...args);
  return readLogits(logits);
}

const codesBound = (type) => ({relative: /_k/.test(type) ? 4e-2 : 2e-2});

// What llama.cpp makes of `model` converted with `args`, against lapidary's logits of the same ids: by the model, and by
// the file.
async function checkLogits(name, model, ids, folder, args, bound) {
  const file = path.join(folder, "model.gguf");
  lapidary("convert", model, "-o", file, "--force", "--quiet", ...args);
  const loaded = await Model.load(file);
  const theirs = await loaded.logits(ids);
  await loaded.dispose();
  reportLogits(name, scored(model, ids, folder), theirs, bound);
  reportLogits(`${name}, read`, scored(file, ids, folder), theirs,
               bound.agreement ? codesBound(args.at(-1)) : bound);
}

// Adapters, of one scale and of several, that llama.cpp adds to the model's file.
async function checkAdapters(folder) {
  const model = "tests/golden/gemma3-v5", file = path.join(folder, "model.gguf"), ids = randomIds(48, 300);
  lapidary("convert", model, "-o", file, "--force", "--quiet", ...F32);
  for (const [name, scale] of [["plain", 1], ["plain", -0.5], ["patterns", 1]]) {
    const adapter = path.join("tests/golden/adapters", name), lora = path.join(folder, "lora.gguf");
    lapidary("adapter", "convert", adapter, "-o", lora, "--to", "gguf", "-m", model, "--force", "--quiet");
    const loaded = await Model.load(file);
    const theirs = await loaded.logits(ids, {filePath: path.resolve(lora), scale});
    await loaded.dispose();
    const ours = scored(model, ids, folder, "--adapter", `${adapter}:${scale}`);
    reportLogits(`adapter ${name} x ${scale}`, ours, theirs, {relative: 2e-3});
  }
}

// A file that llama.cpp has quantised.
async function checkQuantised(type, source, ids, folder) {
  const file = path.join(folder, `${type}.gguf`);
  execFileSync("python3", ["tools/llama_quantize.py", flags.modules, source, file, type], {stdio: "ignore"});
  const loaded = await Model.load(file);
  const theirs = await loaded.logits(ids);
  await loaded.dispose();
  reportLogits(`quantised by llama.cpp to ${type}`, scored(file, ids, folder), theirs, codesBound(type));
}

function reportLogits(name, ours, theirs, bound) {
  const {relative, agreement} = compare(ours, theirs);
  const ok = bound.agreement ? agreement >= bound.agreement : relative <= bound.relative;
  const limit = bound.agreement ? `${100 * bound.agreement} % of likeliest tokens` : bound.relative.toExponential(1);
  const percent = (100 * agreement).toFixed(1);
  report(name, ok, `rms/std ${relative.toExponential(2)}, same likeliest token ${percent} % (bound ${limit})`);
}

const greedy = (ids, count) =>
  lapidaryJson("generate", "-m", TINY, "--ids", ids.join(","), "-n", `${count}`, "--temp", "0", "--ignore-eos",
               "--compute", "exact").tokens;

// Greedy continuations, token for token.
async function checkGreedy(folder) {
  const file = path.join(folder, "tiny.gguf");
  lapidary("convert", TINY, "-o", file, "--type", "f16", "--force", "--quiet");
  const loaded = await Model.load(file);
  for (const prompt of PROMPTS) {
    const {ids} = lapidaryJson("tokenize", "-m", TINY, "-p", prompt);
    const tokens = greedy(ids, GREEDY_TOKENS);
    const context = await loaded.model.createContext({contextSize: 512, threads: 1});
    const made = [];
    for await (const token of context.getSequence().evaluate(ids, {temperature: 0, yieldEogToken: true})) {
      made.push(token);
      if (made.length === tokens.length) break;
    }
    await context.dispose();
    const first = tokens.findIndex((token, i) => token !== made[i]);
    report(`greedy ${JSON.stringify(prompt)}`, first < 0,
           first < 0 ? `${tokens.length} tokens` : `token ${first} is ${made[first]}, expected ${tokens[first]}`);
  }
  await loaded.dispose();
}

// The ids that HF's tokenizers give (tests/golden/tokenizer). U+2581 beside a space is where SentencePiece, and with it
// llama.cpp, differs from them; NUL ends a string in C.
async function checkTokenizer(name, model, folder, texts, expected) {
  const file = path.join(folder, "tokenizer.gguf");
  lapidary("convert", model, "-o", file, "--type", "q4_0", "--force", "--quiet");
  const loaded = await Model.load(file);
  let count = 0;
  const wrong = texts.filter((text, i) => {
    if (text.length === 0 || /[\u2581\0]/.test(text)) return false;
    count++;
    return JSON.stringify(expected[i]) !== JSON.stringify(loaded.tokenize(text));
  });
  await loaded.dispose();
  report(`tokenizer ${name}`, wrong.length === 0,
         `${count - wrong.length} of ${count} strings` + (wrong.length > 0 ? `, not ${JSON.stringify(wrong[0])}` : ""));
}

// Shapes that the built-in model does not have, small enough to be quick: the window is passed, queries are scaled as
// in the 27B models, positions as in the 4B model.
const SHAPES = [
  ["gemma-2b", "--layers", "3"],
  ["gemma-2-2b", "--layers", "4", "--window", "16"],
  ["gemma-2-27b", "--layers", "4", "--window", "16"],
  ["gemma-3-4b", "--layers", "7", "--window", "16"],
  ["gemma-3-27b", "--layers", "6", "--window", "16"],
];
const SMALL = ["--hidden", "256", "--ffn", "512", "--heads", "4", "--kv-heads", "2", "--head-dim", "64",
               "--vocab", "4096"];

// Configurations that nobody released but that files can express: norms far from one, queries scaled by what is neither
// of llama.cpp's choices, heads that are not hidden / heads wide, tight caps.
const GOLDEN = ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-v4", "gemma3-mm"];

// Every third layer full.
function setPattern(model) {
  const file = path.join(model, "config.json");
  const config = JSON.parse(fs.readFileSync(file, "utf8"));
  config.layer_types = config.layer_types.map((_, i) => ((i + 1) % 3 === 0 ? "full_attention" : "sliding_attention"));
  delete config.sliding_window_pattern;
  fs.writeFileSync(file, JSON.stringify(config));
}

const randomIds = (count, vocabulary) =>
  Array.from({length: count}, (_, i) => (i === 0 ? 2 : (i * 7919 + 13) % (vocabulary - 50) + 50));

async function checkTiny(folder) {
  await checkGreedy(folder);
  const {ids} = lapidaryJson("tokenize", "-m", TINY, "-p", "ROMEO:\nBut, soft! what light through yonder window");
  const text = ids.concat(greedy(ids, 100));  // longer than the window
  for (const [type, bound] of [["f32", {relative: 2e-3}], ["f16", {relative: 2e-3}], ["bf16", {relative: 5e-2}],
                               ["q8_0", {agreement: 0.95}], ["q4_0", {agreement: 0.7}],
                               // Of widths that their blocks do not divide: with Q5_0 and Q8_0 in their place.
                               ["q6_k", {agreement: 0.95}], ["q4_k_m", {agreement: 0.8}]])
    await checkLogits(`tiny ${type}`, TINY, text, folder, ["--type", type], bound);
  const source = path.join(folder, "f32.gguf");
  lapidary("convert", TINY, "-o", source, "--type", "f32", "--quiet");
  for (const type of ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q6_k", "q4_k_m", "q5_k_m"])
    await checkQuantised(type, source, text, folder);
  const golden = JSON.parse(fs.readFileSync("tests/golden/tokenizer/tiny.json", "utf8")).encode;
  await checkTokenizer("tiny", TINY, folder, golden.map(({text}) => text), golden.map(({ids}) => ids));
}

async function checkShapes(folder) {
  for (const [preset, ...shape] of SHAPES) {
    const model = path.join(folder, preset);
    lapidary("synth", "--preset", preset, ...SMALL, ...shape, "--dtype", "f32", "-o", model, "-q");
    await checkLogits(preset, model, randomIds(48, 4096), folder, F32, {relative: 2e-3});
    if (preset === "gemma-2b") continue;
    setPattern(model);
    await checkLogits(`${preset}, every third layer full`, model, randomIds(48, 4096), folder, F32, {relative: 2e-3});
  }
  const blocks = path.join(folder, "blocks");  // of 256 values, as wide as the shape's matrices are
  lapidary("synth", "--preset", "gemma-3-1b", ...SMALL, "--layers", "7", "--dtype", "f32", "-o", blocks, "-q");
  for (const [type, agreement] of [["q6_k", 0.7], ["q4_k_m", 0.3], ["q4_k", 0.3]])
    await checkLogits(`gemma-3-1b shape, ${type}`, blocks, randomIds(48, 4096), folder, ["--type", type], {agreement});
  const affine = path.join(folder, "affine");
  lapidary("synth", "--preset", "gemma-3-1b", ...SMALL, "--layers", "7", "--bits", "4", "-o", affine, "-q");
  await checkLogits("gemma-3-1b, 4-bit affine", affine, randomIds(48, 4096), folder, F32, {relative: 2e-3});
  for (const name of GOLDEN)
    await checkLogits(name, path.join("tests/golden", name), randomIds(48, 300), folder, F32, {relative: 2e-3});
}

async function checkRealTokenizers(folder) {
  const texts = JSON.parse(fs.readFileSync("tests/golden/tokenizer/strings.json", "utf8"));
  for (const [name, vocabulary] of [["gemma2", "256000"], ["gemma3", "262208"]]) {
    const tokenizer = path.join(flags.tokenizers, name);
    if (!fs.existsSync(tokenizer)) {
      console.log(`SKIP tokenizer ${name}: no ${tokenizer}, which make download fetches`);
      continue;
    }
    const model = path.join(folder, name);
    lapidary("synth", "--preset", "gemma-3-270m", "--layers", "1", "--hidden", "64", "--ffn", "64",
             "--vocab", vocabulary, "-o", model, "-q");
    for (const file of fs.readdirSync(tokenizer)) fs.copyFileSync(path.join(tokenizer, file), path.join(model, file));
    const expected = JSON.parse(fs.readFileSync(`tests/golden/tokenizer/${name}.json`, "utf8"));
    await checkTokenizer(name, model, folder, texts, expected);
  }
}

process.chdir(root);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "lapidary-gguf-"));
try {
  await checkTiny(folder);
  await checkShapes(folder);
  await checkAdapters(folder);
  await checkRealTokenizers(folder);
} finally {
  fs.rmSync(folder, {recursive: true});
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
