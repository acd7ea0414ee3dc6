// Finds, loads and asks libdrover_cuda.so (cuda_module.h). It is never unloaded.
#include <dlfcn.h>

#include <filesystem>

#include "kernels/base/error.h"
#include "kernels/cuda_module/cuda_module.h"

namespace drover {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFile = "libdrover_cuda.so";

fs::path find_module() {
  std::error_code none;
  const fs::path here = fs::read_symlink("/proc/self/exe", none).parent_path();
  for (const fs::path& folder : {here, here.parent_path() / "lib"}) {
    if (fs::exists(folder / kFile, none)) return folder / kFile;
  }
  return {};
}

bool has_driver() { return dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr; }

struct Loaded {
  const CudaModule* module = nullptr;
  std::string why_not;
};

const Loaded& load(const fs::path& path) {
  static const Loaded loaded = [&] {
    Loaded l;
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle) l.module = static_cast<const CudaModule*>(dlsym(handle, kCudaModuleSymbol));
    if (!l.module) {
      const char* said = dlerror();
      l.why_not =
          fmt::format("{} cannot be loaded ({}); install CUDA 13 and cuDNN 9, or name their folders in LD_LIBRARY_PATH",
                      path.string(), said ? said : "no reason given");
    }
    return l;
  }();
  return loaded;
}

}  // namespace

CudaStatus cuda_status() {
  static const CudaStatus status = []() -> CudaStatus {
    const fs::path path = find_module();
    if (path.empty())
      return {.why_not =
                  "this program was built without CUDA; configure with -DDROVER_CUDA=ON (launch/cuda-toolkit installs "
                  "what that needs)"};
    if (!has_driver()) {
      return {.built = true,
              .why_not =
                  "no NVIDIA driver is installed; install one for CUDA 13 (580 or newer) and see that nvidia-smi lists "
                  "the GPU"};
    }
    const Loaded& loaded = load(path);
    if (!loaded.module) return {.built = true, .why_not = loaded.why_not};
    return loaded.module->status();
  }();
  return status;
}

std::string cuda_libraries() {
  const fs::path path = find_module();
  if (path.empty()) return {};
  const Loaded& loaded = load(path);
  return loaded.module ? loaded.module->libraries() : loaded.why_not;
}

CudaIdentity cuda_identity(int device) {
  require(cuda_status().usable, "a GPU is asked for its identity where there is one");
  return load(find_module()).module->identity(device);
}

std::string cuda_module_file() { return find_module().string(); }

std::unique_ptr<Backend> make_cuda_backend(const CudaChoice& choice) {
  const CudaStatus status = cuda_status();
  if (!status.usable) fail(Fault::bad_recipe, "device: cuda cannot be used here: {}", status.why_not);
  return load(find_module()).module->make_backend(choice);
}

std::string nccl_version() { return load(find_module()).module->nccl_version(); }

Mesh make_nccl_mesh(const Mesh& host, Backend& backend, const CudaChoice& choice) {
  return load(find_module()).module->make_nccl_mesh(host, backend, choice);
}

}  // namespace drover
