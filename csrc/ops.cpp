// The ops through the dispatcher.
#include "ops.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace ganloss {

namespace {

template <const auto& kName, typename Function>
struct Dispatched;

template <const auto& kName, typename Result, typename... Parameters>
struct Dispatched<kName, Result(Parameters...)> {
  static Result call(Parameters... arguments) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow(kName, "")
                               .template typed<Result(Parameters...)>();
    return op.call(arguments...);
  }
};

#define GANLOSS_NAME_OP(name, ...) constexpr char kNameOf_##name[] = "ganloss_fast::" #name;
GANLOSS_FOR_EACH_OP(GANLOSS_NAME_OP)

}  // namespace

#define GANLOSS_DEFINE_OP(name, ...) \
  decltype(cpu::name)* const name = &Dispatched<kNameOf_##name, decltype(cpu::name)>::call;
GANLOSS_FOR_EACH_OP(GANLOSS_DEFINE_OP)

}  // namespace ganloss
