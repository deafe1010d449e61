// The store of contents that the models of a cache share (huggingface_hub from 2.0 on).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>

namespace lapidary {

// The content that a model's blob is a link to; nothing if it is a file of its own.
std::optional<std::filesystem::path> shared_content(const std::filesystem::path& cache,
                                                    const std::filesystem::path& blob);
// The blobs that still link to it, as its manifest lists them; nothing if there is no manifest:
// then nobody knows, and the content has to stay.
std::optional<std::set<std::filesystem::path>> shared_users(const std::filesystem::path& cache,
                                                            const std::filesystem::path& content);
// Removes content that nobody uses any more. Returns the bytes that were freed.
int64_t sweep_shared(const std::filesystem::path& cache, const std::filesystem::path& content);

}  // namespace lapidary
