#include "train/ranks.h"

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <dlfcn.h>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/fail.h"
#include "train/communicator.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// Of OpenMPI, and of MPICH and its relatives.
bool under_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMI_SIZE") != nullptr;
}

// Beside the program, where it is built and where it is installed alike.
Communicator& open_communicator() {
  const fs::path bin = fs::read_symlink("/proc/self/exe").parent_path();
  const fs::path library = bin.parent_path() / "lib" / "lapidary" / "mpi.so";
  if (!fs::exists(library))
    throw Error(ErrorKind::kUsage, "started by mpirun, but built without MPI",
                "install libopenmpi-dev and build again");
  // Global, since OpenMPI loads parts of itself that look for its symbols.
  void* loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (loaded == nullptr) fail_resource("{}: {}", library.string(), dlerror());
  auto* open = reinterpret_cast<OpenCommunicator*>(dlsym(loaded, kOpenCommunicator));
  Communicator* communicator = open == nullptr ? nullptr : open();
  if (communicator == nullptr)
    fail_resource("{}: this MPI does not let one thread after another talk to it",
                  library.string());
  return *communicator;
}

}  // namespace

// One thread that talks to the other ranks while gradients of earlier layers are being computed.
class Ranks::Background {
 public:
  explicit Background(Communicator& others) : others_(others), thread_([this] { work(); }) {}
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
      others_.add_up_napping(values);
      lock.lock();
      waiting_.pop_front();
      changed_.notify_all();
    }
  }

  Communicator& others_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::span<float>> waiting_;  // the first is being added up
  bool ending_ = false;
  std::thread thread_;
};

Ranks::Ranks() {
  if (!under_mpirun()) return;
  others_ = &open_communicator();
  rank_ = others_->rank();
  count_ = others_->count();
  if (count_ > 1) background_ = std::make_unique<Background>(*others_);
}

Ranks::~Ranks() {
  background_.reset();
  // The others do not come when this one leaves by an error.
  if (std::uncaught_exceptions() == 0) leave();
}

void Ranks::leave() {
  background_.reset();
  if (others_ != nullptr) others_->leave();
  others_ = nullptr;
}

void Ranks::add_up(std::span<double> values) {
  if (count_ > 1) others_->reduce(values, Communicator::Operation::kSum);
}

void Ranks::begin_adding_up(std::span<float> values) {
  if (count_ > 1) background_->add(values);
}

void Ranks::finish() {
  if (count_ > 1) background_->finish();
}

double Ranks::smallest(double value) {
  if (count_ > 1) others_->reduce({&value, 1}, Communicator::Operation::kMin);
  return value;
}

double Ranks::largest(double value) {
  if (count_ > 1) others_->reduce({&value, 1}, Communicator::Operation::kMax);
  return value;
}

}  // namespace lapidary
