// UTF-8 as it is checked, repaired and trimmed around the tokenizer.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace drover {

// The offset of the first byte that is not valid UTF-8, or text.size(). Overlong forms, surrogates and code points
// above U+10FFFF are not valid.
size_t first_invalid_utf8(std::string_view text);

// How many bytes at the end begin a character whose remaining bytes may still come: 0 to 3.
size_t unfinished_utf8(std::string_view text);

// Every longest run of bytes that begins a character but does not finish it, and every byte that begins none, becomes
// one U+FFFD (Unicode 15 §3.9, "maximal subparts"; also what Hugging Face's decoder gives).
std::string repair_utf8(std::string_view text);

// Without white space at both ends, as Python's str.strip() does it and hence the templates' `trim`. Expects valid
// UTF-8.
std::string_view strip(std::string_view text);

}  // namespace drover
