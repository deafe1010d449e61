#include "study/token_text.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "report/html.h"
#include "study/assets.h"

namespace lapidary {

std::string text_of(const Engine& engine, Token id) {
  if (!engine.has_tokenizer()) return fmt::format("<{}> ", id);
  const Token one[] = {id};
  return engine.tokenizer().decode(one, true);
}

std::string tinted_text(const std::vector<TintedToken>& tokens) {
  double most = 0;
  for (const TintedToken& token : tokens) most = std::max(most, token.strength);
  std::string html =
      "<p class=\"tokens\" tabindex=\"0\" role=\"group\" aria-label=\"Tokens; arrow keys move\">";
  for (const TintedToken& token : tokens)
    html += fmt::format("<span{} style=\"--heat:{:.0f}%\" title=\"{}\">{}</span>",
                        token.worse ? " class=\"worse\"" : "",
                        most > 0 ? 60 * std::sqrt(token.strength / most) : 0,
                        html_escape(token.says), html_escape(token.text));
  return html + fmt::format("</p>\n<output aria-live=\"polite\"></output>\n<script>{}</script>\n",
                            assets::kTokenTextJs);
}

}  // namespace lapidary
