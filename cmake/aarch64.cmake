# AArch64 from another machine: Debian's g++-aarch64-linux-gnu, and qemu-user to run what it makes.
# The emulated CPU has all that QEMU knows, dot products among it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu)
