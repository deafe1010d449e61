// What may become part of a path in the hub's cache. Names come from the hub, from files and from
// people: each is checked here before it is used.
#pragma once

#include <string_view>

namespace lapidary {

// "name" or "organisation/name", as the hub allows them.
bool is_repo_name(std::string_view text);
// A branch, tag or commit; "refs/pr/7" is one.
bool is_revision(std::string_view text);
// A file's name within a repository: relative, with no way out of its folder.
bool is_repo_file(std::string_view text);
// 40 lowercase hexadecimal digits.
bool is_commit(std::string_view text);
// The hash that names a blob: 40 digits for a git object, 64 for a large file.
bool is_blob_name(std::string_view text);

}  // namespace lapidary
