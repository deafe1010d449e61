#include "isolate/drawings.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "report/html.h"

namespace lapidary {

namespace {

constexpr size_t kColours = 7;

std::string colour(size_t cluster) {
  return fmt::format("k{}", cluster % kColours);
}

std::string cluster_title(const IsolationCluster& cluster) {
  return cluster.focus_area.empty() ? cluster.name : cluster.name + ": " + cluster.focus_area;
}

// Share of `most`, in percent with a digit.
std::string percent(double part, double most) {
  return fmt::format("{:.2f}%", most > 0 ? 100 * part / most : 0);
}

// Bytes of a piece before its turn's own text: what the prompted condition tells the model first.
size_t told_bytes(const IsolationTurn& turn, std::string_view text) {
  size_t own = 0;
  for (const auto& [field, said] : turn.texts)
    if (text.ends_with(said)) own = std::max(own, said.size());
  return own == 0 ? 0 : text.size() - own;
}

// A piece of a bar per turn, as wide as its share of the text; all together are `whole` of the bar.
std::string pieces_html(const IsolationExample& example, Condition condition,
                        const PlannedCache& cache, double heard_share, double whole = 1) {
  double bytes = 0;
  for (const ContextPiece& piece : cache.pieces) bytes += static_cast<double>(piece.text.size());
  std::string html;
  const auto add = [&](const std::string& classes, double share, const std::string& title) {
    html += fmt::format("<span class=\"{}\" style=\"width:{}\" title=\"{}\"></span>", classes,
                        percent(whole * share, 1), html_escape(title));
  };
  for (const size_t i : cache.messages)
    add("heard " + colour(i), heard_share / static_cast<double>(cache.messages.size()),
        "output of " + example.clusters[i].name);
  const auto share = [&](size_t part) {
    return bytes > 0 ? (1 - heard_share) * static_cast<double>(part) / bytes : 0;
  };
  for (const ContextPiece& piece : cache.pieces) {
    const IsolationTurn& turn = example.turns[piece.turn];
    size_t told = 0;
    if (condition == Condition::kPrompted && &piece == &cache.pieces.front())
      told = told_bytes(turn, piece.text);
    if (told > 0) add("told", share(told), "instruction to keep the topics apart");
    add(colour(turn.cluster), share(piece.text.size() - told),
        fmt::format("turn {}, {}", turn.id, example.clusters[turn.cluster].name));
  }
  return html;
}

// What is heard is the rest of the tokens, of which the turns' share is known by their text.
double heard_share(const IsolationPlan& plan, const PlannedCondition& condition,
                   const PlannedCache& cache, const IsolationFolder& folder) {
  size_t own = 0, heard = 0;
  for (const ContextPiece& piece : cache.pieces) own += piece.text.size();
  for (const size_t i : cache.messages)
    if (const OutputRecord* output =
            folder.find(record_key(plan.example, condition.condition, condition.outputs[i].name)))
      heard += output->text.size();
  return heard == 0 ? 0 : static_cast<double>(heard) / static_cast<double>(own + heard);
}

std::string bar_html(const std::string& name, int64_t tokens, double most,
                     const std::string& pieces) {
  return fmt::format("<div>{}</div><div class=\"bar\" style=\"width:{}\">{}</div><div>{}</div>\n",
                     html_escape(name), percent(static_cast<double>(tokens), most), pieces, tokens);
}

// One cache: the turns of those who hear nobody as they come in the conversation, then the others.
std::string shared_bar(const IsolationExample& example, const IsolationPlan& plan,
                       const PlannedCondition& condition, const IsolationFolder& folder,
                       double most) {
  const auto tokens = [&](const PlannedCache& cache) -> int64_t {
    const auto found =
        folder.contexts().find(record_key(plan.example, condition.condition, cache.name));
    return found == folder.contexts().end() ? 0 : found->second.tokens;
  };
  PlannedCache first{.name = "one cache"};
  int64_t together = 0, all = 0;
  for (const PlannedCache& cache : condition.caches) {
    all += tokens(cache);
    if (!cache.messages.empty() || tokens(cache) == 0) continue;
    together += tokens(cache);
    first.pieces.insert(first.pieces.end(), cache.pieces.begin(), cache.pieces.end());
  }
  if (all == 0) return "";
  std::ranges::stable_sort(first.pieces, {}, &ContextPiece::turn);
  const auto part = [&](int64_t n) { return static_cast<double>(n) / static_cast<double>(all); };
  std::string pieces = pieces_html(example, condition.condition, first, 0, part(together));
  for (const PlannedCache& cache : condition.caches)
    if (!cache.messages.empty() && tokens(cache) > 0)
      pieces += pieces_html(example, condition.condition, cache,
                            heard_share(plan, condition, cache, folder), part(tokens(cache)));
  return bar_html(first.name, all, most, pieces);
}

}  // namespace

std::string legend(const IsolationExample& example) {
  std::string html = "<div class=\"legend\">";
  for (size_t i = 0; i < example.clusters.size(); ++i)
    html += fmt::format("<span class=\"{}\">{}</span>", colour(i),
                        html_escape(cluster_title(example.clusters[i])));
  return html + "</div>\n";
}

std::string cache_map(const IsolationExample& example, const IsolationPlan& plan,
                      const IsolationFolder& folder) {
  double most = 1;
  std::map<std::string, int64_t> tokens;  // by condition
  for (const auto& [key, context] : folder.contexts())
    if (context.example == example.id) {
      tokens[context.condition] += context.tokens;
      most = std::max(most, static_cast<double>(context.condition == name_of(Condition::kMask)
                                                    ? tokens[context.condition]
                                                    : context.tokens));
    }
  std::string html = legend(example) + "<div class=\"map\">";
  for (const PlannedCondition& condition : plan.conditions) {
    html += fmt::format("<div class=\"head\">{}</div>\n", name_of(condition.condition));
    if (condition.condition == Condition::kMask) {
      html += shared_bar(example, plan, condition, folder, most);
      continue;
    }
    for (const PlannedCache& cache : condition.caches) {
      const auto found =
          folder.contexts().find(record_key(example.id, condition.condition, cache.name));
      if (found == folder.contexts().end()) continue;
      html += bar_html(cache.name, found->second.tokens, most,
                       pieces_html(example, condition.condition, cache,
                                   heard_share(plan, condition, cache, folder)));
    }
  }
  return html + "</div>\n";
}

std::string message_graph(const IsolationExample& example) {
  // Columns: how many messages lie between a cluster and those who hear nobody.
  std::vector<size_t> column(example.clusters.size());
  for (const size_t i : example.cluster_order())
    for (const size_t from : example.clusters[i].hears)
      column[i] = std::max(column[i], column[from] + 1);
  std::map<size_t, size_t> filled;
  std::vector<std::pair<size_t, size_t>> place(example.clusters.size());
  size_t columns = 0, rows = 0;
  for (size_t i = 0; i < place.size(); ++i) {
    place[i] = {column[i], filled[column[i]]++};
    columns = std::max(columns, column[i] + 1);
    rows = std::max(rows, place[i].second + 1);
  }
  constexpr size_t kWidth = 130, kHeight = 36, kStepX = 200, kStepY = 54;
  std::string html = fmt::format(
      "<svg class=\"graph\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"messages between "
      "clusters\"><defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" "
      "markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker>"
      "</defs>",
      (columns - 1) * kStepX + kWidth + 2, (rows - 1) * kStepY + kHeight + 2);
  const auto x = [&](size_t i) { return place[i].first * kStepX + 1; };
  const auto y = [&](size_t i) { return place[i].second * kStepY + 1; };
  for (size_t to = 0; to < place.size(); ++to)
    for (const size_t from : example.clusters[to].hears)
      html += fmt::format("<path d=\"M{} {}L{} {}\"/>", x(from) + kWidth, y(from) + kHeight / 2,
                          x(to), y(to) + kHeight / 2);
  for (size_t i = 0; i < place.size(); ++i)
    html += fmt::format(
        "<g class=\"{}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\"/>"
        "<text x=\"{}\" y=\"{}\">{}</text></g>",
        colour(i), x(i), y(i), kWidth, kHeight, x(i) + kWidth / 2, y(i) + kHeight / 2,
        html_escape(example.clusters[i].name));
  return html + "</svg>\n";
}

std::string time_line(const IsolationExample& example, const IsolationPlan& plan,
                      const IsolationFolder& folder) {
  double first = folder.seconds(), last = 0;
  for (const auto& [key, context] : folder.contexts())
    if (context.example == example.id) first = std::min(first, context.begin);
  for (const auto& [key, output] : folder.outputs())
    if (output.example == example.id) last = std::max(last, output.end);
  const auto span = [&](const std::string& classes, double begin, double end,
                        const std::string& title) {
    return fmt::format("<span class=\"{}\" style=\"left:{};width:{}\" title=\"{}\"></span>",
                       classes, percent(begin - first, last - first),
                       percent(end - begin, last - first), html_escape(title));
  };
  std::string html = legend(example) + "<div class=\"map\">";
  for (const PlannedCondition& condition : plan.conditions) {
    const auto key = [&](const std::string& name) {
      return record_key(example.id, condition.condition, name);
    };
    html += fmt::format("<div class=\"head\">{}</div>\n", name_of(condition.condition));
    for (const PlannedOutput& output : condition.outputs) {
      const OutputRecord* made = folder.find(key(output.name));
      if (made == nullptr) continue;
      const auto context = folder.contexts().find(key(made->context));
      std::string spans;
      if (context != folder.contexts().end())
        spans = span("read " + colour(output.cluster), context->second.begin, context->second.end,
                     fmt::format("reading {}", made->context));
      spans += span(colour(output.cluster), made->begin, made->end,
                    fmt::format("{}: {} tokens", output.name, made->tokens.size()));
      html += fmt::format("<div>{}</div><div class=\"line\">{}</div><div>{:.1f} s</div>\n",
                          html_escape(output.name), spans, made->end - made->begin);
    }
  }
  return html + "</div>\n";
}

}  // namespace lapidary
