// Counter-based random numbers: Philox4x32-10 (Salmon et al., 2011) and normals from its words.
//
// Element i of a tensor, counted in row-major order, takes word i % 4 of block i / 4 under the
// seed, so a value depends on nothing but seed and index: not on threads, memory layout or
// backend. Words and uniforms are the same everywhere; normals go through log, sin and cos, and
// agree to 4 units in the last place.
#pragma once

#include <math.h>
#include <stdint.h>

#include "functions.h"

namespace ganloss::math {

struct PhiloxWords {
  uint32_t word[4];
};

HOST_DEVICE PhiloxWords philox(uint64_t seed, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
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
HOST_DEVICE void sine_cosine(float x, float* sine, float* cosine) {
  *sine = sinf(x);
  *cosine = cosf(x);
}
HOST_DEVICE void sine_cosine(double x, double* sine, double* cosine) {
  *sine = sin(x);
  *cosine = cos(x);
}

// Four normals of a block (Box and Muller, 1958): words 0, 1 give the first two, 2, 3 the others.
template <typename scalar_t>
HOST_DEVICE void philox_normals(uint64_t seed, uint64_t block, scalar_t normals[4]) {
  const PhiloxWords words = philox(seed, block);
  for (int pair = 0; pair < 4; pair += 2) {
    const scalar_t minus_two_log = scalar_t(-2) * natural_log(uniform<scalar_t>(words.word[pair]));
    const scalar_t radius = square_root(minus_two_log);
    const scalar_t angle = scalar_t(6.283185307179586) * uniform<scalar_t>(words.word[pair + 1]);
    scalar_t sine, cosine;
    sine_cosine(angle, &sine, &cosine);
    normals[pair] = radius * sine;
    normals[pair + 1] = radius * cosine;
  }
}

}  // namespace ganloss::math
