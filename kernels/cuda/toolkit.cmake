# CUDA, found or absent: sets DROVER_HAS_CUDA, and with it the target drover_cuda_libraries.
# launch/cuda-toolkit installs what is missing from PyPI's wheels into DROVER_CUDA_TOOLKIT.
set(DROVER_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where the toolkit is found), ON or OFF")
set_property(CACHE DROVER_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT DROVER_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "DROVER_CUDA=${DROVER_CUDA}: allowed are AUTO, ON and OFF")
endif()
set(DROVER_HAS_CUDA FALSE)
if(DROVER_CUDA STREQUAL "OFF")
  return()
endif()

set(CUDA_ROOTS ${DROVER_CUDA_TOOLKIT} $ENV{CUDA_HOME} $ENV{CUDA_PATH} /usr/local/cuda /usr/local/cuda-13.0)
find_program(DROVER_NVCC nvcc HINTS ${CUDA_ROOTS} PATH_SUFFIXES bin)
if(DROVER_NVCC)
  get_filename_component(NVCC_ROOT ${DROVER_NVCC} REALPATH)
  get_filename_component(NVCC_ROOT ${NVCC_ROOT} DIRECTORY)
  get_filename_component(NVCC_ROOT ${NVCC_ROOT} DIRECTORY)
  list(PREPEND CUDA_ROOTS ${NVCC_ROOT})
endif()
# cudnn-frontend's headers are fetched where there is a toolkit to use them with; with ON, all that is missing.
if(DROVER_NVCC OR DROVER_CUDA STREQUAL "ON")
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/launch/cuda-toolkit RESULT_VARIABLE FETCHED)
  if(NOT FETCHED EQUAL 0 AND DROVER_CUDA STREQUAL "ON")
    message(FATAL_ERROR "DROVER_CUDA=ON: launch/cuda-toolkit failed")
  endif()
  list(PREPEND CUDA_ROOTS ${CMAKE_SOURCE_DIR}/build/cuda)
  find_program(DROVER_NVCC nvcc HINTS ${CUDA_ROOTS} PATH_SUFFIXES bin)
endif()
find_path(DROVER_CUBLASLT_INCLUDE cublasLt.h HINTS ${CUDA_ROOTS} PATH_SUFFIXES include targets/x86_64-linux/include)
find_library(DROVER_CUBLASLT cublasLt HINTS ${CUDA_ROOTS} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib)
find_library(DROVER_CUDART cudart_static HINTS ${CUDA_ROOTS} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib)
find_path(DROVER_CUDNN_INCLUDE cudnn.h HINTS ${CUDA_ROOTS} PATH_SUFFIXES include)
find_library(DROVER_CUDNN NAMES cudnn libcudnn.so.9 HINTS ${CUDA_ROOTS} PATH_SUFFIXES lib64 lib)
# cudnn-frontend refers to NVRTC, which cuDNN itself compiles attention with.
find_library(DROVER_NVRTC NAMES nvrtc HINTS ${CUDA_ROOTS} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib)
# NCCL's header; the library is loaded at run time, where several GPUs speak.
find_path(DROVER_NCCL_INCLUDE nccl.h HINTS ${CUDA_ROOTS} PATH_SUFFIXES include)
find_library(DROVER_NCCL NAMES nccl libnccl.so.2 HINTS ${CUDA_ROOTS} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib)
find_path(DROVER_CUDNN_FRONTEND cudnn_frontend.h HINTS ${CUDA_ROOTS} PATH_SUFFIXES include)

set(MISSING "")
foreach(PART
    DROVER_NVCC DROVER_CUBLASLT_INCLUDE DROVER_CUBLASLT DROVER_CUDART DROVER_CUDNN_INCLUDE DROVER_CUDNN DROVER_NVRTC
    DROVER_CUDNN_FRONTEND DROVER_NCCL_INCLUDE DROVER_NCCL)
  if(NOT ${PART})
    list(APPEND MISSING ${PART})
  endif()
endforeach()
if(MISSING)
  string(REPLACE ";" " " MISSING "${MISSING}")
  if(DROVER_CUDA STREQUAL "ON")
    message(FATAL_ERROR "DROVER_CUDA=ON, and these are not found: ${MISSING}. "
            "Run launch/cuda-toolkit, which installs them, or name a toolkit with -DDROVER_CUDA_TOOLKIT=DIR")
  endif()
  message(STATUS "CUDA backend: left out (not found: ${MISSING}; launch/cuda-toolkit installs them)")
  return()
endif()

set(CMAKE_CUDA_COMPILER ${DROVER_NVCC})
# The architecture is named below, with the standard: CMake 3.25 knows neither of this compiler. Without -fmad=false,
# bits would depend on the instance of a kernel.
set(CMAKE_CUDA_ARCHITECTURES OFF)
set(CMAKE_CUDA_FLAGS "-std=c++20 -gencode arch=compute_90a,code=sm_90a -fmad=false" CACHE STRING "")
enable_language(CUDA)
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA_FLAGS_RELEASE -O2)
set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/kernels/cuda/compile ${CMAKE_CXX_COMPILER_LAUNCHER})
set(DROVER_HAS_CUDA TRUE)

add_library(drover_cuda_libraries INTERFACE)
target_include_directories(drover_cuda_libraries SYSTEM INTERFACE
  ${DROVER_CUBLASLT_INCLUDE} ${DROVER_CUDNN_INCLUDE} ${DROVER_NCCL_INCLUDE} ${DROVER_CUDNN_FRONTEND})
target_link_libraries(drover_cuda_libraries INTERFACE
  ${DROVER_CUDART} ${DROVER_CUBLASLT} ${DROVER_CUDNN} ${DROVER_NVRTC} Threads::Threads ${CMAKE_DL_LIBS} rt)
# NVRTC looks for its built-ins by name only; with RPATH (not RUNPATH) they are found where NVRTC was.
target_link_options(drover_cuda_libraries INTERFACE -Wl,--disable-new-dtags)
message(STATUS "CUDA backend: ${DROVER_NVCC}, ${DROVER_CUBLASLT}, ${DROVER_CUDNN}, "
        "cudnn-frontend in ${DROVER_CUDNN_FRONTEND}")
