// room: kernels
