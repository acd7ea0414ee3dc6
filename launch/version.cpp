#include "launch/version.h"

#include <dnnl.h>
#include <mpi.h>
#include <zlib.h>

#include "kernels/base/hdf5.h"
#include "kernels/devices/devices.h"
#include "launch/grammar/grammars.h"

namespace drover {

std::string program_version() {
  const std::string_view commit = DROVER_COMMIT;
  return fmt::format("drover {} ({})", DROVER_VERSION, commit.empty() ? "no commit known" : commit);
}

std::string version_text() {
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(mpi, &length);
  const std::string name(mpi, static_cast<size_t>(length));
  const dnnl_version_t* dnnl = dnnl_version();
  const std::string cuda = cuda_libraries();
  return fmt::format(
      "{}\nbackends  cpu, count{}\noneDNN    {}.{}.{}\nMPI       {}\nHDF5      {}\nyaml-cpp  {}\nzlib      "
      "{}\ngrammars  {}\n{}",
      program_version(), cuda.empty() ? "" : ", cuda", dnnl->major, dnnl->minor, dnnl->patch,
      name.substr(0, name.find_first_of(",\n")), hdf5::library_version(), DROVER_YAML_CPP_VERSION, zlibVersion(),
      Grammars::available() ? Grammars::library() : "none: xgrammar is absent in this build",
      cuda.empty() ? "" : fmt::format("CUDA      {}\n", cuda));
}

}  // namespace drover
