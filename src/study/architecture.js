// Draws modelArchitecture: a button for each stage of the model, and the inside of the chosen one.
(() => {
  const { config, layers, embedding, norm, head, start, kv_row } = modelArchitecture;
  const find = (selector) => document.querySelector(selector);
  const stack = find(".stack"), inside = find(".inside"), totals = find(".totals");
  const slider = find("input.context"), tint = find("select.tint"), cache = find("select.cache");
  for (const type of Object.keys(kv_row)) cache.add(new Option(type, type, type === "bf16", type === "bf16"));
  const most = config.max_position_embeddings, qDim = config.num_attention_heads * config.head_dim;
  // The slider goes by the logarithm: 0 is one position, 1000 all.
  const context = () => Math.max(1, Math.round(most ** (slider.value / 1000)));
  slider.value = Math.round((1000 * Math.log(start)) / Math.log(most));
  const keys = (layer) => (layer.window ? Math.min(layer.window, context()) : context());

  const short = (n, units, base) => {
    let unit = 0;
    while (n >= base && unit + 1 < units.length) n /= base, ++unit;
    return `${Number.isInteger(n) ? n : n.toPrecision(Math.max(3, String(Math.round(n)).length))}${units[unit]}`;
  };
  const count = (n) => short(n, ["", " k", " M", " G", " T"], 1000);
  const bytes = (n) => short(n, [" B", " KiB", " MiB", " GiB"], 1024);
  const matrixFlops = (tensor) => (tensor.shape.length > 1 ? 2 * tensor.parameters : 0);
  const attentionFlops = (layer) => 4 * qDim * keys(layer);
  const sum = (list, value) => list.reduce((all, item) => all + value(item), 0);

  // A stage: what its button says, and the figures by which it is tinted.
  const stages = [
    { name: "embedding", tensors: [embedding], flops: () => 0 },
    ...layers.map((layer) => ({
      name: `layer ${layer.layer} ${layer.sliding ? "local" : "global"}`, kind: layer.sliding ? "local" : "global", layer,
      tensors: layer.tensors, flops: () => sum(layer.tensors, matrixFlops) + attentionFlops(layer),
    })),
    { name: "norm", tensors: [norm], flops: () => 0 },
    { name: "logits", tensors: [head], flops: () => matrixFlops(head) },
  ];
  let chosen = Math.min(1, layers.length);

  const heat = (element, share) => element.style.setProperty("--heat", `${Math.round(45 * Math.sqrt(share))}%`);
  const figure = (stage) => (tint.value === "flops" ? stage.flops() : sum(stage.tensors, (t) => t[tint.value]));

  function box(title, lines, value, whole) {
    const element = document.createElement("div"), name = document.createElement("b");
    element.className = "box";
    name.textContent = title;
    element.append(name, ...lines.flatMap((line) => {
      const text = document.createElement("span");
      text.textContent = line;
      return [text, document.createElement("br")];
    }).slice(0, -1));
    heat(element, whole > 0 ? value / whole : 0);
    return element;
  }
  function tensorBox(tensor, whole) {
    const flops = matrixFlops(tensor), value = tint.value === "flops" ? flops : tensor[tint.value];
    const lines = [tensor.shape.join(" \u00d7 "), tensor.format, `${count(tensor.parameters)} parameters, ${bytes(tensor.bytes)}`];
    if (flops > 0) lines.push(`${count(flops)} operations`);
    return box(tensor.name.replace(/^(self_attn|mlp|model)\./, ""), lines, value, whole);
  }
  function attentionBox(layer, whole) {
    const flops = attentionFlops(layer);
    const groups = config.num_attention_heads / config.num_key_value_heads;
    const lines = [
      `${config.num_attention_heads} heads of ${config.head_dim}, ${groups} to each of ${config.num_key_value_heads} for keys and values`,
      `${keys(layer).toLocaleString("en")} keys seen${layer.window ? `, window ${layer.window}` : ", all before"}`,
      `rotary, theta ${layer.rope_theta.toLocaleString("en")}${layer.rope_factor === 1 ? "" : `, positions / ${layer.rope_factor}`}`,
      `${bytes(keys(layer) * kv_row[cache.value])} of keys and values, ${count(flops)} operations`,
    ];
    if (config.attn_logit_softcapping > 0) lines.push(`logits within \u00b1${config.attn_logit_softcapping}`);
    return box("attention", lines, tint.value === "flops" ? flops : 0, whole);
  }
  function step(...boxes) {
    const element = document.createElement("div");
    element.className = "step";
    element.append(...boxes);
    return element;
  }
  function branch(title, steps) {
    const element = document.createElement("div"), heading = document.createElement("h3");
    element.className = "branch";
    heading.textContent = title;
    element.append(heading, ...steps);
    return element;
  }
  function plus() {
    const element = document.createElement("div");
    element.className = "sum";
    element.textContent = "\u2295 added to the residual stream";
    return element;
  }
  function layerInside({ layer }, whole) {
    const boxes = Object.fromEntries(layer.tensors.map((t) => [t.name.replace(/^(self_attn|mlp)\./, ""), tensorBox(t, whole)]));
    const some = (...names) => names.filter((name) => boxes[name]).map((name) => boxes[name]);
    const before = config.post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    const after = config.post_norms ? some("post_attention_layernorm") : [];
    const attention = [some("input_layernorm"), some("q_proj", "k_proj", "v_proj"), some("q_norm", "k_norm"),
      [attentionBox(layer, whole)], some("o_proj"), after];
    const mlp = [some(before), some("gate_proj", "up_proj"), [box("gelu(gate) \u00d7 up", [`${config.intermediate_size} neurons`], 0, 0)],
      some("down_proj"), some("post_feedforward_layernorm")];
    const steps = (rows) => rows.filter((row) => row.length > 0).map((row) => step(...row));
    return [branch("attention", steps(attention)), plus(), branch("MLP", steps(mlp)), plus()];
  }

  function draw() {
    const figures = stages.map(figure), largest = Math.max(...figures);
    stack.querySelectorAll("button").forEach((button, i) => {
      button.setAttribute("aria-pressed", i === chosen);
      button.tabIndex = i === chosen ? 0 : -1;
      heat(button, largest > 0 ? figures[i] / largest : 0);
    });
    const stage = stages[chosen], heading = document.createElement("h2"), facts = document.createElement("p");
    heading.textContent = stage.name;
    facts.textContent = `${count(sum(stage.tensors, (t) => t.parameters))} parameters, ` +
      `${bytes(sum(stage.tensors, (t) => t.bytes))}, ${count(stage.flops())} operations of a token`;
    inside.replaceChildren(heading, facts, ...(stage.layer ? layerInside(stage, figures[chosen])
      : [branch("", stage.tensors.map((t) => step(tensorBox(t, figures[chosen]))))]));
    if (chosen === stages.length - 1 && config.tie_word_embeddings) {
      const tied = document.createElement("p");
      tied.textContent = "The matrix is the embedding's: it is stored once.";
      inside.append(tied);
    }
    const read = sum(stages.slice(1), (s) => sum(s.tensors, (t) => t.bytes)) +
      sum(layers, (layer) => keys(layer) * kv_row[cache.value]);
    totals.textContent = `The token at position ${context().toLocaleString("en")}: ${count(sum(stages, (s) => s.flops()))} ` +
      `operations, of them ${count(sum(layers, attentionFlops))} of attention; ${bytes(read)} to be read.`;
  }
  function choose(i, focus) {
    chosen = Math.max(0, Math.min(stages.length - 1, i));
    draw();
    if (focus) stack.children[chosen].focus();
  }
  stages.forEach((stage, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = stage.kind ?? "";
    button.textContent = stage.name;
    button.addEventListener("click", () => choose(i, false));
    stack.append(button);
  });
  stack.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -stages.length, End: stages.length }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(chosen + move, true);
  });
  for (const control of [slider, tint, cache]) control.addEventListener("input", draw);
  draw();
})();
