// The kernels for AVX2 with FMA and F16C. The pragma must come before any include.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define GANLOSS_F16C
constexpr int kVectorBytes = 32;
#define GANLOSS_ISA "avx2"
#define GANLOSS_KERNELS kAvx2Kernels
#include "kernels.inl"
#endif
