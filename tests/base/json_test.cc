#include "base/json.h"

#include <cstdint>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"

namespace lapidary {
namespace {

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Json, ErrorsNameFileAndField) {
  const Json json =
      parse_json(R"({"a": 1, "b": "x", "c": {"d": null}, "e": 64.0, "f": 1.5})", "f.json");
  const JsonObject object(json, "f.json");
  EXPECT_EQ(object.integer("a"), 1);
  EXPECT_EQ(object.integer("e"), 64);
  EXPECT_EQ(object.integer("zz", 7), 7);
  EXPECT_EQ(error_of([&] { object.integer("zz"); }), "f.json: field 'zz': missing");
  EXPECT_EQ(error_of([&] { object.integer("b"); }),
            "f.json: field 'b': expected an integer, found \"x\"");
  EXPECT_EQ(error_of([&] { object.integer("f"); }),
            "f.json: field 'f': expected an integer, found 1.5");
  EXPECT_EQ(error_of([&] { object.object("c").integer("d"); }), "f.json: c: field 'd': missing");
}

TEST(Json, RefusesNumbersThatDoNotFit) {
  EXPECT_EQ(error_of([] { parse_json("[1e400]", "f.json"); }),
            "f.json: JSON with a number that no double can hold");
  const Json json = parse_json(R"({"a": 9223372036854775807, "b": 9223372036854775808})", "f.json");
  const JsonObject object(json, "f.json");
  EXPECT_EQ(object.integer("a"), INT64_MAX);
  EXPECT_EQ(error_of([&] { object.integer("b"); }),
            "f.json: field 'b': expected an integer below 2^63, found 9223372036854775808");
}

TEST(Json, RefusesWhatIsNotJson) {
  EXPECT_EQ(error_of([] { parse_json("{\"a\": ", "f.json"); }),
            "f.json: not valid JSON (stopped at byte 7)");
  EXPECT_EQ(error_of([] { parse_json(std::string_view("{}\0{", 4), "f.json"); }),
            "f.json: not valid JSON (stopped at byte 3)");
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  EXPECT_EQ(error_of([&] { parse_json(deep, "f.json"); }),
            "f.json: JSON nested deeper than 64 levels");
}

}  // namespace
}  // namespace lapidary
