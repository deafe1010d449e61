#include "isolate/measures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <tuple>

#include "base/statistics.h"
#include "isolate/contamination.h"
#include "isolate/json_parts.h"
#include "isolate/overlap.h"
#include "isolate/statistics.h"
#include "isolate/words.h"

namespace lapidary {

namespace {

constexpr int64_t kResamples = 10000;

constexpr MeasureKind kKinds[] = {
    {"expected_nll", "NLL of the expected output, nats per token", -1, 3},
    {"leak_nats", "leak, nats", -1, 2},
    {"contamination", "foreign terms per 100 words", -1, 2},
    {"foreign_facts", "foreign facts per 100 words", -1, 2},
    {"coverage", "coverage of what is heard", 1, 3},
    {"bleu", "BLEU", 1, 2},
    {"chrf", "chrF", 1, 2},
    {"rouge1", "ROUGE-1", 1, 3},
    {"rouge2", "ROUGE-2", 1, 3},
    {"rougeL", "ROUGE-L", 1, 3},
    {"similarity", "similarity to the expected output", 1, 3},
    {"repetition", "repeated 4-grams", -1, 3},
    {"words", "words", 0, 1},
};

// What an output may know: its cluster and those whose outputs are sent to it.
std::set<size_t> visible_clusters(const IsolationExample& example, size_t cluster) {
  std::set<size_t> seen = {cluster};
  for (bool grown = true; grown;) {
    grown = false;
    for (const size_t i : std::set<size_t>(seen))
      for (const size_t from : example.clusters[i].hears) grown = seen.insert(from).second || grown;
  }
  return seen;
}

std::vector<std::string> turn_texts(const IsolationExample& example, size_t cluster,
                                    const PlanOptions& options) {
  std::vector<std::string> texts;
  for (const size_t turn : example.clusters[cluster].turns)
    if (const auto text = turn_text(example.turns[turn], options)) texts.push_back(*text);
  return texts;
}

void append(std::vector<std::string>& list, const std::vector<std::string>& more) {
  list.insert(list.end(), more.begin(), more.end());
}

void measure_foreign(const IsolationExample& example, const PlanOptions& options, size_t cluster,
                     std::string_view text, Measures& measures) {
  const auto marks = foreign_marks(example, options, cluster, text);
  if (!marks) return;
  const auto per_100_words = [&](int64_t count) {
    return marks->words > 0 ? 100 * static_cast<double>(count) / static_cast<double>(marks->words)
                            : 0;
  };
  measures["contamination"] = per_100_words(marks->terms);
  measures["foreign_facts"] = per_100_words(marks->facts);
}

// The mean over the clusters that are heard of the share of their terms and facts.
void measure_coverage(const IsolationExample& example, const PlanOptions& options, size_t cluster,
                      std::string_view text, Measures& measures) {
  double sum = 0;
  int64_t count = 0;
  for (const size_t from : example.clusters[cluster].hears) {
    const std::vector<std::string> texts = turn_texts(example, from, options);
    for (const Coverage& coverage : {term_coverage(text, example.clusters[from].terminology),
                                     fact_coverage(text, facts_of(texts))})
      if (const auto share = coverage.share()) sum += *share, ++count;
  }
  if (count > 0) measures["coverage"] = sum / static_cast<double>(count);
}

std::optional<std::pair<double, double>> interval_of(std::span<const double> values,
                                                     uint64_t seed) {
  if (values.size() < 2) return std::nullopt;
  const std::vector<double> means = bootstrap_means(values, kResamples, seed);
  const auto bca = bca_interval(values, means);
  const Interval interval = bca ? bca->interval : percentile_interval(means);
  return std::pair(interval.low, interval.high);
}

using OutputFigures = std::vector<std::pair<size_t, double>>;  // by output, ascending

// Of the means over the outputs that both have: a run that is not finished may have made more under
// one condition than under the other.
std::optional<double> paired_difference(const OutputFigures& a, const OutputFigures& b) {
  std::vector<double> of_a, of_b;
  for (const auto& [output, value] : a) {
    const auto other = std::ranges::find(b, output, &OutputFigures::value_type::first);
    if (other == b.end()) continue;
    of_a.push_back(value);
    of_b.push_back(other->second);
  }
  if (of_a.empty()) return std::nullopt;
  return mean(of_a) - mean(of_b);
}

ConditionDifference difference(const ConditionFigure& a, const ConditionFigure& b, uint64_t seed) {
  std::vector<double> differences;
  for (size_t i = 0; i < a.by_output.size(); ++i)
    if (const auto d = paired_difference(a.by_output[i], b.by_output[i])) differences.push_back(*d);
  ConditionDifference made{.group = a.group,
                           .measure = a.measure,
                           .a = a.condition,
                           .b = b.condition,
                           .pairs = std::ssize(differences)};
  if (differences.empty()) return made;
  made.mean = mean(differences);
  if (differences.size() < 2) return made;
  made.interval = interval_of(differences, seed);
  made.p_wilcoxon = wilcoxon_signed_rank(differences).p;
  made.p_sign_flip = sign_flip_test(differences, kResamples, seed).p;
  made.p_t = paired_t_test(differences).p;
  made.dz = cohens_dz(differences);
  made.gz = hedges_gz(differences);
  made.rank_biserial = rank_biserial(differences);
  made.pairs_needed = std::isfinite(*made.dz) ? pairs_needed(*made.dz) : std::nullopt;
  return made;
}

}  // namespace

std::span<const MeasureKind> measure_kinds() {
  return kKinds;
}

std::span<const std::string> output_groups() {
  static const std::string kGroups[] = {"outputs", "synthesis", "questions"};
  return kGroups;
}

std::string_view group_of(const IsolationExample& example, const PlannedOutput& output) {
  if (output.question) return "questions";
  return example.clusters[output.cluster].synthesis() ? "synthesis" : "outputs";
}

std::optional<ForeignMarks> foreign_marks(const IsolationExample& example,
                                          const PlanOptions& options, size_t cluster,
                                          std::string_view text) {
  const std::set<size_t> seen = visible_clusters(example, cluster);
  if (seen.size() == example.clusters.size()) return std::nullopt;
  std::vector<std::string> own, foreign, visible, others;
  for (size_t i = 0; i < example.clusters.size(); ++i) {
    const bool mine = seen.contains(i);
    append(mine ? own : foreign, example.clusters[i].terminology);
    append(mine ? visible : others, turn_texts(example, i, options));
  }
  for (const IsolationQuestion& question : example.clusters[cluster].questions)
    visible.push_back(question.prompt);
  // An ideal answer is not contaminated, also where a sum in it stands in another cluster's text.
  for (const size_t i : seen) {
    visible.push_back(example.clusters[i].expected_output);
    for (const IsolationQuestion& question : example.clusters[i].questions)
      visible.push_back(question.expected_output);
  }
  const Contamination terms = contamination(text, own, foreign);
  const std::vector<Fact> facts = find_facts(text, foreign_facts(others, visible));
  ForeignMarks marks{
      .terms = std::ssize(terms.places), .facts = std::ssize(facts), .words = terms.words};
  for (const TermPlace& place : terms.places)
    marks.places.push_back({place.begin, place.end, false});
  for (const Fact& fact : facts) marks.places.push_back({fact.begin, fact.end, true});
  std::ranges::sort(marks.places, {}, &ForeignMarks::Place::begin);
  return marks;
}

Measures measure_text(const IsolationExample& example, const PlanOptions& options,
                      const PlannedOutput& output, std::string_view text) {
  Measures measures;
  if (!output.expected.empty()) {
    const Rouge overlap = rouge(text, output.expected);
    measures["bleu"] = sentence_bleu(text, output.expected).score;
    measures["chrf"] = chrf(text, output.expected);
    measures["rouge1"] = overlap.one.f1;
    measures["rouge2"] = overlap.two.f1;
    measures["rougeL"] = overlap.l.f1;
  }
  measure_foreign(example, options, output.cluster, text, measures);
  if (!output.question) measure_coverage(example, options, output.cluster, text, measures);
  const Repetition repeated = repetition(text);
  measures["repetition"] = repeated.repeated_4grams;
  measures["words"] = static_cast<double>(repeated.words);
  return measures;
}

std::vector<MeasuredOutput> measure_outputs(std::span<const IsolationExample> examples,
                                            std::span<const IsolationPlan> plans,
                                            const PlanOptions& options,
                                            const IsolationFolder& folder) {
  std::vector<MeasuredOutput> list;
  for (size_t e = 0; e < plans.size(); ++e)
    for (size_t c = 0; c < plans[e].conditions.size(); ++c)
      for (size_t o = 0; o < plans[e].conditions[c].outputs.size(); ++o) {
        const PlannedCondition& condition = plans[e].conditions[c];
        const PlannedOutput& output = condition.outputs[o];
        const RecordKey key = record_key(examples[e].id, condition.condition, output.name);
        const OutputRecord* record = folder.find(key);
        if (record == nullptr) continue;
        MeasuredOutput made{e, c, o, measure_text(examples[e], options, output, record->text)};
        if (const auto stored = folder.measures().find(key); stored != folder.measures().end())
          for (const auto& [name, value] : stored->second.measures) made.measures[name] = value;
        list.push_back(std::move(made));
      }
  return list;
}

std::vector<ConditionFigure> condition_figures(std::span<const IsolationExample> examples,
                                               std::span<const IsolationPlan> plans,
                                               std::span<const MeasuredOutput> outputs,
                                               uint64_t seed) {
  // By group, measure, condition and example.
  std::map<std::tuple<std::string, std::string, Condition>, std::map<size_t, OutputFigures>> values;
  for (const MeasuredOutput& made : outputs) {
    const PlannedCondition& condition = plans[made.example].conditions[made.condition];
    const std::string group(group_of(examples[made.example], condition.outputs[made.output]));
    for (const auto& [name, value] : made.measures)
      values[{group, name, condition.condition}][made.example].emplace_back(made.output, value);
  }
  std::vector<ConditionFigure> figures;
  for (const auto& [key, by_example] : values) {
    ConditionFigure figure{.group = std::get<0>(key),
                           .measure = std::get<1>(key),
                           .condition = std::get<2>(key),
                           .by_example = {}};
    figure.by_example.resize(plans.size());
    figure.by_output.resize(plans.size());
    std::vector<double> means;
    for (const auto& [example, list] : by_example) {
      std::vector<double> of_outputs;
      for (const auto& [output, value] : list) of_outputs.push_back(value);
      means.push_back(mean(of_outputs));
      figure.by_example[example] = means.back();
      figure.by_output[example] = list;
    }
    figure.examples = std::ssize(means);
    figure.mean = mean(means);
    figure.interval = interval_of(means, seed);
    figures.push_back(std::move(figure));
  }
  return figures;
}

std::vector<ConditionDifference> condition_differences(std::span<const ConditionFigure> figures,
                                                       uint64_t seed) {
  std::vector<ConditionDifference> list;
  for (const ConditionFigure& a : figures)
    for (const ConditionFigure& b : figures)
      if (a.condition == Condition::kSemantic && b.condition != a.condition && a.group == b.group &&
          a.measure == b.measure)
        list.push_back(difference(a, b, seed));
  std::vector<double> p;
  for (const ConditionDifference& d : list)
    if (d.p_wilcoxon) p.push_back(*d.p_wilcoxon);
  const std::vector<double> adjusted = holm_adjusted(p);
  size_t next = 0;
  for (ConditionDifference& d : list)
    if (d.p_wilcoxon) d.p_holm = adjusted[next++];
  return list;
}

OrderedJson to_json(const ConditionFigure& f) {
  return {{"group", f.group},       {"measure", f.measure}, {"condition", name_of(f.condition)},
          {"examples", f.examples}, {"mean", f.mean},       {"ci95", json_of(f.interval)}};
}

OrderedJson to_json(const ConditionDifference& d) {
  return {{"group", d.group},
          {"measure", d.measure},
          {"a", name_of(d.a)},
          {"b", name_of(d.b)},
          {"pairs", d.pairs},
          {"mean_difference", d.mean},
          {"ci95", json_of(d.interval)},
          {"p_wilcoxon", json_of(d.p_wilcoxon)},
          {"p_sign_flip", json_of(d.p_sign_flip)},
          {"p_t", json_of(d.p_t)},
          {"p_holm", json_of(d.p_holm)},
          {"cohens_dz", json_of(d.dz)},
          {"hedges_gz", json_of(d.gz)},
          {"rank_biserial", json_of(d.rank_biserial)},
          {"pairs_needed", json_of(d.pairs_needed)}};
}

}  // namespace lapidary
