// A SIMD vector with the operations that csrc/math is written in.
//
// Built on the compiler's vector extension, so one text serves SSE2, AVX2, AVX-512 and NEON: an
// ISA file sets kVectorBytes and a target pragma, then includes this. Intrinsics stand for what the
// extension cannot say: conversions of half precision, and three instructions of AVX-512. The ISA
// file says what it has (GANLOSS_F16C, GANLOSS_AVX512): g++ before 13 reads a whole file before it
// heeds the pragma, so that __F16C__ is never defined there.
//
// Everything is in an unnamed namespace and nothing of torch or the C++ library is included: an
// inline function compiled here for AVX-512 must never be the copy that the linker keeps for
// the whole process.
#pragma once

#include <stdint.h>

#include "../../math/functions.h"

#if defined(GANLOSS_F16C)
#include <immintrin.h>
#endif

namespace {

// The compiler's vector of T and the integer vector that its comparisons give. (Spelled out for
// each type: the attribute is not applied to a dependent type.)
template <typename T>
struct Simd;
template <>
struct Simd<float> {
  typedef float Native __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t Unsigned __attribute__((vector_size(kVectorBytes)));
  static constexpr int32_t kSign = INT32_MIN;
  static constexpr float kLeastNormal = 0x1p-126f, kLargest = 0x1.fffffep127f;
};
template <>
struct Simd<double> {
  typedef double Native __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Bits __attribute__((vector_size(kVectorBytes)));
  typedef uint64_t Unsigned __attribute__((vector_size(kVectorBytes)));
  static constexpr int64_t kSign = INT64_MIN;
  static constexpr double kLeastNormal = 0x1p-1022, kLargest = 0x1.fffffffffffffp1023;
};

template <typename T>
struct Mask {
  typename Simd<T>::Bits bits;
};

template <typename T>
struct Vector {
  using Native = typename Simd<T>::Native;
  using Bits = typename Simd<T>::Bits;
  static constexpr int kLanes = kVectorBytes / sizeof(T);

  Native native;

  Vector() = default;
  HOST_DEVICE Vector(Native value) : native(value) {}
  HOST_DEVICE Vector(T value) : native(value - Native{}) {}  // x - 0 keeps the sign of -0

