// A libcuda.so.1 for machines without a GPU, so that cuDNN compiles an attention's code and says what workspace it
// takes (cudnn_support.cpp): code is "loaded", nothing runs. Whoever asks for more gets CUDA_ERROR_STUB_LIBRARY, as
// from the toolkit's own stub. Without cuda.h, whose macros rename what cuDNN looks up by its old names.
#include <cstdint>

namespace {

constexpr int kSuccess = 0, kStubLibrary = 34, kVersion = 13000;

int some_handle(void** handle) {
  *handle = reinterpret_cast<void*>(uintptr_t{0x1000});
  return kSuccess;
}
int text(const char** to) {
  *to = "this is a stand-in for a driver";
  return kSuccess;
}

}  // namespace

extern "C" {

int cuLibraryLoadData(void** library, const void*, void*, void**, unsigned, void*, void**, unsigned) {
  return some_handle(library);
}
int cuLibraryGetKernel(void** kernel, void*, const char*) { return some_handle(kernel); }
int cuKernelGetFunction(void** function, void*) { return some_handle(function); }
int cuKernelSetAttribute(int, int, void*, int) { return kSuccess; }
int cuKernelGetAttribute(int* value, int, void*, int) {
  *value = 0;
  return kSuccess;
}
int cuFuncSetAttribute(void*, int, int) { return kSuccess; }
int cuLibraryUnload(void*) { return kSuccess; }
int cuDriverGetVersion(int* version) {
  *version = kVersion;
  return kSuccess;
}
int cuGetErrorName(int, const char** name) { return text(name); }
int cuGetErrorString(int, const char** string) { return text(string); }

#define DROVER_NOT_HERE(NAME) \
  int NAME() { return kStubLibrary; }
DROVER_NOT_HERE(cuInit)
DROVER_NOT_HERE(cuGetProcAddress)
DROVER_NOT_HERE(cuGetProcAddress_v2)
DROVER_NOT_HERE(cuDeviceGet)
DROVER_NOT_HERE(cuDeviceGetCount)
DROVER_NOT_HERE(cuDeviceGetAttribute)
DROVER_NOT_HERE(cuCtxGetCurrent)
DROVER_NOT_HERE(cuCtxGetLimit)
DROVER_NOT_HERE(cuCtxPopCurrent)
DROVER_NOT_HERE(cuCtxPushCurrent)
DROVER_NOT_HERE(cuStreamGetCtx)
DROVER_NOT_HERE(cuLibraryLoadFromFile)
DROVER_NOT_HERE(cuLinkCreate)
DROVER_NOT_HERE(cuLinkAddData)
DROVER_NOT_HERE(cuLinkComplete)
DROVER_NOT_HERE(cuLinkDestroy)
DROVER_NOT_HERE(cuLaunchKernel)
DROVER_NOT_HERE(cuLaunchKernelEx)
DROVER_NOT_HERE(cuLaunchCooperativeKernel)
DROVER_NOT_HERE(cuOccupancyMaxPotentialClusterSize)
DROVER_NOT_HERE(cuOccupancyMaxActiveClusters)
DROVER_NOT_HERE(cuOccupancyMaxActiveBlocksPerMultiprocessor)
}
