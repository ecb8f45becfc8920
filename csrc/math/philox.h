// Counter-based random numbers: Philox4x32-10 (Salmon et al., 2011) and normals from its words.
//
// Element i of a tensor, counted in row-major order, takes word i % 4 of block i / 4 under the
// seed, so a value depends on nothing but seed and index: not on threads, memory layout or
// backend. Words and uniforms are the same everywhere; normals go through each platform's
// logarithm and contraction of products, and agree to 4 units in the last place.
#pragma once

#include <math.h>
#include <stdint.h>

#include "functions.h"

namespace ganloss::math {

struct PhiloxWords {
  uint32_t word[4];
};

HOST_DEVICE PhiloxWords philox(PhiloxWords counter, uint64_t key) {
  uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

HOST_DEVICE PhiloxWords words_of_block(uint64_t seed, uint64_t block) {
  return philox({{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0}}, seed);
}

// (word + 1/2) / 2^32, in (0, 1].
template <typename scalar_t>
HOST_DEVICE scalar_t uniform(uint32_t word) {
  return static_cast<scalar_t>(word) * scalar_t(0x1p-32) + scalar_t(0x1p-33);
}

HOST_DEVICE float natural_log(float x) {
  return logf(x);
}
HOST_DEVICE double natural_log(double x) {
  return log(x);
}

// 2 pi is kHigh + kLow: rounded to one number it would cost half a unit in the last place.
template <typename scalar_t>
struct FullTurn {
  static constexpr float kHigh = 6.2831855f, kLow = -1.7484556e-07f;
  static constexpr int kTerms = 5;  // of the series below: the rest is 1/50 of a unit or less
};
template <>
struct FullTurn<double> {
  static constexpr double kHigh = 6.283185307179586, kLow = 2.4492935982947064e-16;
  static constexpr int kTerms = 8;
};

// Sine and cosine of a number of full turns in [0, 1].
//
// Not sin(2 pi turns): that product is rounded, which near the zeros of sine and cosine costs most
// of their digits, and CUDA's sinf and cosf bring a path for huge arguments that works in local
// memory. Taking off the nearest quarter is exact and leaves an angle of at most pi / 4, on which
// a few terms of the series suffice, from the last to the first.
template <typename scalar_t>
HOST_DEVICE void sine_cosine(scalar_t turns, scalar_t* sine, scalar_t* cosine) {
  using Turn = FullTurn<scalar_t>;
  const int quarter = static_cast<int>(scalar_t(4) * turns + scalar_t(0.5));
  const scalar_t rest = turns - scalar_t(0.25) * static_cast<scalar_t>(quarter);
  const scalar_t square = rest * rest * (Turn::kHigh * Turn::kHigh);
  scalar_t s = 0, c = 0;  // sin(angle) / angle - 1 and cos(angle) - 1
  for (int n = 2 * Turn::kTerms; n > 0; n -= 2) {
    s = square * (scalar_t(-1) / static_cast<scalar_t>(n * (n + 1))) * (s + scalar_t(1));
    c = square * (scalar_t(-1) / static_cast<scalar_t>(n * (n - 1))) * (c + scalar_t(1));
  }
  s = rest * Turn::kHigh + rest * (Turn::kLow + Turn::kHigh * s);
  c += scalar_t(1);
  const scalar_t rotated_sine = quarter & 1 ? c : s, rotated_cosine = quarter & 1 ? s : c;
  *sine = quarter & 2 ? -rotated_sine : rotated_sine;
  *cosine = (quarter + 1) & 2 ? -rotated_cosine : rotated_cosine;
}

// Four normals of a block (Box and Muller, 1958): words 0, 1 give the first two, 2, 3 the others.
template <typename scalar_t>
HOST_DEVICE void philox_normals(uint64_t seed, uint64_t block, scalar_t normals[4]) {
  const PhiloxWords words = words_of_block(seed, block);
  for (int pair = 0; pair < 4; pair += 2) {
    const scalar_t minus_two_log = scalar_t(-2) * natural_log(uniform<scalar_t>(words.word[pair]));
    const scalar_t radius = square_root(minus_two_log);
    scalar_t sine, cosine;
    sine_cosine(uniform<scalar_t>(words.word[pair + 1]), &sine, &cosine);
    normals[pair] = radius * sine;
    normals[pair + 1] = radius * cosine;
  }
}

}  // namespace ganloss::math
