// Porter's stemmer (Program 14.3, 1980) with the extensions that NLTK makes by default.
#pragma once

#include <string>

namespace lapidary {

// `word` in small letters and digits. "relational" gives "relat".
std::string porter_stem(std::string word);

}  // namespace lapidary
