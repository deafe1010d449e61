// Processes that train one model together, each on rows of its own: those that mpirun started
// (MPI).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace lapidary {

class Communicator;

// Each rank must make the same calls in the same order. An exception that leaves a rank ends the
// process without it, upon which mpirun ends the others.
class Ranks {
 public:
  // Of mpirun where it started this process, else a single one. Throws Error{kUsage} under mpirun
  // when lapidary was built without MPI. Once in a process.
  Ranks();
  // Waits for the others.
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int rank() const { return rank_; }
  int count() const { return count_; }
  bool first() const { return rank_ == 0; }

  // Sums over the ranks, in place, the same bits on each.
  void add_up(std::span<double> values);
  // The same in the background. Nothing else may be called before finish(), after which the values
  // are the caller's again.
  void begin_adding_up(std::span<float> values);
  void finish();

  double smallest(double value);
  double largest(double value);
  // Whether it is true of one of them.
  bool any(bool value) { return largest(value ? 1 : 0) > 0; }
  // Returns when all ranks are here.
  void meet() { any(false); }
  // For all ranks to end together by an exception: nothing can be called afterwards.
  void leave();

 private:
  class Background;

  Communicator* others_ = nullptr;  // none where this process is alone
  int rank_ = 0;
  int count_ = 1;
  std::unique_ptr<Background> background_;
};

}  // namespace lapidary
