// room: base
// How lapidary reports what went wrong.
//
// Three channels, never mixed:
//   * a fault of the caller's input or surroundings (file, flag, memory, disk) throws Error, whose
//     text is one line that names the file and field, what was found and what was expected;
//   * a fault of the program itself fails LAPIDARY_CHECK, which prints both sides and aborts; no
//     input may reach one;
//   * nothing in the library prints or exits: what is worth saying goes to the log sink (log.h).
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace lapidary {

enum class ErrorKind {
  kUsage,        // a flag or an argument that cannot be; the program exits with 2
  kInput,        // a file, model or text that cannot be used; exits with 1
  kResource,     // not enough memory or disk, an operation of the system that failed; exits with 1
  kInterrupted,  // stopped by the user; exits with 130
};

class Error : public std::runtime_error {
 public:
  // `message` is one line without a final full stop; `hint`, if any, says what to do about it.
  Error(ErrorKind kind, const std::string& message, std::string hint = "");

  ErrorKind kind() const { return kind_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorKind kind_;
  std::string hint_;
};

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);
}  // namespace detail

}  // namespace lapidary

// Aborts with file, line and message when `condition` is false. For programming errors only.
#define LAPIDARY_CHECK(condition, message)                                         \
  do {                                                                             \
    if (!(condition)) [[unlikely]]                                                 \
      ::lapidary::detail::check_failed(__FILE__, __LINE__, #condition, (message)); \
  } while (false)
