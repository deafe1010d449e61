#include "experiment_list.h"

#include <algorithm>
#include <utility>

namespace lapidary::cli {

namespace {

constexpr std::string_view kLook = "Look inside", kTrain = "Train", kDecode = "Run fast",
                           kIsolate = "Isolate contexts";

constexpr Experiment kExperiments[] = {
    {"architecture", kLook, "What is the model made of, and what does a token cost?", "1 s; 1 s",
     "study architecture -m $MODEL -o $OUT", "report.html"},
    {"memory", kLook, "What does running it take of memory, and do the forecasts hold?",
     "1 s; 10 s", "study memory -m $MODEL -o $OUT", "report.html"},
    {"memory-training", kLook, "What does a training step take, phase by phase?", "5 s; 1 min",
     "study memory -m $MODEL -p 64 -n 16 --train $TEXT --sequence-length 256 -o $OUT",
     "report.html"},
    {"layers", kLook, "What does each layer do to a text?", "2 s; 15 s",
     "study layers -m $MODEL -f $EXCERPT -o $OUT", "report.html"},
    {"removal", kLook, "What is lost without each layer, and without each head?", "10 s; 40 min",
     "study layers -m $MODEL -f $EXCERPT --ablate all -o $OUT", "report.html"},
    {"matrices", kLook, "What are the matrices, what do 4 bits cost them, where does a text pull?",
     "10 s; 2 min", "study layers -m $MODEL -f $EXCERPT --spectra --errors --gradients -o $OUT",
     "report.html"},
    {"attention", kLook, "What does every head look at?", "1 s; 5 s",
     "study attention -m $MODEL -f $EXCERPT -o $OUT", "report.html"},
    {"induction", kLook, "Which heads find what followed the same token before?", "1 s; 5 s",
     "study attention -m $MODEL --random-repeat 64 -o $OUT", "report.html"},
    {"lengths", kLook, "How does attention change with the length of the text?", "5 s; 1 min",
     "study attention -m $MODEL -f $TEXT --lengths 64-512*2 -o $OUT", "report.html"},
    {"reach", kLook, "What is it worth that global layers see everything?", "5 s; 10 min",
     "study attention -m $MODEL -f $TEXT --localize -o $OUT", "report.html"},
    {"first-mlp", kLook, "How much of the predictions hangs on the first MLP?", "1 s; 10 s",
     "study activations -m $MODEL -f $EXCERPT --zero blocks.0.hook_mlp_out", ""},
    {"lora", kTrain, "What does an adapter of rank 8 learn from the text?", "10 s; 5 min",
     "train -m $MODEL --data $TEXT --long-documents split --sequence-length 128 --batch-size 2 "
     "--iters 40 --rank-every 20 -o $OUT",
     "report.html"},
    {"dora", kTrain, "And with lengths of rows of their own?", "10 s; 6 min",
     "train -m $MODEL --data $TEXT --long-documents split --sequence-length 128 --batch-size 2 "
     "--iters 40 --dora -o $OUT",
     "report.html"},
    {"relora", kTrain, "Do adapters that are merged and begun anew reach a higher rank?",
     "15 s; 6 min and 6 GiB",
     "train -m $MODEL --method relora --data $TEXT --long-documents split --sequence-length 128 "
     "--batch-size 2 --iters 40 --reset-every 20 --reset-warmup 5 --rank-every 20 -o $OUT",
     "report.html"},
    {"rank1", kTrain, "Do steps of a low rank get as far as whole ones?", "15 s; 8 min and 11 GiB",
     "train -m $MODEL --method rank1 --data $TEXT --long-documents split --sequence-length 128 "
     "--batch-size 2 --iters 40 --rank-every 20 -o $OUT",
     "report.html"},
    {"full", kTrain, "What does training every weight reach?", "10 s; 8 min and 16 GiB",
     "train -m $MODEL --method full --data $TEXT --long-documents split --sequence-length 128 "
     "--batch-size 2 --iters 40 --rank-every 20 -o $OUT",
     "report.html"},
    {"blend", kTrain,
     "What do two adapters of other seeds have in common, and what is their blend?", "10 s; 5 min",
     "train -m $MODEL --data $TEXT --long-documents split --sequence-length 128 --batch-size 2 "
     "--iters 20 --seed 1 -o $OUT/first\n"
     "train -m $MODEL --data $TEXT --long-documents split --sequence-length 128 --batch-size 2 "
     "--iters 20 --seed 2 -o $OUT/second\n"
     "blend $OUT/first/adapter $OUT/second/adapter -o $OUT/both --method svd --html "
     "$OUT/report.html",
     "report.html"},
    {"difference", kTrain, "What does a fine-tuning change, matrix by matrix?", "20 s; 20 min",
     "train -m $MODEL --data $TEXT --long-documents split --sequence-length 128 --batch-size 2 "
     "--iters 40 -o $OUT/run\n"
     "study diff $MODEL --adapter $OUT/run/adapter -f $EXCERPT -o $OUT/diff",
     "diff/report.html"},
    {"set-blocks", kTrain, "Can it learn to make several tokens with each pass?", "1 min; 20 min",
     "train -m $MODEL --method lora --objective sbd --block-max 8 --data $TEXT --long-documents "
     "split --sequence-length 128 --batch-size 2 --iters 40 -o $OUT/run\n"
     "bench decode -m $MODEL --adapter $OUT/run/adapter --ways plain,set-block,block-draft "
     "--blocks 8 -n 64 --html $OUT/report.html",
     "report.html"},
    {"by-heart", kTrain, "What of its data does a fine-tuning learn by heart?", "20 s; 10 min",
     "train -m $MODEL --data $TEXT --long-documents split --sequence-length 128 --batch-size 2 "
     "--iters 40 --track-memorization 10 -o $OUT",
     "report.html"},
    {"capacity", kTrain, "How many bits does a small model hold for each parameter?",
     "10 min; no model", "study capacity --sizes 20000 --epochs 300 -o $OUT", "report.html"},
    {"capacity-text", kTrain,
     "Where does learning a text by heart give way to learning its language?", "2 min; no model",
     "study capacity-text -f $TEXT --sizes 5000 --length 32 --held-out 80 --steps 1000 -o $OUT",
     "report.html"},
    {"capacity-layers", kTrain, "Which layers learn by heart?", "4 min; 12 h",
     "study capacity-layers -m $MODEL -o $OUT", "report.html"},
    {"speed", kDecode, "How fast is it, and how near to what the machine can do?", "15 s; 3 min",
     "bench -m $MODEL -p 512 -n 64 -d 0,1024 -b 1,4 -r 3 --html $OUT/report.html", "report.html"},
    {"curve", kDecode, "How does the speed of decoding fall along the context?", "15 s; 2 min",
     "bench curve -m $MODEL --to 2048 --html $OUT/report.html", "report.html"},
    {"decoding", kDecode, "Does guessing several tokens for each pass pay?", "10 s; 5 min",
     "bench decode -m $MODEL --ways ngram -n 64 --html $OUT/report.html", "report.html"},
    {"formats", kDecode, "What do the quantised formats cost in quality, and gain in speed?",
     "1 min; of a dense model alone",
     "quantize $MODEL --report --formats rtn-4,rtn-8,q4_0 -f $EXCERPT --html $OUT/report.html",
     "report.html"},
    {"rounding", kDecode, "What do 4 bits change, layer by layer and matrix by matrix?",
     "5 s; of a dense model alone",
     "convert $MODEL --quantize -o $OUT/4bit\n"
     "study diff $MODEL $OUT/4bit -f $EXCERPT -o $OUT/diff",
     "diff/report.html"},
    {"kernels", kDecode, "Is every kernel right, and how near to the limits?", "1 min; no model",
     "bench kernels --html $OUT/report.html", "report.html"},
    {"limits", kDecode, "What can this machine do at most?", "20 s; no model",
     "bench limits --html $OUT/report.html", "report.html"},
    {"tuning", kDecode, "Which settings suit this machine? (keeps them: lapidary tune)",
     "10 s; 6 min", "tune -m $MODEL --dry-run", ""},
    {"isolation", kIsolate, "Does giving each topic its own KV cache change the answers?",
     "1 min; 20 min", "isolate run $CONVERSATIONS -m $MODEL -n 40 -o $OUT", "report.html"},
    {"isolation-controls", kIsolate, "Is it the topics, or only shorter contexts?", "1 min; 25 min",
     "isolate run $CONVERSATIONS -m $MODEL -n 40 --conditions "
     "sequential,semantic,random_clusters,length_matched,mask -o $OUT",
     "report.html"},
    {"isolation-proof", kIsolate, "Is an isolated cache the same, bit for bit, as one alone?",
     "10 s; 10 min", "isolate prove $CONVERSATIONS -m $MODEL -n 16 --compute exact", ""},
};

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(at), text.size());
    if (end > 0) parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

void replace(std::string& word, std::string_view name, const std::string& value) {
  if (const size_t at = word.find(name); at != std::string::npos)
    word.replace(at, name.size(), value);
}

}  // namespace

std::span<const Experiment> experiments() {
  return kExperiments;
}

const Experiment* find_experiment(std::string_view name) {
  const auto* found = std::ranges::find(kExperiments, name, &Experiment::name);
  return found == std::end(kExperiments) ? nullptr : found;
}

std::vector<std::vector<std::string>> commands_of(const Experiment& experiment,
                                                  const ExperimentWords& words) {
  std::vector<std::vector<std::string>> commands;
  for (const std::string& line : split(experiment.commands, '\n')) {
    std::vector<std::string> command = split(line, ' ');
    for (std::string& word : command)
      for (const auto& [name, value] : {std::pair{"$MODEL", &words.model},
                                        {"$TEXT", &words.text},
                                        {"$EXCERPT", &words.excerpt},
                                        {"$CONVERSATIONS", &words.conversations},
                                        {"$OUT", &words.out}})
        replace(word, name, *value);
    commands.push_back(std::move(command));
  }
  return commands;
}

}  // namespace lapidary::cli