  HOST_DEVICE Vector operator-() const { return -native; }
  HOST_DEVICE friend Vector operator+(Vector a, Vector b) { return a.native + b.native; }
  HOST_DEVICE friend Vector operator-(Vector a, Vector b) { return a.native - b.native; }
  HOST_DEVICE friend Vector operator*(Vector a, Vector b) { return a.native * b.native; }
  HOST_DEVICE friend Vector operator/(Vector a, Vector b) { return a.native / b.native; }
  HOST_DEVICE friend Mask<T> operator<(Vector a, Vector b) { return {a.native < b.native}; }
  HOST_DEVICE friend Mask<T> operator>(Vector a, Vector b) { return {a.native > b.native}; }
  HOST_DEVICE friend Mask<T> operator>=(Vector a, Vector b) { return {a.native >= b.native}; }
  HOST_DEVICE friend Mask<T> operator<=(Vector a, Vector b) { return {a.native <= b.native}; }
  HOST_DEVICE friend Mask<T> operator==(Vector a, Vector b) { return {a.native == b.native}; }
};

template <typename T>
HOST_DEVICE Vector<T> select(Mask<T> mask, Vector<T> yes, Vector<T> no) {
  return mask.bits ? yes.native : no.native;
}
template <typename T>
HOST_DEVICE Vector<T> absolute(Vector<T> x) {
  using Bits = typename Vector<T>::Bits;
  return (typename Vector<T>::Native)((Bits)x.native & ~(Bits{} + Simd<T>::kSign));
}
template <typename T>
HOST_DEVICE Vector<T> positive_part(Vector<T> x) {
  return select(x <= Vector<T>(T(0)), Vector<T>(T(0)), x);
}

#if defined(GANLOSS_AVX512)
// Masked: without a mask they read an undefined register in g++ 12, which warns of it.
constexpr __mmask16 kAllLanes = 0xffff;
#endif

// The greater of the two; NaN where x is.
HOST_DEVICE Vector<float> at_least(Vector<float> bound, Vector<float> x) {
#if defined(GANLOSS_AVX512)
  return _mm512_maskz_max_ps(kAllLanes, bound.native, x.native);  // the second where one is NaN
#else
  return select(x < bound, bound, x);
#endif
}

// x 2^n for a whole n from -160 to 0, where results below 2^-126 keep their bits.
HOST_DEVICE Vector<float> times_power_of_two(Vector<float> x, Vector<float> n) {
#if defined(GANLOSS_AVX512)
  return _mm512_maskz_scalef_ps(kAllLanes, x.native, n.native);
#else  // in two halves, each a normal number
  typedef Vector<float>::Bits Bits;
  typedef Vector<float>::Native Native;
  const Bits exponent = __builtin_convertvector(n.native, Bits), half = exponent >> 1;
  return x.native * (Native)((half + 127) << 23) * (Native)((exponent - half + 127) << 23);
#endif
}

// exp(-|x|): -|x| = n ln 2 + r with |r| <= ln 2 / 2, a minimax polynomial of degree 6 in r
// (0.05 ulp), and the factor 2^n.
HOST_DEVICE Vector<float> exp_minus_absolute(Vector<float> argument) {
  typedef Vector<float> V;
  V x = at_least(V(-110.0f), -absolute(argument));  // exp(-110) is already 0
  const float round_to_integer = 12582912.0f;       // 1.5 * 2^23
  V n = (x * V(1.44269504f) + V(round_to_integer)) - V(round_to_integer);
  V r = x - n * V(0.693359375f) - n * V(-2.12194440e-4f);
  V p = V(0.0013818729f);
  p = p * r + V(0.008368719f);
  p = p * r + V(0.041668292f);
  p = p * r + V(0.16666521f);
  p = p * r + V(0.49999994f);
  p = p * r + V(1.0f);
  p = p * r + V(1.0f);
  return times_power_of_two(p, n);
}

HOST_DEVICE Vector<float> log1p_unit(Vector<float> x) {
  return ganloss::math::log1p_polynomial(x);
}

// log(1 + x) for x in [0, 2^127): 1 + x = 2^n (1 + m) with m in [0, 1); below 1 it is x itself.
HOST_DEVICE Vector<float> log1p_positive(Vector<float> x) {
  typedef Vector<float> V;
  const V::Bits bits = (V::Bits)(x + V(1.0f)).native;
  const V n = __builtin_convertvector((bits >> 23) - 127, V::Native);
  const V m = (V::Native)((bits & 0x7fffff) | 0x3f800000) - V(1.0f).native;
  const auto is_below_one = x < V(1.0f);
  return select(is_below_one, V(0.0f), n * V(0.693147181f)) +
         log1p_unit(select(is_below_one, x, m));
}

// Double precision is for checking, not for speed: the C library, lane by lane.
HOST_DEVICE Vector<double> exp_minus_absolute(Vector<double> x) {
  for (int lane = 0; lane < Vector<double>::kLanes; ++lane)
    x.native[lane] = __builtin_exp(-__builtin_fabs(x.native[lane]));
  return x;
}
HOST_DEVICE Vector<double> log1p_unit(Vector<double> x) {
  for (int lane = 0; lane < Vector<double>::kLanes; ++lane)
    x.native[lane] = __builtin_log1p(x.native[lane]);
  return x;
}
HOST_DEVICE Vector<double> log1p_positive(Vector<double> x) {
  return log1p_unit(x);
}

// As math::divide_unit: of the hardware's 14 bits one Newton step makes all of float's.
HOST_DEVICE Vector<float> divide_unit(Vector<float> x, Vector<float> y) {
#if defined(GANLOSS_AVX512)
  const Vector<float> reciprocal = _mm512_maskz_rcp14_ps(kAllLanes, y.native);
  const Vector<float> quotient = x * reciprocal;
  const __m512 remainder = _mm512_fnmadd_ps(quotient.native, y.native, x.native);
  return _mm512_fmadd_ps(remainder, reciprocal.native, quotient.native);
#else
  return x / y;
#endif
}
HOST_DEVICE Vector<double> divide_unit(Vector<double> x, Vector<double> y) {
  return x / y;
}

// ---- storage: what lies in memory, and the vector it is computed in --------------------------

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename storage_t>
struct Compute {
  using scalar = float;
};
template <>
struct Compute<double> {
  using scalar = double;
};

template <typename T>
HOST_DEVICE Vector<T> load(const T* from) {
  typename Vector<T>::Native value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <typename T>
HOST_DEVICE void store(T* to, Vector<T> value) {
  __builtin_memcpy(to, &value.native, sizeof value.native);
}

typedef uint16_t Shorts __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));

HOST_DEVICE Vector<float> load(const BFloat16* from) {
  Shorts bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return (Vector<float>::Native)(__builtin_convertvector(bits, Words) << 16);
}
HOST_DEVICE void store(BFloat16* to, Vector<float> value) {
  Words bits = (Words)value.native;
  Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  Words is_nan = (Words)((bits & 0x7fffffff) > 0x7f800000);
  Shorts result = __builtin_convertvector(is_nan ? Words{} + 0x7fc0 : rounded, Shorts);
  __builtin_memcpy(to, &result, sizeof result);
}

