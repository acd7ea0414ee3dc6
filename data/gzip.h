// Files compressed by gzip. Source: RFC 1952; several members one after the other are one text.
#pragma once
#include <functional>
#include <string_view>

#include "kernels/base/file.h"

namespace drover {

constexpr size_t kMostUnpackedBytes = size_t{4} << 30;

bool is_gzip(std::string_view bytes);

// What `bytes`, those of `file`, hold, piece by piece. bad_data naming the file where they are cut off, damaged,
// followed by something else, or hold more than `limit_bytes`.
void gunzip(const fs::path& file, std::string_view bytes, const std::function<void(std::string_view)>& use,
            size_t limit_bytes = kMostUnpackedBytes);

}  // namespace drover
