#!/usr/bin/env node
// llama.cpp, by way of node-llama-cpp, as a peer of `lapidary bench peers`; src/bench/peers.h says what is read and
// written.
//
//   node llama_cpp.mjs MODULES MODEL.gguf [THREADS]
//
// MODULES is the folder where node-llama-cpp was installed.
import path from "node:path";
import readline from "node:readline";
import {pathToFileURL} from "node:url";

const [modules, modelPath, threads] = process.argv.slice(2);
const entry = path.resolve(modules, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry));

const seconds = () => performance.now() / 1000;
const answer = (object) => process.stdout.write(JSON.stringify(object) + "\n");

const loading = seconds();
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, skipDownload: true});
const model = await llama.loadModel({modelPath});
answer({load_s: seconds() - loading});

for await (const line of readline.createInterface({input: process.stdin})) {
  const {ids, n} = JSON.parse(line);
  // A new context has an empty cache. Making it is no part of the answer: the others have theirs at once.
  const context = await model.createContext({
    contextSize: ids.length + n, batchSize: ids.length, threads: Number(threads) || undefined,
  });
  const tokens = [];
  const start = seconds();
  let first = start;
  for await (const token of context.getSequence().evaluate(ids, {temperature: 0, yieldEogToken: true})) {
    tokens.push(token);
    if (tokens.length === 1) first = seconds();
    if (tokens.length === n) break;
  }
  answer({ttft_s: first - start, decode_s: seconds() - first, tokens});
  await context.dispose();
}
await llama.dispose();
