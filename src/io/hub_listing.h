// What the hub answers when asked for a model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/hub.h"

namespace lapidary {

struct HubFile {
  std::string name;   // is_repo_file()
  std::string blob;   // is_blob_name(), or empty when the hub did not say
  int64_t size = -1;  // bytes; -1 when the hub did not say
};

struct HubListing {
  std::string commit;  // is_commit()
  std::vector<HubFile> files;
};

// Reads the JSON of /api/models/NAME/revision/REVISION?blobs=true. `where` names it in messages.
// Throws Error{kInput}, also for a name that would leave the model's folder.
HubListing parse_hub_listing(std::string_view json, const std::string& where);

// The files that are wanted.
std::vector<HubFile> select_files(const std::vector<HubFile>& files,
                                  const FileSelection& selection);

}  // namespace lapidary
