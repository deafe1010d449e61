#include "train/ranks.h"

#include <algorithm>
#include <cstdlib>

#include "base/fail.h"

#ifdef LAPIDARY_MPI
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mpi.h>
#include <mutex>
#include <thread>
#endif

namespace lapidary {

namespace {

// Of OpenMPI, and of MPICH and its relatives.
bool under_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMI_SIZE") != nullptr;
}

}  // namespace

#ifdef LAPIDARY_MPI

// One thread that talks to the other ranks while gradients of earlier layers are being computed.
// MPI moves data only while somebody asks it about them; this thread asks and sleeps in turns,
// since waiting within MPI would take a core from the gradients.
class Ranks::Background {
 public:
  Background() : thread_([this] { work(); }) {}
  ~Background() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void add(std::span<float> values) {
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(values);
    }
    changed_.notify_all();
  }

  void finish() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return waiting_.empty(); });
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const std::span<float> values = waiting_.front();
      lock.unlock();
      add_up(values);
      lock.lock();
      waiting_.pop_front();
      changed_.notify_all();
    }
  }

  static void add_up(std::span<float> values) {
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

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::span<float>> waiting_;  // the first is being added up
  bool ending_ = false;
  std::thread thread_;
};

namespace {

double reduce(double value, MPI_Op operation) {
  MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, operation, MPI_COMM_WORLD);
  return value;
}

}  // namespace

// MPI's own errors end all ranks, with its message: that is its default.
Ranks::Ranks() {
  if (!under_mpirun()) return;
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  if (provided < MPI_THREAD_SERIALIZED)
    fail_resource("this MPI does not let one thread after another talk to it");
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &count_);
  if (count_ > 1) background_ = std::make_unique<Background>();
}

Ranks::~Ranks() {
  background_.reset();
  // The others do not come when this one leaves by an error.
  if (std::uncaught_exceptions() == 0) leave();
}

void Ranks::leave() {
  background_.reset();
  int begun = 0, ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  if (begun != 0 && ended == 0) MPI_Finalize();
}

void Ranks::add_up(std::span<double> values) {
  if (count_ > 1)
    MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);
}

void Ranks::begin_adding_up(std::span<float> values) {
  if (count_ > 1) background_->add(values);
}

void Ranks::finish() {
  if (count_ > 1) background_->finish();
}

double Ranks::smallest(double value) {
  return count_ > 1 ? reduce(value, MPI_MIN) : value;
}

double Ranks::largest(double value) {
  return count_ > 1 ? reduce(value, MPI_MAX) : value;
}

#else

class Ranks::Background {};

Ranks::Ranks() {
  if (under_mpirun())
    throw Error(ErrorKind::kUsage, "started by mpirun, but built without MPI",
                "install libopenmpi-dev and build again");
}
Ranks::~Ranks() = default;
void Ranks::leave() {}

void Ranks::add_up(std::span<double>) {}
void Ranks::begin_adding_up(std::span<float>) {}
void Ranks::finish() {}
double Ranks::smallest(double value) {
  return value;
}
double Ranks::largest(double value) {
  return value;
}

#endif

}  // namespace lapidary
