#include "train/record.h"

#include <string>

#include <gtest/gtest.h>

#include "base/json.h"
#include "io/test_files.h"
#include "train/document.h"

namespace lapidary {
namespace {

std::string refused(const std::string& line) {
  return error_of([&] { parse_record(line, "t.jsonl:3"); });
}

TEST(Record, OfEachKind) {
  EXPECT_EQ(std::get<TextRecord>(parse_record(R"({"text": "a b", "id": 7})", "")).text, "a b");
  const auto completion =
      std::get<CompletionRecord>(parse_record(R"({"completion": "b", "prompt": "a"})", ""));
  EXPECT_EQ(completion.prompt, "a");
  EXPECT_EQ(completion.completion, "b");
  const auto chat = std::get<ChatRecord>(parse_record(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "x", "content": "b"}], "text": null})",
      ""));
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[1].role, "x");
  EXPECT_EQ(chat.messages[1].content, "b");
}

TEST(Record, SaysWhereAndWhatIsWrong) {
  EXPECT_EQ(refused(R"({"text": "a)"), "t.jsonl:3: not valid JSON (stopped at byte 12)");
  EXPECT_EQ(refused(R"({"text": "a"} x)"), "t.jsonl:3: not valid JSON (stopped at byte 15)");
  EXPECT_EQ(refused("{\"text\": \"a\xff\"}"), "t.jsonl:3: not valid UTF-8 (stopped at byte 12)");
  EXPECT_EQ(refused(R"({"text": "\ud800"})"), "t.jsonl:3: not valid JSON (stopped at byte 17)");
  EXPECT_EQ(refused("[1]"), "t.jsonl:3: expected a JSON object, found [1]");
  EXPECT_EQ(refused(R"({"txt": "a"})"),
            "t.jsonl:3: none of the fields text, prompt and completion, messages");
  EXPECT_EQ(refused(R"({"text": "a", "messages": []})"),
            "t.jsonl:3: expected one of the fields text, prompt and completion, messages; found "
            "text messages");
  EXPECT_EQ(refused(R"({"text": 5})"), "t.jsonl:3: field 'text': expected a string, found 5");
  EXPECT_EQ(refused(R"({"text": ""})"), "t.jsonl:3: field 'text': is empty");
  EXPECT_EQ(refused(R"({"text": " \n"})"), "t.jsonl:3: field 'text': is empty");
  EXPECT_EQ(refused(R"({"prompt": "a"})"), "t.jsonl:3: field 'completion': missing");
  EXPECT_EQ(refused(R"({"completion": "a"})"), "t.jsonl:3: field 'prompt': missing");
  EXPECT_EQ(refused(R"({"prompt": "a", "completion": ""})"),
            "t.jsonl:3: field 'completion': is empty");
  EXPECT_EQ(refused(R"({"messages": "a"})"),
            "t.jsonl:3: field 'messages': expected a list, found \"a\"");
  EXPECT_EQ(refused(R"({"messages": []})"), "t.jsonl:3: field 'messages': is empty");
  EXPECT_EQ(refused(R"({"messages": [3]})"),
            "t.jsonl:3: message 1: expected a JSON object, found 3");
  EXPECT_EQ(refused(R"({"messages": [{"role": "user"}]})"),
            "t.jsonl:3: message 1: field 'content': missing");
  EXPECT_EQ(refused(R"({"messages": [{"role": "user", "content": "  "}]})"),
            "t.jsonl:3: message 1: field 'content': is empty");
  EXPECT_EQ(refused(R"({"text": "a", "tools": [{}]})"),
            "t.jsonl:3: field 'tools': Gemma's chat format has none");
}

class Documents : public ::testing::Test {
 protected:
  // The text of the tokens, those that count within [].
  std::string made(const std::string& line, const DocumentOptions& options = {}) {
    const Document document = make_document(parse_record(line, "t:1"), tokenizer, options, "t:1");
    EXPECT_EQ(document.tokens.size(), document.counted.size());
    EXPECT_EQ(document.tokens.front(), tokenizer.bos());
    std::string out;
    for (size_t i = 0; i < document.tokens.size(); ++i) {
      const std::string piece = tokenizer.decode({&document.tokens[i], 1}, true);
      const bool opens = document.counted[i] != 0 && (i == 0 || document.counted[i - 1] == 0);
      const bool closes = document.counted[i] == 0 && i > 0 && document.counted[i - 1] != 0;
      out += (opens ? "[" : closes ? "]" : "") + piece;
    }
    return out + (document.counted.back() != 0 ? "]" : "");
  }
  const Tokenizer tokenizer = Tokenizer::load(LAPIDARY_SOURCE_DIR "/models/tiny");
};

TEST_F(Documents, TextCountsWhollyAndHasOneBosAndEos) {
  EXPECT_EQ(made(R"({"text": "To be"})"), "<bos>[To be<eos>]");
  EXPECT_EQ(made(R"({"text": "<bos>To be<eos>"})"), "<bos>[To be<eos>]");
  EXPECT_EQ(made(R"({"text": "<start_of_turn>user\nhi<end_of_turn>"})"),
            "<bos>[<start_of_turn>user\nhi<end_of_turn><eos>]");
}

TEST_F(Documents, CompletionIsAChatUnlessItIsToBePlain) {
  const std::string line = R"({"prompt": "To be", "completion": " or not"})";
  EXPECT_EQ(made(line),
            "<bos><start_of_turn>user\nTo be<end_of_turn>\n"
            "<start_of_turn>model\n[or not<end_of_turn>]\n");
  EXPECT_EQ(made(line, {.chat_completion = false}), "<bos>To be[ or not<eos>]");
  EXPECT_EQ(made(line, {.prompt_loss = true, .chat_completion = false}),
            "<bos>[To be or not<eos>]");
}

TEST_F(Documents, ChatCountsWhatTheModelSays) {
  const std::string line =
      R"({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},)"
      R"( {"role": "assistant", "content": "Ho"}]})";
  EXPECT_EQ(made(line),
            "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n"
            "<start_of_turn>model\n[Ho<end_of_turn>]\n");
  EXPECT_EQ(made(line, {.prompt_loss = true}),
            "<bos>[<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n"
            "<start_of_turn>model\nHo<end_of_turn>\n]");
}

TEST_F(Documents, ChatHasTheIdsOfTheReferencesTemplate) {
  int seen = 0;
  for (const Json& golden : read_json_file(LAPIDARY_SOURCE_DIR "/tests/golden/chat.json")) {
    if (golden["messages"].back()["role"] != "assistant" || golden.contains("error")) continue;
    const std::string line = Json{{"messages", golden["messages"]}}.dump();
    const Document document = make_document(parse_record(line, "g"), tokenizer, {}, "g");
    EXPECT_EQ(document.tokens, golden["ids"].get<std::vector<Token>>());
    ++seen;
  }
  EXPECT_GT(seen, 0);
}

TEST_F(Documents, RolesThatDoNotAlternate) {
  const auto error = [&](const std::string& roles) {
    Json messages = Json::array();
    for (const char role : roles)
      messages.push_back({{"role", role == 'u'   ? "user"
                                   : role == 'm' ? "model"
                                                 : "tool"},
                          {"content", "x"}});
    const Record record = parse_record(Json{{"messages", messages}}.dump(), "t:1");
    return error_of([&] { make_document(record, tokenizer, {}, "t:1"); });
  };
  EXPECT_EQ(error("uu"), "t:1: message 2: role 'user' where it is the model's turn");
  EXPECT_EQ(error("m"), "t:1: message 1: role 'model' where it is the user's turn");
  EXPECT_EQ(error("umu"), "t:1: message 3: the last message must be the model's");
  EXPECT_EQ(error("t"),
            "t:1: message 1: unknown role 'tool', expected system, user, assistant or model");
}

}  // namespace
}  // namespace lapidary
