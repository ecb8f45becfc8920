// The kernels for every machine: SSE2 on x86-64, NEON on AArch64.
constexpr int kVectorBytes = 16;
#define GANLOSS_ISA "base"
#define GANLOSS_KERNELS kBaseKernels
#include "kernels.inl"
