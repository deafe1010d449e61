#include "bench/build_info.h"

namespace lapidary {

std::string_view build_commit() {
  return LAPIDARY_COMMIT;
}
int64_t build_number() {
  return LAPIDARY_COMMIT_NUMBER;
}

}  // namespace lapidary
