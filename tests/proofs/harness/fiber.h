// A fiber: a call stack that is resumed and suspended by hand. One fiber runs one CUDA thread.
//
// All fibers of a launch run on one OS thread, so a schedule is reproducible from its seed. The
// sanitizers are told of every switch. ThreadSanitizer sees each fiber as a thread of its own,
// and a switch orders nothing: only what CUDA orders is announced as ordered (see cuda_runtime.h).
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define HARNESS_UNINSTRUMENTED __attribute__((no_sanitize_thread, noinline))
#define HARNESS_STATE HARNESS_UNINSTRUMENTED
#else
#define HARNESS_UNINSTRUMENTED __attribute__((noinline))
#define HARNESS_STATE
#endif

namespace harness {

// A kernel's arguments (up to 32 KiB) lie on the stack; of the rest only touched pages cost.
constexpr size_t kStackBytes = 192 << 10;

#if defined(__x86_64__)
// Saves the callee-saved registers on the stack, swaps stacks, restores. Two hundred times faster
// than swapcontext, which makes a system call for the signal mask.
extern "C" void harness_switch(void** save_stack_pointer, void* stack_pointer);
asm(R"(
.pushsection .text
.weak harness_switch
.type harness_switch, @function
harness_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size harness_switch, .-harness_switch
.popsection
)");
#endif

class Fiber {
 public:
  using Body = void (*)(void*);

  // Prepares body(argument) to run from the top of the fiber's stack.
  HARNESS_UNINSTRUMENTED void prepare(Body body, void* argument) {
    if (stack_ == nullptr)
      stack_ = static_cast<char*>(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    body_ = body;
    argument_ = argument;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack_, kStackBytes);
    fake_stack_ = nullptr;
#endif
#if defined(__SANITIZE_THREAD__)
    if (tsan_ == nullptr) tsan_ = __tsan_create_fiber(0);
#endif
#if defined(__x86_64__)
    // A function is entered with the stack 8 bytes past a 16-byte boundary.
    auto** top = reinterpret_cast<void**>(stack_ + kStackBytes) - 3;
    *--top = reinterpret_cast<void*>(&Fiber::enter);  // where `ret` goes
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    stack_pointer_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStackBytes;
    makecontext(&context_, &Fiber::enter, 0);
#endif
  }

  // Runs the fiber until it suspends. Called by the scheduler.
  HARNESS_UNINSTRUMENTED void resume() {
    current() = this;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake_stack_, stack_, kStackBytes);
#endif
#if defined(__SANITIZE_THREAD__)
    scheduler_tsan_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    harness_switch(&scheduler_stack_pointer_, stack_pointer_);
#else
    swapcontext(&scheduler_context_, &context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
  }

  // Back to the scheduler. Called from within the fiber; `is_last` if it will not be resumed.
  HARNESS_UNINSTRUMENTED void suspend(bool is_last = false) {
    (void)is_last;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(is_last ? nullptr : &fake_stack_, scheduler_stack_,
                                   scheduler_stack_bytes_);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(scheduler_tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    harness_switch(&stack_pointer_, scheduler_stack_pointer_);
#else
    swapcontext(&context_, &scheduler_context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
  }

 private:
  static Fiber*& current() {
    static Fiber* fiber;
    return fiber;
  }
  HARNESS_UNINSTRUMENTED static void enter() {
    Fiber* self = current();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &self->scheduler_stack_,
                                    &self->scheduler_stack_bytes_);
#endif
    self->body_(self->argument_);
    self->suspend(true);
    __builtin_trap();
  }

  Body body_;
  void* argument_;
  char* stack_ = nullptr;
#if defined(__x86_64__)
  void* stack_pointer_;
  void* scheduler_stack_pointer_;
#else
  ucontext_t context_, scheduler_context_;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack_;
  void* scheduler_fake_stack_;
  const void* scheduler_stack_;
  size_t scheduler_stack_bytes_;
#endif
#if defined(__SANITIZE_THREAD__)
  void* tsan_ = nullptr;
  void* scheduler_tsan_;
#endif
};

}  // namespace harness
