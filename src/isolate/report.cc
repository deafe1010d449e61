#include "isolate/report.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "base/json.h"
#include "isolate/assets.h"
#include "isolate/drawings.h"
#include "report/html.h"

namespace lapidary {

namespace {

constexpr size_t kMostExamples = 40;  // whose outputs are on the page

std::string number(double value, int digits) {
  return fmt::format("{:.{}f}", value, digits);
}

// Of run.json, as text.
std::string described(const IsolationResult& run, const char* key) {
  const OrderedJson value = run.folder.description().value(key, OrderedJson());
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Of run.json, a list of texts; empty where an older run says nothing.
std::string described_list(const IsolationResult& run, const char* key) {
  const OrderedJson list = run.folder.description().value(key, OrderedJson::array());
  std::string text;
  for (const OrderedJson& value : list)
    if (value.is_string()) text += (text.empty() ? "" : ", ") + value.get<std::string>();
  return text;
}

// "found: agglomerative, layer 5, number by silhouette"; empty where they are the file's.
std::string clusters_text(const IsolationResult& run) {
  const OrderedJson clusters = run.folder.description().value("clusters", OrderedJson());
  if (!clusters.is_object()) return "";
  const auto part = [&](const char* key) {
    const OrderedJson value = clusters.value(key, OrderedJson());
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  return fmt::format("found: {}, layer {}, number {}", part("method"), part("layer"),
                     part("number"));
}

const ConditionFigure* find(std::span<const ConditionFigure> figures, std::string_view group,
                            std::string_view measure, Condition condition) {
  for (const ConditionFigure& f : figures)
    if (f.group == group && f.measure == measure && f.condition == condition) return &f;
  return nullptr;
}

std::vector<Condition> conditions_of(const IsolationResult& run) {
  std::vector<Condition> list;
  for (const PlannedCondition& condition : run.plans[0].conditions)
    list.push_back(condition.condition);
  return list;
}

// A table of one group: a row per measure, a column per condition, the interval below the mean.
HtmlSection figures_section(const IsolationResult& run, std::string_view group) {
  const std::vector<Condition> conditions = conditions_of(run);
  std::string html =
      "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th>mean over examples, "
      "95 % interval</th>";
  for (const Condition condition : conditions)
    html += fmt::format("<th class=\"n\">{}</th>", name_of(condition));
  html += "</tr></thead><tbody>\n";
  for (const MeasureKind& kind : measure_kinds()) {
    std::string cells;
    bool any = false;
    for (const Condition condition : conditions) {
      const ConditionFigure* f = find(run.figures, group, kind.name, condition);
      any = any || f != nullptr;
      cells += f == nullptr
                   ? "<td></td>"
                   : fmt::format("<td class=\"n\">{}{}</td>", number(f->mean, kind.digits),
                                 f->interval ? fmt::format("<br><small>{} … {}</small>",
                                                           number(f->interval->first, kind.digits),
                                                           number(f->interval->second, kind.digits))
                                             : "");
    }
    if (any) html += fmt::format("<tr><td>{}</td>{}</tr>\n", html_escape(kind.title), cells);
  }
  return {fmt::format("Figures of the {}", group), html + "</tbody></table></div>\n"};
}

// Differences whose sign is not chance, by Holm's p; green where isolation is better.
HtmlSection differences_section(const IsolationResult& run) {
  std::string rows;
  size_t shown = 0, tested = 0;
  int64_t pairs = 0;
  for (const ConditionDifference& d : run.differences) {
    tested += d.p_holm ? 1 : 0;
    pairs = std::max(pairs, d.pairs);
    const auto kind = std::ranges::find(measure_kinds(), d.measure, &MeasureKind::name);
    if (kind == measure_kinds().end() || !d.p_holm || !d.interval || *d.p_holm > 0.05) continue;
    const double gain = d.mean * kind->better;
    rows += fmt::format(
        "<tr><td>{}: {}</td><td>{}</td><td class=\"n {}\">{:+.{}f}<br><small>{} … {}</small></td>"
        "<td class=\"n\">{:.2g}</td><td class=\"n\">{:.2g}</td><td class=\"n\">{:.2f}</td>"
        "<td class=\"n\">{:.2f}</td><td class=\"n\">{}</td></tr>\n",
        html_escape(d.group), html_escape(kind->title), name_of(d.b),
        gain > 0   ? "good"
        : gain < 0 ? "bad"
                   : "",
        d.mean, kind->digits, number(d.interval->first, kind->digits),
        number(d.interval->second, kind->digits), *d.p_holm, *d.p_sign_flip, *d.dz,
        *d.rank_biserial, d.pairs_needed ? std::to_string(*d.pairs_needed) : "");
    ++shown;
  }
  constexpr const char* kTitle = "Semantic isolation against the other conditions";
  if (run.differences.empty())
    return {kTitle, "<p>There are no two to compare: semantic and another condition.</p>\n"};
  if (tested == 0)
    return {kTitle,
            fmt::format("<p>No difference was tested: a test needs two examples at least that "
                        "have outputs under both conditions, this run has {}. Differences "
                        "without a test are in what <code>isolate report --json</code> "
                        "prints.</p>\n",
                        pairs)};
  const std::string all = fmt::format(
      "<p>{} of {} differences between semantic isolation and another condition are larger than "
      "chance explains (Wilcoxon signed-rank over up to {} examples, Holm over all {} differences, "
      "p &lt; 0.05). Green: isolation is better. The last column: examples that would show an "
      "effect of this size four times in five.</p>\n",
      shown, tested, pairs, tested);
  if (shown == 0) return {kTitle, all};
  return {kTitle,
          all +
              "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th>measure</th><th>against"
              "</th><th class=\"n\">difference</th><th class=\"n\">p, Holm</th><th class=\"n\">"
              "p, sign flips</th><th class=\"n\">d<sub>z</sub></th><th class=\"n\">rank-biserial"
              "</th><th class=\"n\">examples needed</th></tr></thead><tbody>\n" +
              rows + "</tbody></table></div>\n"};
}

// What other models prefer: a row per pair of conditions and group.
HtmlSection judged_section(const IsolationResult& run) {
  std::string rows;
  const auto percent = [](const std::optional<double>& share) {
    return share ? fmt::format("{:.1f} %", 100 * *share) : "";
  };
  for (const JudgedPair& pair : run.judged)
    for (const JudgeFigures& f : pair.figures)
      rows += fmt::format(
          "<tr><td>{}</td><td>{} against {}</td><td>{}</td><td class=\"n\">{}</td><td "
          "class=\"n\">{} / {} / {}</td><td class=\"n\">{}</td><td class=\"n\">{}{}</td><td "
          "class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
          html_escape(pair.model), name_of(pair.a), name_of(pair.b), f.group, f.examples, f.wins,
          f.ties, f.losses, f.invalid, percent(f.win_rate),
          f.interval ? fmt::format("<br><small>{:.1f} … {:.1f}</small>", 100 * f.interval->low,
                                   100 * f.interval->high)
                     : "",
          f.p ? fmt::format("{:.2g}", *f.p) : "", percent(f.consistency), percent(f.first_share));
  return {"What other models prefer",
          "<p>Each pair of answers was judged in both orders; where the orders disagree, it is a "
          "tie. The win rate is of the first condition, a tie counting half; its interval is "
          "Wilson's over the examples, p the sign test's.</p>\n"
          "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th>judge</th><th>conditions"
          "</th><th>group</th><th class=\"n\">examples</th><th class=\"n\">wins / ties / losses"
          "</th><th class=\"n\">invalid</th><th class=\"n\">win rate</th><th class=\"n\">p</th>"
          "<th class=\"n\">orders agree</th><th class=\"n\">for the first shown</th></tr></thead>"
          "<tbody>\n" +
              rows + "</tbody></table></div>\n"};
}

// Terms and facts of clusters that the output must not know, marked.
std::string marked(const IsolationResult& run, const IsolationExample& example,
                   const PlannedOutput& output, const std::string& text) {
  const auto marks = foreign_marks(example, run.options, output.cluster, text);
  if (!marks) return html_escape(text);
  std::string html;
  size_t at = 0;
  for (const ForeignMarks::Place& place : marks->places) {
    if (place.begin < at) continue;
    html += html_escape(std::string_view(text).substr(at, place.begin - at));
    html += fmt::format(
        "<mark{}>{}</mark>", place.fact ? " class=\"fact\"" : "",
        html_escape(std::string_view(text).substr(place.begin, place.end - place.begin)));
    at = place.end;
  }
  return html + html_escape(std::string_view(text).substr(at));
}

// A few figures of an output in a line.
std::string figures_line(const Measures& measures) {
  std::string line;
  for (const char* name : {"contamination", "foreign_facts", "rougeL", "expected_nll"})
    if (const auto value = measures.find(name); value != measures.end())
      line += fmt::format("{}{} {:.2f}", line.empty() ? "" : ", ", name, value->second);
  return line;
}

std::string outputs_html(const IsolationResult& run, size_t index) {
  const IsolationExample& example = run.examples[index];
  const IsolationPlan& plan = run.plans[index];
  std::map<std::pair<size_t, size_t>, const Measures*> measures;  // by condition and output
  for (const MeasuredOutput& made : run.outputs)
    if (made.example == index) measures[{made.condition, made.output}] = &made.measures;
  std::string html;
  for (size_t o = 0; o < plan.conditions[0].outputs.size(); ++o) {
    const PlannedOutput& output = plan.conditions[0].outputs[o];
    html += fmt::format("<h3>{} · {}</h3>\n", html_escape(output.name),
                        html_escape(output.prompt.substr(kBlankLine.size())));
    html += "<div class=\"sides\">";
    if (!output.expected.empty())
      html +=
          fmt::format("<div><h3>expected</h3><pre>{}</pre></div>\n", html_escape(output.expected));
    for (size_t c = 0; c < plan.conditions.size(); ++c) {
      const Condition condition = plan.conditions[c].condition;
      const OutputRecord* made = run.folder.find(record_key(example.id, condition, output.name));
      if (made == nullptr) continue;
      html += fmt::format("<div><h3>{}</h3><pre>{}</pre><p class=\"figures\">{}</p></div>\n",
                          name_of(condition), marked(run, example, output, made->text),
                          figures_line(*measures.at({c, o})));
    }
    html += "</div>\n";
  }
  return html;
}

// What each condition cost: a row per run and condition.
ReportTable cost_table(std::span<const IsolationResult> runs) {
  ReportTable table{.columns = {{"run"},
                                {"model"},
                                {"condition"},
                                {"caches, tokens", true},
                                {"prefilled", true},
                                {"reused", true},
                                {"decoded", true},
                                {"K/V MiB", true},
                                {"seconds", true}}};
  for (const IsolationResult& run : runs) {
    std::map<std::string, ConditionCost> costs = run.folder.costs();
    for (const Condition condition : conditions_of(run)) {
      const std::string name(name_of(condition));
      const ConditionCost& cost = costs[name];
      table.rows.push_back({run.folder.path().filename().string(), described(run, "model"), name,
                            std::to_string(cost.cached), std::to_string(cost.prefilled),
                            std::to_string(cost.reused), std::to_string(cost.decoded),
                            fmt::format("{:.1f}", static_cast<double>(cost.bytes) / (1 << 20)),
                            fmt::format("{:.1f}", cost.seconds)});
    }
  }
  return table;
}

std::vector<Chart> charts(const IsolationResult& run) {
  std::vector<Chart> list;
  for (const auto& [group, measure, title] :
       {std::tuple{"outputs", "contamination", "Foreign terms per 100 words of the outputs"},
        std::tuple{"outputs", "leak_nats", "Leak into the outputs, nats"},
        std::tuple{"questions", "expected_nll", "NLL of the expected answers, nats per token"},
        std::tuple{"synthesis", "coverage", "Coverage of the clusters by the synthesis"}}) {
    Chart chart{.kind = Chart::Kind::kBars, .title = title};
    Chart::Series series{.name = measure};
    for (const Condition condition : conditions_of(run))
      if (const ConditionFigure* f = find(run.figures, group, measure, condition)) {
        series.points.emplace_back(static_cast<double>(chart.labels.size()), f->mean);
        chart.labels.emplace_back(name_of(condition));
      }
    const bool flat = std::ranges::all_of(series.points, [](auto& p) { return p.second == 0; });
    if (flat) continue;
    chart.series.push_back(std::move(series));
    list.push_back(std::move(chart));
  }
  return list;
}

// "16", "12 of 16 (unfinished)", "16, of which 2 without text"
std::string outputs_text(const IsolationResult& run) {
  std::string text = std::to_string(run.outputs.size());
  if (std::ssize(run.outputs) < run.planned)
    text += fmt::format(" of {} (unfinished)", run.planned);
  if (!run.empty.empty()) text += fmt::format(", of which {} without text", run.empty.size());
  return text;
}

}  // namespace

Report isolation_report(std::span<const IsolationResult> runs) {
  const IsolationResult& run = runs[0];
  const auto text = [&](const char* key) { return described(run, key); };
  const auto list = [&](const char* key) { return described_list(run, key); };
  Report report{.title = fmt::format("Isolation: {} on {}",
                                     run.plans.size() == 1
                                         ? run.plans[0].example
                                         : fmt::format("{} examples", run.plans.size()),
                                     text("model"))};
  const std::string similarity = text("similarity_model");
  report.facts = {{"model", text("model")},
                  {"adapters", list("adapters")},
                  {"similarity by", similarity == "null" ? "its hidden states" : similarity},
                  {"arithmetic, keys and values", text("compute") + ", " + text("kv_type")},
                  {"examples", std::to_string(run.plans.size())},
                  {"clusters", clusters_text(run)},
                  {"prompts", text("prompts")},
                  {"topics of prompted", text("topics")},
                  {"text of turns", list("text_fields")},
                  {"outputs", outputs_text(run)},
                  {"tokens of an output, at most", text("max_tokens")},
                  {"temperature, seed", text("temperature") + ", " + text("seed")},
                  {"chat format", text("chat")},
                  {"procedure", text("procedure")},
                  {"seconds", fmt::format("{:.1f}", run.folder.seconds())}};
  std::erase_if(report.facts, [](const auto& fact) { return fact.second.empty(); });
  report.style = assets::kIsolateCss;
  report.charts = charts(run);
  report.table = cost_table(runs);
  report.sections.push_back(differences_section(run));
  if (!run.judged.empty()) report.sections.push_back(judged_section(run));
  for (const std::string& group : output_groups())
    if (std::ranges::any_of(run.figures, [&](const auto& f) { return f.group == group; }))
      report.sections.push_back(figures_section(run, group));
  for (size_t i = 0; i < std::min(run.plans.size(), kMostExamples); ++i) {
    const IsolationExample& example = run.examples[i];
    report.sections.push_back(
        {example.title.empty() ? example.id : example.id + ": " + example.title,
         fmt::format("<details{}><summary>Which tokens live in which cache</summary>{}</details>\n"
                     "<details><summary>Messages</summary>{}</details>\n"
                     "<details><summary>Time line</summary>{}</details>\n"
                     "<details><summary>Outputs</summary>{}</details>\n",
                     i == 0 ? " open" : "", cache_map(example, run.plans[i], run.folder),
                     message_graph(example), time_line(example, run.plans[i], run.folder),
                     outputs_html(run, i))});
  }
  if (run.plans.size() > kMostExamples)
    report.notes.push_back(fmt::format("Of {} examples the first {} are shown one by one.",
                                       run.plans.size(), kMostExamples));
  for (const IsolationResult& shown : runs)
    for (const std::string& remark : remarks(shown)) report.notes.push_back(remark);
  report.notes.emplace_back(
      "Marked in outputs: terms, and in another colour numbers and names, of clusters that the "
      "output must not know. Definitions of all figures are in docs/isolation.md.");
  for (const ConditionFigure& figure : run.figures) report.records.push_back(to_json(figure));
  return report;
}

}  // namespace lapidary
