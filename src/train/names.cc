// What the options of training are called.
#include "lapidary/train.h"

#include "base/fail.h"
#include "train/data.h"

namespace lapidary {

TrainMethod train_method(std::string_view name) {
  if (name == "full") return TrainMethod::kFull;
  if (name == "lora") return TrainMethod::kLora;
  if (name == "relora") return TrainMethod::kRelora;
  if (name == "rank1") return TrainMethod::kRank1;
  fail_usage("'{}' is not a method of training: full, lora, relora or rank1", name);
}

std::string_view name_of(TrainMethod method) {
  switch (method) {
    case TrainMethod::kFull:
      return "full";
    case TrainMethod::kLora:
      return "lora";
    case TrainMethod::kRelora:
      return "relora";
    case TrainMethod::kRank1:
      return "rank1";
  }
  return "";
}

TrainObjective train_objective(std::string_view name) {
  if (name == "next") return TrainObjective::kNextToken;
  if (name == "sbd") return TrainObjective::kSetBlock;
  fail_usage("--objective: '{}' is none of next, sbd", name);
}

std::string_view name_of(TrainObjective objective) {
  switch (objective) {
    case TrainObjective::kNextToken:
      return "next";
    case TrainObjective::kSetBlock:
      return "sbd";
  }
  return "";
}

Directions train_directions(std::string_view name) {
  if (name == "random") return Directions::kRandom;
  if (name == "aligned") return Directions::kAligned;
  if (name == "top") return Directions::kTop;
  fail_usage("--directions: '{}' is none of random, aligned, top", name);
}

std::string_view name_of(Directions directions) {
  switch (directions) {
    case Directions::kRandom:
      return "random";
    case Directions::kAligned:
      return "aligned";
    case Directions::kTop:
      return "top";
  }
  return "";
}

LongDocuments long_documents(std::string_view name) {
  if (name == "refuse") return LongDocuments::kRefuse;
  if (name == "truncate") return LongDocuments::kTruncate;
  if (name == "split") return LongDocuments::kSplit;
  fail_usage("--long-documents: '{}' is none of refuse, truncate, split", name);
}

}  // namespace lapidary
