// What the hub's refusals mean, and what can be done about them.
#pragma once

#include <string>

#include "io/hub_http.h"

namespace lapidary {

// Worth another attempt: the server is busy or broken, or the transfer broke off.
bool is_transient(const HttpAnswer& answer);

// Throws the Error that an answer amounts to, which is not the one that was asked for. `what` is
// the file, or empty when the model itself was asked for.
[[noreturn]] void fail_answer(const HttpAnswer& answer, const HubAccess& access,
                              const HubName& name, const std::string& what);

}  // namespace lapidary
