// Bytes around a map that nobody may read, though they are in the process's memory: AddressSanitizer learns of them.
#pragma once
#include <cstddef>
#include <span>

#if defined(__SANITIZE_ADDRESS__)
#define DROVER_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DROVER_ADDRESS_SANITIZER
#endif
#endif
#ifdef DROVER_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

namespace drover {

inline void forbid_bytes([[maybe_unused]] std::span<const std::byte> bytes) {
#ifdef DROVER_ADDRESS_SANITIZER
  ASAN_POISON_MEMORY_REGION(bytes.data(), bytes.size());
#endif
}

// To be called before the bytes are unmapped: others may get these addresses.
inline void allow_bytes([[maybe_unused]] std::span<const std::byte> bytes) {
#ifdef DROVER_ADDRESS_SANITIZER
  ASAN_UNPOISON_MEMORY_REGION(bytes.data(), bytes.size());
#endif
}

}  // namespace drover
