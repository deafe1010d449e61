#include "train/communicator.h"

#include <algorithm>
#include <chrono>
#include <mpi.h>
#include <thread>

namespace lapidary {

namespace {

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &count_);
  }

  int rank() const override { return rank_; }
  int count() const override { return count_; }

  void reduce(std::span<double> values, Operation operation) override {
    const MPI_Op op = operation == Operation::kSum   ? MPI_SUM
                      : operation == Operation::kMin ? MPI_MIN
                                                     : MPI_MAX;
    MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE, op,
                  MPI_COMM_WORLD);
  }

  void add_up_napping(std::span<float> values) override {
    constexpr std::chrono::microseconds kNap(100);
    constexpr size_t kAtOnce = size_t{1} << 24;  // MPI counts in int
    for (size_t i = 0; i < values.size(); i += kAtOnce) {
      const size_t count = std::min(kAtOnce, values.size() - i);
      MPI_Request request;
      MPI_Iallreduce(MPI_IN_PLACE, values.data() + i, static_cast<int>(count), MPI_FLOAT, MPI_SUM,
                     MPI_COMM_WORLD, &request);
      for (int done = 0; MPI_Test(&request, &done, MPI_STATUS_IGNORE), done == 0;)
        std::this_thread::sleep_for(kNap);
    }
  }

  void leave() override {
    int ended = 0;
    MPI_Finalized(&ended);
    if (ended == 0) MPI_Finalize();
  }

 private:
  int rank_ = 0;
  int count_ = 1;
};

}  // namespace

extern "C" Communicator* lapidary_open_communicator() {
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  if (provided < MPI_THREAD_SERIALIZED) return nullptr;
  static MpiCommunicator communicator;
  return &communicator;
}

}  // namespace lapidary
