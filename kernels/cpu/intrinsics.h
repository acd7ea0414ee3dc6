// The CPU's intrinsics, without the warnings that GCC has for its own. They lie in functions behind a
// `#pragma GCC target`, and their vectors begin as ones whose value is meant to be undefined.
#pragma once
#include <immintrin.h>

#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
