// Files compressed by gzip. Source: RFC 1952; several members one after the other are one text.
#pragma once
#include <string>
#include <string_view>

#include "kernels/base/file.h"

namespace drover {

constexpr size_t kMostUnpackedBytes = size_t{4} << 30;

bool is_gzip(std::string_view bytes);

// What `bytes`, those of `file`, hold. bad_data naming the file where they are cut off, damaged, followed by something
// else, or hold more than `limit_bytes`.
std::string gunzip(const fs::path& file, std::string_view bytes, size_t limit_bytes = kMostUnpackedBytes);

}  // namespace drover
