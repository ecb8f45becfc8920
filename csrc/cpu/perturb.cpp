// perturb on the CPU: x + sigma * normal, one Philox block for four elements.
#include <ATen/Parallel.h>

#include "../host/checks.h"
#include "../math/philox.h"
#include "../ops.h"
#include "launch.h"

namespace ganloss::cpu {

namespace {

template <typename storage_t, typename scalar_t>
void perturb_blocks(const storage_t* x, storage_t* out, int64_t count, scalar_t sigma,
                    uint64_t seed) {
  constexpr int64_t kBlocksPerTask = 4096;
  at::parallel_for(0, (count + 3) / 4, kBlocksPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      scalar_t normals[4];
      math::philox_normals(seed, static_cast<uint64_t>(block), normals);
      const int64_t first = 4 * block;
      const int64_t lanes = std::min<int64_t>(4, count - first);
      for (int64_t lane = 0; lane < lanes; ++lane)
        out[first + lane] =
            static_cast<storage_t>(static_cast<scalar_t>(x[first + lane]) + sigma * normals[lane]);
    }
  });
}

}  // namespace

at::Tensor perturb(const at::Tensor& inputs, double sigma, const at::Tensor& seed) {
  check_perturb(inputs, seed);
  const at::Tensor x = inputs.contiguous();  // noise follows the row-major index in any layout
  at::Tensor out = empty_output(x);
  const auto key = static_cast<uint64_t>(*seed.const_data_ptr<int64_t>());
  const auto run = [&]<typename storage_t, typename scalar_t>() {
    perturb_blocks<storage_t, scalar_t>(x.const_data_ptr<storage_t>(),
                                        out.mutable_data_ptr<storage_t>(), x.numel(),
                                        static_cast<scalar_t>(sigma), key);
  };
  switch (dtype_of(x)) {
    case Dtype::kFloat:
      run.template operator()<float, float>();
      break;
    case Dtype::kDouble:
      run.template operator()<double, double>();
      break;
    case Dtype::kHalf:
      run.template operator()<at::Half, float>();
      break;
    case Dtype::kBFloat16:
      run.template operator()<at::BFloat16, float>();
      break;
  }
  return restore_layout(out, x, inputs);
}

}  // namespace ganloss::cpu
