// How often a request is made again that brought nothing, and how long after.
#pragma once

#include <functional>

#include "io/hub_http.h"

namespace lapidary {

// Counts the attempts in a row that brought nothing, and waits between them as `access` says, or as
// long as the server asks.
class Patience {
 public:
  // Both must outlive this.
  Patience(const HubAccess& access, const std::function<bool()>& stopped)
      : access_(access), stopped_(stopped) {}

  void something_came() { attempts_ = 0; }
  // Returns when it is time for another attempt; false, at once, when there is none. `what` is
  // being asked for, for the log. Throws Error{kInterrupted}.
  bool again(const HttpAnswer& answer, const std::string& what);

 private:
  const HubAccess& access_;
  const std::function<bool()>& stopped_;
  int attempts_ = 0;
};

}  // namespace lapidary