#if defined(GANLOSS_AVX512)
HOST_DEVICE Vector<float> load(const Half* from) {
  return _mm512_maskz_cvtph_ps(kAllLanes, _mm256_loadu_si256((const __m256i*)from));
}
HOST_DEVICE void store(Half* to, Vector<float> value) {
  _mm256_storeu_si256((__m256i*)to,
                      _mm512_maskz_cvtps_ph(kAllLanes, value.native, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(GANLOSS_F16C)
HOST_DEVICE Vector<float> load(const Half* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
}
HOST_DEVICE void store(Half* to, Vector<float> value) {
  _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph(value.native, _MM_FROUND_TO_NEAREST_INT));
}
#else
// Half to float: shift exponent and mantissa into place, then scale by 2^112, which also makes
// the subnormals right; infinity and NaN have exponent 31 and keep an all-ones exponent.
HOST_DEVICE Vector<float> load(const Half* from) {
  Shorts half;
  __builtin_memcpy(&half, from, sizeof half);
  Words bits = __builtin_convertvector(half, Words);
  Words magnitude = (bits & 0x7fff) << 13;
  Words scaled = (Words)((Vector<float>::Native)magnitude * 0x1p112f);
  Words special = (Words)(magnitude >= (31u << 23));
  return (Vector<float>::Native)(((bits & 0x8000) << 16) |
                                 (special ? magnitude | 0x7f800000 : scaled));
}
// Float to half: adding a power of two whose last bit is the half's last bit lets the float
// adder round (to nearest, ties to even), for subnormal halves too.
HOST_DEVICE void store(Half* to, Vector<float> value) {
  typedef Vector<float>::Native Native;
  Words bits = (Words)value.native;
  Words magnitude = bits & 0x7fffffff;
  Words exponent = magnitude & 0x7f800000;
  Words least = Words{} + (113u << 23);  // 2^-14, the least normal half
  Words anchor = (exponent < least ? least : exponent) + (13u << 23);
  Words rounded = (Words)((Native)magnitude + (Native)anchor) - anchor;
  // rounded: mantissa with its implicit bit, in units of the last place of the half
  Words biased = (exponent < least ? Words{} : ((exponent - least) >> 23)) << 10;
  Words half = biased + rounded;
  half = magnitude >= 0x477ff000 ? Words{} + 0x7c00 : half;  // 65520 and above round to infinity
  half = magnitude > 0x7f800000 ? Words{} + 0x7e00 : half;
  Shorts result = __builtin_convertvector(half | ((bits >> 16) & 0x8000), Shorts);
  __builtin_memcpy(to, &result, sizeof result);
}
#endif

// The first `count` elements; the other lanes are zero.
template <typename storage_t>
HOST_DEVICE auto load_part(const storage_t* from, int count) {
  storage_t buffer[kVectorBytes / sizeof(typename Compute<storage_t>::scalar)] = {};
  __builtin_memcpy(buffer, from, count * sizeof(storage_t));
  return load(buffer);
}
// One element in double.
template <typename storage_t>
HOST_DEVICE double load_one(const storage_t* from) {
  return double(load_part(from, 1).native[0]);
}
template <typename storage_t, typename V>
HOST_DEVICE void store_part(storage_t* to, V value, int count) {
  storage_t buffer[V::kLanes];
  store(buffer, value);
  __builtin_memcpy(to, buffer, count * sizeof(storage_t));
}

// Neighbours are added, then the sums of neighbours, in double: one fixed result, and few additions
// that wait for another.
template <typename T>
HOST_DEVICE double sum_of_lanes(Vector<T> x) {
  double sums[Vector<T>::kLanes];
  for (int lane = 0; lane < Vector<T>::kLanes; ++lane) sums[lane] = double(x.native[lane]);
  for (int left = Vector<T>::kLanes / 2; left > 0; left /= 2)
    for (int lane = 0; lane < left; ++lane) sums[lane] = sums[2 * lane] + sums[2 * lane + 1];
  return sums[0];
}

// x in all but the first `count` lanes, which are zero.
template <typename T>
HOST_DEVICE Vector<T> drop_first(Vector<T> x, int count) {
  typename Vector<T>::Bits index;
  for (int lane = 0; lane < Vector<T>::kLanes; ++lane) index[lane] = lane;
  return select(Mask<T>{index >= count}, x, Vector<T>(T(0)));
}

// x in the first `count` lanes, zero in the others.
template <typename T>
HOST_DEVICE Vector<T> keep_first(Vector<T> x, int count) {
  for (int lane = count; lane < Vector<T>::kLanes; ++lane) x.native[lane] = T(0);
  return x;
}

}  // namespace
