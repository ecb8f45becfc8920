// The kernels for AVX-512 F, BW, VL and DQ. The pragma must come before any include.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")
#define GANLOSS_AVX512
#define GANLOSS_F16C
constexpr int kVectorBytes = 64;
#define GANLOSS_ISA "avx512"
#define GANLOSS_KERNELS kAvx512Kernels
#include "kernels.inl"
#endif
