// What MPI does for Ranks. It stands in a library of its own, lib/lapidary/mpi.so, which is loaded
// under mpirun alone: MPI's libraries would cost every start of the program 2 MB.
#pragma once

#include <span>

namespace lapidary {

// Made by the function named kOpenCommunicator in the library, one in a process, which it owns.
// MPI's own errors end all ranks, with its message: that is its default.
class Communicator {
 public:
  enum class Operation { kSum, kMin, kMax };

  Communicator() = default;
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;
  virtual int count() const = 0;
  // Over all ranks, in place, the same bits on each.
  virtual void reduce(std::span<double> values, Operation operation) = 0;
  // The same sum. MPI moves data only while somebody asks it about them: this asks and sleeps in
  // turns, since waiting within MPI would take a core from the gradients.
  virtual void add_up_napping(std::span<float> values) = 0;
  // Waits for the other ranks. Nothing can be called afterwards.
  virtual void leave() = 0;
};

// Null where this MPI does not let one thread after another talk to it.
using OpenCommunicator = Communicator*();
inline constexpr const char* kOpenCommunicator = "lapidary_open_communicator";

}  // namespace lapidary
