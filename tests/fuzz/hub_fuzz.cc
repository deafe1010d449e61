// Any text as the hub's list of a model's files: it is refused, or every name in it stays within
// the model's folder, and every hash is fit to name a file.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "lapidary/error.h"

#include "io/hub_listing.h"

namespace {

// Written without the functions of src/io that decide it.
bool stays_inside(const std::string& name) {
  if (name.find('\0') != std::string::npos) return false;
  const std::filesystem::path root = "/cache/snapshots/commit";
  const std::string path = (root / name).lexically_normal().string();
  return path.starts_with(root.string() + "/") &&
         path.size() == root.string().size() + 1 + name.size();
}

bool is_hex(const std::string& text) {
  return text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const lapidary::HubListing listing =
        lapidary::parse_hub_listing({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (listing.commit.size() != 40 || !is_hex(listing.commit)) std::abort();
    for (const lapidary::HubFile& file : listing.files) {
      if (!stays_inside(file.name) || file.size < -1) std::abort();
      if (!file.blob.empty() && (!is_hex(file.blob) || file.blob.size() < 40)) std::abort();
    }
    lapidary::select_files(listing.files, {{"*[a-", "?/*"}, {"**/"}});
  } catch (const lapidary::Error& e) {
    if (std::string(e.what()).find('\n') != std::string::npos) std::abort();
  }
  return 0;
}
